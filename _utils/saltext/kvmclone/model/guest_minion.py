"""
Describe what a guest says of its minion while a master waits for that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from saltext.kvmclone.model.master_ports import PortCheck
from saltext.kvmclone.model.names import is_minion_id

#: A public key as Salt keeps it; nothing else of a guest's file is taken.
_PUBLIC_KEY = re.compile(
    r"-----BEGIN (RSA )?PUBLIC KEY-----\n[A-Za-z0-9+/=\n]{64,4096}\n-----END (RSA )?PUBLIC KEY-----"
)


@dataclass(frozen=True)
class GuestMinion:
    """
    What a guest says of its minion; empty where it does not know, or cannot be asked.

    :param minion_id: The id that its minion goes by, as far as its files say that.
    :param public_key: The public half of its minion's key, PEM.
    :param ports: What it says of the ports of its master.
    :raises ValueError: It is none of that; a guest tells it, or whoever poses as one.
    """

    minion_id: str = ""
    public_key: str = ""
    ports: tuple[PortCheck, ...] = ()

    def __post_init__(self) -> None:
        if self.minion_id and not is_minion_id(self.minion_id):
            raise ValueError("the id of a minion is none")
        if self.public_key and not is_public_key(self.public_key):
            raise ValueError("the key of a minion is none")


def is_public_key(text: str) -> bool:
    """Return whether a text is a public key as Salt keeps it, and nothing but that."""
    return _PUBLIC_KEY.fullmatch(text) is not None
