"""
Tell a minion that kept the key or the id of its base from one that only is slow.

Such a minion never answers: its master knows it under another key, or another id. For certain that
is told by the files in its guest. Where nobody can look at these, what the master refused to let in
under the minion's id is what is left.
"""

from __future__ import annotations

from saltext.kvmclone.master.keys import ACCEPTED, DENIED, MinionKeys
from saltext.kvmclone.model.guest_minion import GuestMinion

#: What to do about it.
HINT = (
    "The deploy script has to put minion.pem, minion.pub and minion, which lie beside it, where "
    "those of the base are: Salt's bootstrap script does so with 'script_args: -F'. Or take "
    "'reset_identity: false' out of the profile, so that the base's are gone before the script "
    "runs."
)


class OtherKey:
    """
    The key that a minion was given, held against the one that its guest has.

    :param keys: The master's minion keys; that of the minion is accepted.
    """

    def __init__(self, keys: MinionKeys, minion_id: str) -> None:
        self.keys = keys
        self.minion_id = minion_id

    def sentence(self, told: GuestMinion) -> str:
        """
        Return what is wrong with the minion's key or id; empty where nothing is known to be.

        :param told: What the guest says.
        """
        known = self.keys.known(self.minion_id)
        given = next(iter(known.get(ACCEPTED, ())), "")
        if not given:
            return ""  # somebody removed it meanwhile
        calls = f"calls itself '{told.minion_id}' and not '{self.minion_id}'"
        renamed = told.minion_id not in ("", self.minion_id)
        if told.public_key and not _same(told.public_key, given):
            also = f" It {calls}." if renamed else ""
            return (
                f"The minion in the guest has another key ({self._shown(told.public_key)}) than "
                f"the one that was made for '{self.minion_id}' ({self._shown(given)}).{also}"
            )
        if renamed:
            return f"The minion in the guest {calls}."
        refused = next(iter(known.get(DENIED, ())), "")
        if refused and not told.public_key:
            return (
                f"A minion with another key ({self._shown(refused)}) asked to be let in as "
                f"'{self.minion_id}', whose own is {self._shown(given)}. It is the one in the "
                "guest, if that kept the key of its base."
            )
        return ""

    def _shown(self, key: str) -> str:
        return self.keys.fingerprint(key)


def _same(one: str, other: str) -> bool:
    return one.split() == other.split()
