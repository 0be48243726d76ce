"""
Compute the fingerprints by which Salt shows a minion's key.

``salt-key -f`` hashes a key without the lines that frame it, as Salt 3006 and 3007 do, or all of
it, as Salt 3008 does. A fingerprint on a record may be from before a master's upgrade, and another
master may have another Salt.
"""

from __future__ import annotations

import hashlib

#: The hash functions that ``hash_type`` may name, by the bytes of a fingerprint.
_HASH_TYPES = {16: "md5", 20: "sha1", 28: "sha224", 32: "sha256", 48: "sha384", 64: "sha512"}


def without_frame(public: str, hash_type: str = "sha256") -> str:
    """
    Return the fingerprint that Salt 3006 and 3007 show.

    :param public: The key as PEM text.
    :param hash_type: Name of the hash function, as in Salt's configuration.
    """
    body = public.strip().splitlines()[1:-1]
    return _fingerprint("".join(f"{line}\n" for line in body), hash_type)


def whole(public: str, hash_type: str = "sha256") -> str:
    """
    Return the fingerprint of all of a key, which Salt 3008 shows.

    :param public: The key as PEM text.
    :param hash_type: Name of the hash function, as in Salt's configuration.
    """
    return _fingerprint(public.strip(), hash_type)


def every(public: str, like: str) -> tuple[str, ...]:
    """
    Return the fingerprints by which a key may be shown, without those that are equal.

    :param public: The key as PEM text.
    :param like: A fingerprint of the hash function that is meant; it comes first.
    """
    hash_type = _hash_type(like)
    both = (without_frame(public, hash_type), whole(public, hash_type)) if hash_type else ()
    return tuple(dict.fromkeys((like, *both)))


def is_of(fingerprint: str, public: str) -> bool:
    """
    Return True if a fingerprint is that of a key, whichever Salt made it.

    :param public: The key as PEM text.
    """
    hash_type = _hash_type(fingerprint)
    return bool(hash_type and public) and fingerprint in (
        without_frame(public, hash_type),
        whole(public, hash_type),
    )


def _hash_type(fingerprint: str) -> str:
    return _HASH_TYPES.get(len(fingerprint.split(":")), "")


def _fingerprint(text: str, hash_type: str) -> str:
    return hashlib.new(hash_type, text.encode(), usedforsecurity=False).digest().hex(":")
