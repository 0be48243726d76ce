"""
Reading a login key by way of `cryptography`: paramiko reads not every PEM and does not
guess the type.
"""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from saltext.kvmclone import errors

try:
    import paramiko
except ImportError:  # :func:`.ssh.connect` says so before it asks for a key.
    paramiko = None  # type: ignore[assignment]


_HINT = "private_key must name an RSA, ECDSA or Ed25519 key, PEM or OpenSSH."
_HINT_LOCKED = (
    "Set private_key_passphrase in the profile (or an sdb:// URI there), and try it by hand: "
    "ssh-keygen -y -f KEYFILE"
)


def read(text: str, passphrase: str) -> Any:
    """
    The login key, in no need of paramiko; so a wrong passphrase can be told before anything
    is cloned.

    :param text: PEM (PKCS#1, PKCS#8, SEC 1) or OpenSSH.
    :param passphrase: Empty for none; one that the key does not need is passed over.
    :raises errors.LoginFailed: It cannot be read, or is of a kind that we do not know.
    """
    data = text.strip().encode() + b"\n"
    is_openssh = b"OPENSSH PRIVATE KEY" in data
    load_key: Any = (
        serialization.load_ssh_private_key if is_openssh else serialization.load_pem_private_key
    )
    key = None
    # Without the passphrase first: cryptography objects to one that is not needed.
    for secret in dict.fromkeys((None, passphrase.encode() or None)):
        # Several kinds of errors, over several versions of cryptography.
        with suppress(Exception):
            key = load_key(data, secret)
            break
    if key is None and passphrase:
        raise errors.LoginFailed(
            "the private key cannot be read with this private_key_passphrase", _HINT_LOCKED
        )
    if key is None:
        raise errors.LoginFailed(
            "the private key cannot be read: it is damaged, of an unknown kind, or has a "
            "passphrase that we do not have",
            f"{_HINT} Has it a passphrase? {_HINT_LOCKED}",
        )
    if not isinstance(
        key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    ):
        raise errors.LoginFailed(
            f"a private key of type {type(key).__name__} is not supported", _HINT
        )
    return key


def load(text: str, passphrase: str) -> Any:
    """
    The login key in paramiko's own class; parameters and errors as of :func:`read`.
    """
    key = read(text, passphrase)
    for kind, cls in (
        (rsa.RSAPrivateKey, paramiko.RSAKey),
        (ec.EllipticCurvePrivateKey, paramiko.ECDSAKey),
        (ed25519.Ed25519PrivateKey, paramiko.Ed25519Key),
    ):
        if isinstance(key, kind):
            plain = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.OpenSSH,
                serialization.NoEncryption(),
            )
            return cls.from_private_key(io.StringIO(plain.decode()))
    raise AssertionError("read() lets no other kind through")
