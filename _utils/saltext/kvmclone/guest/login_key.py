"""
Read the private key that a profile gives for the login.

With `cryptography` alone: the master reads the key before anything is cloned, and may have no
paramiko. paramiko does not read every PEM format anyway, and does not guess the type.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from saltext.kvmclone import errors

LoginKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_HINT = "private_key must name an RSA, ECDSA or Ed25519 key, PEM or OpenSSH."
_HINT_LOCKED = (
    "Set private_key_passphrase in the profile (or an sdb:// URI there), and try it by hand: "
    "ssh-keygen -y -f KEYFILE"
)


def read(text: str, passphrase: str) -> LoginKey:
    """
    Return the private key in a text.

    :param text: PEM (PKCS#1, PKCS#8, SEC 1) or OpenSSH.
    :param passphrase: Empty for none; one that the key does not need is ignored.
    :raises errors.LoginFailed: It cannot be read, or is of an unsupported type.
    """
    data = text.strip().encode() + b"\n"
    load: Any = (
        serialization.load_ssh_private_key
        if b"OPENSSH PRIVATE KEY" in data
        else serialization.load_pem_private_key
    )
    # Without the passphrase first: cryptography objects to one that is not needed.
    for secret in dict.fromkeys((None, passphrase.encode() or None)):
        # The kind of error differs between versions of cryptography.
        with suppress(Exception):
            key = load(data, secret)
            break
    else:
        if passphrase:
            raise errors.LoginFailed(
                "the private key cannot be read with this private_key_passphrase", _HINT_LOCKED
            )
        raise errors.LoginFailed(
            "the private key cannot be read: it is damaged, of an unknown kind, or has a "
            "passphrase that we do not have",
            f"{_HINT} Does it have a passphrase? {_HINT_LOCKED}",
        )
    if not isinstance(key, LoginKey):
        raise errors.LoginFailed(
            f"a private key of type {type(key).__name__} is not supported", _HINT
        )
    return key
