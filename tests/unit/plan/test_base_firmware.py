"""A disk boots with the firmware that it was made for, and with a BIOS where it can."""

from __future__ import annotations

import struct
import uuid

import pytest

from saltext.kvmclone.plan import base_firmware

ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"


def gpt(*types: str, program: bytes = b"") -> bytes:
    data = bytearray(34 * 512)
    data[: len(program)] = program
    data[450] = 0xEE
    data[510:512] = b"\x55\xaa"
    data[512:520] = b"EFI PART"
    struct.pack_into("<QII", data, 512 + 72, 2, 128, 128)
    for number, kind in enumerate(types):
        data[1024 + number * 128 : 1024 + number * 128 + 16] = uuid.UUID(kind).bytes_le
    return bytes(data)


def mbr(kind: int, program: bytes = b"") -> bytes:
    data = bytearray(34 * 512)
    data[: len(program)] = program
    data[450] = kind
    data[510:512] = b"\x55\xaa"
    return bytes(data)


@pytest.mark.parametrize(
    ("start", "firmware"),
    [
        (gpt(LINUX, BIOS_BOOT, ESP, program=b"\xebc"), "bios"),  # Debian, Ubuntu
        (gpt(BIOS_BOOT, ESP, LINUX), "bios"),  # Fedora
        (gpt(ESP, LINUX), "efi"),  # Debian for ARM, Fedora CoreOS-like, Flatcar's UEFI images
        (gpt(LINUX), "bios"),
        (mbr(0x83, b"\xfa\xb8"), "bios"),  # CentOS 7, openSUSE, ours
        (mbr(0xEF), "efi"),
        (mbr(0xEF, b"\xfa\xb8"), "bios"),
        (b"", "bios"),  # not known
        (gpt(ESP)[:600], "bios"),
    ],
)
def test_the_firmware_is_told_by_the_partition_table(start: bytes, firmware: str) -> None:
    assert base_firmware.needed(start) == firmware


def test_a_forged_table_is_read_within_bounds() -> None:
    data = bytearray(gpt(ESP))
    struct.pack_into("<QII", data, 512 + 72, 2**62, 2**31, 2**31)
    assert base_firmware.needed(bytes(data)) == "bios"
