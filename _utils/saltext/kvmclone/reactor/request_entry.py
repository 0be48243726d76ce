"""
Describe the requests that the reactor knows, and find, change and forget them in its database.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from saltext.kvmclone.errors import HostError
from saltext.kvmclone.reactor.policy import HOUR_S, RELEASE, REQUEST, Ask, Rule

#: The states of a request. Alive are those that may have a machine.
QUEUED, MAKING, MADE, FAILED, REFUSED, GONE = (
    "queued", "making", "made", "failed", "refused", "gone",
)  # fmt: skip
ALIVE = (MAKING, MADE)
OVER = (FAILED, REFUSED, GONE)
STATES = (QUEUED, *ALIVE, *OVER)

#: Stands for the digest of a request for any spare: nothing is made from it that has one.
CLAIM = "claim"

#: Most requests that are over and still known, so that they are not taken for new ones.
MAX_ENDED = 1000


@dataclass(frozen=True)
class RequestEntry:
    """
    One request of one minion.

    :param name: Of the clone; for any spare the one that was claimed, empty until then.
    :param rule: The rule that it is counted under, see :attr:`.policy.Rule.key`.
    :param asked: When the master first heard of it, seconds since the epoch.
    :param begun: When its create began, seconds since the epoch; 0 for not yet.
    :param digest: Digest of the request that the create was made from, or :data:`CLAIM`.
    :param uuid: Uuid of the clone that came of it.
    :param told: The minion was told how it ended.
    """

    token: str
    minion_id: str
    name: str
    profile: str
    keys: dict[str, Any] = field(default_factory=dict)
    rule: str = ""
    state: str = QUEUED
    reason: str = ""
    asked: float = 0.0
    begun: float = 0.0
    digest: str = ""
    uuid: str = ""
    address: str = ""
    told: bool = False

    @property
    def over(self) -> bool:
        """Return True if nothing more will come of it."""
        return self.state in OVER

    @property
    def is_claim(self) -> bool:
        """Return True if any spare was requested, not a machine of a certain name."""
        return self.digest == CLAIM

    @property
    def ask(self) -> Ask:
        """Return what was requested."""
        name = "" if self.is_claim else self.name
        return Ask(self.token, self.minion_id, REQUEST, name, self.profile, self.keys)

    def same_as(self, ask: Ask) -> bool:
        """Return True if the very same was requested, perhaps under another token."""
        return dataclasses.replace(self.ask, token="") == dataclasses.replace(ask, token="")


@dataclass(frozen=True)
class Notification:
    """
    A notification that waits for an answer, see :meth:`.request_store.RequestStore.note`.

    :param since: Its place in the queue, seconds since the epoch. A repeated notification keeps
        it; one that was answered, or could not be, goes to the end, so that none is passed over.
    :param stamp: Tells two notifications of one kind apart.
    """

    bell: str
    about: str
    after: float
    tries: int
    since: float
    stamp: str

    @property
    def question(self) -> tuple[str, str]:
        """
        Return what it leads to ask, and of whom.

        For a request and a release it is the same question. Answered at the same time they would be
        in each other's way: a release that was carried out would then be refused.
        """
        return REQUEST if self.bell == RELEASE else self.bell, self.about


def new_entry(ask: Ask, rule: str, state: str = QUEUED, reason: str = "") -> RequestEntry:
    """
    Return the entry for a request that was just heard of.

    One that ends at once (refused, withdrawn) counts as told: its handler answers the minion
    itself.
    """
    return RequestEntry(
        ask.token, ask.minion_id, ask.name, ask.profile, dict(ask.keys), rule, state, reason,
        time.time(), told=state != QUEUED, digest="" if ask.name else CLAIM,
    )  # fmt: skip


def damaged(path: str, error: Exception) -> HostError:
    """Return the error to raise where a file with requests cannot be understood."""
    return HostError(
        f"The request store '{path}' is damaged ({error}), so no event is obeyed.",
        "Look at the machines that there are: salt-run kvmclone.list   Then begin a new store: "
        f"rm {shlex.quote(path)}",
    )


def event_data(entry: RequestEntry) -> dict[str, Any]:
    """Return what an event says of a request."""
    said = {"who": entry.minion_id, "name": entry.name, "profile": entry.profile}
    return {**said, "state": entry.state, "reason": entry.reason, "uuid": entry.uuid}


def verdict(state: str, reason: str, entry: RequestEntry | None = None) -> dict[str, Any]:
    """Return what the minion that made a request is told of it, and of the machine."""
    found = {"verdict": state, "reason": reason}
    if entry is not None and entry.uuid and state != GONE:
        found |= {"uuid": entry.uuid, "address": entry.address}
        found |= {"name": entry.name} if entry.is_claim else {}
    return found


_COLUMNS = [one.name for one in dataclasses.fields(RequestEntry)]
_READ = f"SELECT {', '.join(_COLUMNS)} FROM requests"  # noqa: S608 - only names of columns
_PUT = (
    f"INSERT INTO requests ({', '.join(_COLUMNS)}) VALUES (:{', :'.join(_COLUMNS)}) "  # noqa: S608
    "ON CONFLICT (minion_id, token) DO UPDATE SET "
    + ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS)
)


class Requests:
    """The requests, within one transaction; see :meth:`RequestStore.requests`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def all(self) -> list[RequestEntry]:
        """Return every entry, oldest first."""
        return self._where("1")

    def find(self, minion_id: str, token: str) -> RequestEntry | None:
        """Return the entry of a request; None if it was not heard of before."""
        found = self._where("minion_id = ? AND token = ?", minion_id, token)
        return found[0] if found else None

    def current(self, name: str) -> RequestEntry | None:
        """Return the entry that has a name now: waiting, being made or made; None for none."""
        found = self._where(f"name = ? AND state IN {(QUEUED, *ALIVE)}", name)
        return found[0] if found else None

    def has_gone(self, minion_id: str, name: str) -> bool:
        """Return True if a minion had a machine of this name, as far as is still known."""
        return bool(self._where("minion_id = ? AND name = ? AND state = ?", minion_id, name, GONE))

    def take_untold(self) -> list[RequestEntry]:
        """Return the entries whose minion was not told how they ended; mark them as told."""
        found = self._where(f"NOT told AND state NOT IN {(QUEUED, MAKING)}")
        for entry in found:
            self.put(dataclasses.replace(entry, told=True))
        return found

    def put(self, entry: RequestEntry) -> RequestEntry:
        """Add an entry, or replace the one with its token."""
        self.connection.execute(_PUT, {**vars(entry), "keys": json.dumps(entry.keys)})
        return entry

    def in_state(self, *states: str) -> list[RequestEntry]:
        """Return the entries in one of these states, oldest first."""
        return self._where(f"state IN ({_marks(states)})", *states)

    def counted_by(self, rule: Rule, rules: Iterable[Rule]) -> list[RequestEntry]:
        """
        Return the entries that a rule's limits count: its own, and those it would allow today.

        The latter only where their own rule was changed since. A request that is over counts for
        an hour from the beginning of its create.
        """
        known = [one.key for one in rules]
        found = self._where(
            f"(state IN {(QUEUED, *ALIVE)} OR begun > ?) "
            f"AND (rule = ? OR rule NOT IN ({_marks(known)}))",
            time.time() - HOUR_S, rule.key, *known,
        )  # fmt: skip
        return [entry for entry in found if entry.rule == rule.key or rule.fits(entry.ask)]

    def prune(self) -> None:
        """
        Forget the oldest entries that are over and count for no limit, of the minion with most.

        Forgetting another minion's entry for its sake would let that be taken for a new request.
        """
        self.connection.execute(
            "DELETE FROM requests WHERE id IN (SELECT id FROM requests WHERE state IN (?, ?, ?) "
            "AND begun < ? ORDER BY row_number() OVER (PARTITION BY minion_id ORDER BY id DESC), "
            "id DESC LIMIT -1 OFFSET ?)",
            (*OVER, time.time() - HOUR_S, MAX_ENDED),
        )

    def _where(self, condition: str, *values: Any) -> list[RequestEntry]:
        rows = self.connection.execute(f"{_READ} WHERE {condition} ORDER BY id", values)
        return [_entry(**row) for row in rows]


def _entry(keys: str, told: int, **row: Any) -> RequestEntry:
    try:
        return RequestEntry(keys=json.loads(keys), told=bool(told), **row)
    except ValueError as error:
        raise sqlite3.DatabaseError(f"keys of '{row['name']}': {error}") from error


def _marks(values: Iterable[Any]) -> str:
    return ", ".join("?" for _ in values)
