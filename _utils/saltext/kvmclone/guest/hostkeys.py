"""
SSH host keys, made on our side: ``ssh-keygen -A`` takes 2 to 7 s in a guest, and keys
that we made are known before the guest shows them.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from saltext.kvmclone.guest.channel import PublicKey

RSA_BITS = 3072

_Private = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, repr=False)
class HostKey:
    """
    One key pair.

    :param kind: As in ``ssh_host_KIND_key``: ``ed25519``, ``ecdsa``, ``rsa``.
    :param private: OpenSSH format, with its final newline.
    :param public: The public half.
    """

    kind: str
    private: str
    public: PublicKey

    def __repr__(self) -> str:
        return f"HostKey({self.kind}, {self.public.fingerprint})"


def generate() -> tuple[HostKey, ...]:
    """
    One fresh key of each kind that sshd has by default.

    The RSA key takes a few tenths of a second, so call this while the guest boots.
    """
    return (
        _pair("ed25519", ed25519.Ed25519PrivateKey.generate()),
        _pair("ecdsa", ec.generate_private_key(ec.SECP256R1())),
        _pair("rsa", rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)),
    )


def _pair(kind: str, key: _Private) -> HostKey:
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return HostKey(kind, private.decode(), PublicKey.from_line(public.decode()))
