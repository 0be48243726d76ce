"""
Make SSH host keys for a guest, or read those that it has.

``ssh-keygen -A`` takes 2 to 7 s in a guest, and keys that we made are known before the guest
shows them. Keys that stay the guest's own are read over the agent, which needs no proof of
identity: its socket is the domain's.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from saltext.kvmclone import errors
from saltext.kvmclone.guest.agent import AgentChannel
from saltext.kvmclone.guest.channel import Channel, PublicKey

RSA_BITS = 3072

#: Most keys that are taken from a guest, and most characters of one: the record holds them.
MOST, LONGEST = 16, 8192

_Private = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, repr=False)
class HostKey:
    """
    One host key pair.

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
    Make one fresh key of each kind that sshd has by default.

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


#: Prints the keys that sshd says it uses, an empty line, and those in their usual place.
_READ = r"""
for f in $(sshd -T 2>/dev/null | sed -n 's/^hostkey //p'); do
    cat "$f.pub" 2>/dev/null || ssh-keygen -y -f "$f" </dev/null 2>/dev/null
done
echo
cat /etc/ssh/ssh_host_*_key.pub 2>/dev/null
:
"""


def of_guest(channel: Channel) -> tuple[PublicKey, ...]:
    """
    Return the public host keys that the guest's sshd uses; empty if it has none.

    :raises errors.ChannelError: The guest cannot be asked.
    :raises errors.CommandFailed: The command did not end in time.
    """
    used, _, usual = channel.run(_READ, timeout=30.0).output.partition("\n\n")
    return _keys(used) or _keys(usual)


def over_agent(agent: AgentChannel) -> tuple[PublicKey, ...]:
    """
    Return the guest's public host keys over its agent, even one that forbids commands.

    :return: Empty if there are none, or the agent does not return any.
    """
    with suppress(errors.ChannelError, errors.CommandFailed):
        return of_guest(agent)
    found: list[PublicKey] = []
    for kind in ("ed25519", "ecdsa", "rsa"):
        with suppress(errors.ChannelError):
            text = agent.fetch(f"/etc/ssh/ssh_host_{kind}_key.pub").decode("utf-8", "replace")
            found += _keys(text)
    return tuple(found)


def _keys(text: str) -> tuple[PublicKey, ...]:
    found = []
    for line in text.splitlines():
        if len(line) <= LONGEST:
            with suppress(ValueError):
                found.append(PublicKey.from_line(line))
    return tuple(dict.fromkeys(found))[:MOST]
