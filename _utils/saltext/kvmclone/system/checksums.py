"""
Compute and compare the digests of images, and read the checksum files that vendors publish.

Pure but for what is hashed. ``sha256`` and ``sha512`` are known, which every vendor has.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import BinaryIO

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import ChecksumMismatch, ConfigError
from saltext.kvmclone.model.digests import written

#: Bytes that are read at once.
_PIECE = 2**20

#: ``DIGEST  NAME`` and ``DIGEST *NAME``, as coreutils write it.
_LINE = re.compile(r"\\?([0-9a-fA-F]{64}|[0-9a-fA-F]{128})[ \t]+\*?(.+?)\s*")
#: ``SHA256 (NAME) = DIGEST``, as BSD's tools and Fedora write it.
_TAGGED = re.compile(r"SHA(?:256|512) \((.+)\) = ([0-9a-fA-F]{64}|[0-9a-fA-F]{128})\s*")


def find(text: str, name: str, where: str) -> str:
    """
    Return the digest of one file from a vendor's checksum file.

    :param name: Name of the file, without a folder.
    :param where: URL of the checksum file, as a message may show it.
    :raises ConfigError: It has no digest of that file, or two different ones.
    """
    found = set()
    for line in text.splitlines():
        if tagged := _TAGGED.fullmatch(line.strip()):
            file, digits = tagged[1], tagged[2]
        elif plain := _LINE.fullmatch(line.strip()):
            file, digits = plain[2], plain[1]
        else:
            continue
        if file.rpartition("/")[2] == name:
            found.add(written(digits))
    if len(found) == 1:
        return found.pop()
    what = "has no digest" if not found else "has several digests"
    raise ConfigError(
        f"The checksum file '{where}' {what} of '{name}'.",
        "Look into it, or give the digest itself: sha256=DIGEST",
    )


def of(file: BinaryIO, algorithm: str, told: Callable[[], None] = lambda: None) -> str:
    """
    Return the digest of a whole open file, as it is recorded.

    :param told: Called after each piece; what it raises ends the reading.
    """
    hasher = hashlib.new(algorithm)
    file.seek(0)
    while piece := file.read(_PIECE):
        interrupts.check()
        hasher.update(piece)
        told()
    return f"{algorithm}:{hasher.hexdigest()}"


def require(wanted: str, found: str, source: str) -> None:
    """
    Refuse an image that has another digest than it must have.

    :param wanted: Empty for any.
    :param source: Where it is from, as a message may show it.
    :raises ChecksumMismatch: It has another one.
    """
    if wanted and not hmac.compare_digest(wanted, found):
        raise ChecksumMismatch(
            f"'{source}' is not the image that was asked for: its digest is {found}, and it must "
            f"be {wanted}. Nothing of it was kept.",
            "Was a newer image published under that name? Take its digest from the vendor; "
            "otherwise do not use what this address serves.",
        )
