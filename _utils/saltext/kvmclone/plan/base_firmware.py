"""
Decide which firmware a disk boots with, from its partition table. Pure.

The vendors' images say it by what they have: a boot program in the first sector, or a partition
for one, is for a BIOS; an EFI system partition is for UEFI. Most have both, and a BIOS starts
faster and keeps no variables.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator

BIOS, EFI = "bios", "efi"

_SECTOR = 512
_BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")
_EFI_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")

#: Bytes of a boot program in the first sector, and where its four partitions stand.
_PROGRAM, _PARTITIONS = 440, 446
_MBR_EFI = 0xEF

#: Where the entries of a GPT begin, how many there are, and how long each is.
_GPT = struct.Struct("<QII")
_GPT_AT, _MOST_ENTRIES = 72, 128


def needed(start: bytes) -> str:
    """
    Return the firmware that a disk needs: ``efi`` only where nothing on it is for a BIOS.

    :param start: The first 34 sectors that its guest sees; may be empty where they are not known.
    """
    gpt = start[_SECTOR : _SECTOR + 8] == b"EFI PART"
    types = set(_gpt_types(start)) if gpt else set()
    has_program = bool(start[:_PROGRAM].strip(b"\0"))
    if has_program or _BIOS_BOOT in types:
        return BIOS
    mbr = {start[_PARTITIONS + 16 * n + 4] for n in range(4)} if len(start) >= _SECTOR else set()
    return EFI if _EFI_SYSTEM in types or _MBR_EFI in mbr else BIOS


def _gpt_types(start: bytes) -> Iterator[uuid.UUID]:
    if len(start) < 2 * _SECTOR:
        return
    first, count, length = _GPT.unpack_from(start, _SECTOR + _GPT_AT)
    for number in range(min(count, _MOST_ENTRIES)):
        kind = start[first * _SECTOR + number * length :][:16]
        if len(kind) == 16 and any(kind):
            yield uuid.UUID(bytes_le=kind)
