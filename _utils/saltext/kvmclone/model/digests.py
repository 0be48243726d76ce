"""
Read and write the digests of images: ``sha256:HEX`` or ``sha512:HEX``. Pure.
"""

from __future__ import annotations

import re

#: The algorithms, by the number of hexadecimal digits of their digests.
ALGORITHMS = {64: "sha256", 128: "sha512"}

#: The algorithm of a digest that nobody asked for.
DEFAULT = "sha256"

_HEX = re.compile(r"[0-9a-fA-F]+")


def written(text: str) -> str:
    """
    Return a digest as it is recorded, ``sha256:HEX`` or ``sha512:HEX``.

    :param text: Hexadecimal digits, with or without the algorithm before them.
    :return: Empty where it is no such digest.
    """
    named, colon, digits = text.strip().rpartition(":")
    algorithm = ALGORITHMS.get(len(digits), "")
    right = algorithm and _HEX.fullmatch(digits) and (not colon or named.lower() == algorithm)
    return f"{algorithm}:{digits.lower()}" if right else ""


def algorithm_of(digest: str) -> str:
    """Return the algorithm of a recorded digest; the default one for an empty text."""
    return digest.partition(":")[0] or DEFAULT
