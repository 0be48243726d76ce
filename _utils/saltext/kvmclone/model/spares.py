"""
Describe spares: how many clones a profile keeps ready, what they are called, who claimed one.

Pure. A spare is an ordinary clone whose record says what its profile asked when it was made. It is
in stock until somebody claims it, and never again after that.
"""

from __future__ import annotations

from dataclasses import dataclass

from saltext.kvmclone.errors import InvalidName
from saltext.kvmclone.model import names

#: Stands in ``spare_names`` for what tells one spare from another.
ID = "{id}"

#: Hexadecimal digits that stand there in a spare's name.
ID_DIGITS = 6

#: The grain that a spare has while it is in stock, with the name of its profile.
GRAIN = "kvm_clone_spare"


@dataclass(frozen=True)
class Claim:
    """
    The claim on a clone that was a spare.

    :param by: Who took it: a user, or the id of the minion that asked.
    :param at: When, seconds since the epoch; 0 where nobody did.
    """

    by: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class Stock:
    """
    The spares that a profile wants (``spares``, ``spare_names``).

    :param number: How many are kept in stock.
    :param names: What they are called, with :data:`ID` in it; empty for what the profile is called.
    """

    number: int = 0
    names: str = ""

    def pattern(self, profile: str) -> str:
        """Return what the spares of a profile are called, with :data:`ID` in it."""
        return self.names or f"{profile}-{ID}"


def name_of(pattern: str, word: str) -> str:
    """
    Return the name of one spare.

    :param pattern: A name with :data:`ID` in it once.
    :param word: What stands there in this one's name: :data:`ID_DIGITS` hexadecimal digits.
    :raises InvalidName: No clone can be called so.
    """
    if pattern.count(ID) != 1:
        raise InvalidName(
            f"The names of spares {pattern!r:.80} do not have {ID} in them once.",
            f"Write it into the profile. For example: spare_names: 'ci-{ID}'",
        )
    return names.check(pattern.replace(ID, word))
