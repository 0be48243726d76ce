"""
Reading a login key by way of `cryptography`: paramiko reads not every PEM and does not
guess the type.
"""

from __future__ import annotations

import io
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from saltext.kvmclone import errors

try:
    import paramiko
except ImportError:  # :func:`.ssh.connect` says so before it asks for a key.
    paramiko = None  # type: ignore[assignment]


def load(text: str, passphrase: str) -> Any:
    """
    The login key in paramiko's own class.

    :param text: PEM (PKCS#1, PKCS#8, SEC 1) or OpenSSH.
    :param passphrase: Empty for none.
    :raises errors.LoginFailed: It cannot be read.
    """
    secret = passphrase.encode() or None
    data = text.strip().encode() + b"\n"
    hint = "private_key must name an unencrypted RSA, ECDSA or Ed25519 key, PEM or OpenSSH."
    try:
        if b"OPENSSH PRIVATE KEY" in data:
            key: Any = serialization.load_ssh_private_key(data, secret)
        else:
            key = serialization.load_pem_private_key(data, secret)
    except Exception as exc:  # Several kinds, over several versions of cryptography.
        raise errors.LoginFailed(
            "the private key cannot be read: it is damaged, of an unknown kind, or has a "
            "passphrase that we do not have",
            hint,
        ) from exc
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
    raise errors.LoginFailed(f"a private key of type {type(key).__name__} is not supported", hint)
