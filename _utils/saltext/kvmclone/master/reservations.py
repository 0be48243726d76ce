"""
Note which host a clone is about to be made on, so that no two creates count on the same room.

An SQLite database in a folder under the master's ``cachedir`` that only its user can enter. A
reservation holds until every create that uses it ended; that of a process that was killed ends by
itself, or with ``gc``. To look into it: ``sqlite3 placement.db .dump``.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from saltext.kvmclone.errors import (
    CreateInProgress,
    HostError,
    HostUnreachable,
    KvmCloneError,
)
from saltext.kvmclone.master import at_once
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.leftovers import Leftover
from saltext.kvmclone.model.placement import Need, Reserved
from saltext.kvmclone.model.plain import from_plain, to_plain
from saltext.kvmclone.model.record import DEAD, Owner
from saltext.kvmclone.system import processes

#: Seconds after which a reservation ends by itself: its process was killed.
LIFETIME_S = 900.0

#: Instead of a time to begin by: the host has begun.
BEGUN = math.inf

#: Seconds that a process waits for the others that read or write the store.
BUSY_TIMEOUT_S = 60.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS reservations_3 (
    name TEXT PRIMARY KEY, token TEXT NOT NULL, host TEXT NOT NULL,
    need TEXT NOT NULL, tags TEXT NOT NULL, expires REAL NOT NULL, not_after REAL NOT NULL,
    users TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS homes_1 (host TEXT, url TEXT, PRIMARY KEY (host, url));
CREATE TABLE IF NOT EXISTS turns_1 (profile TEXT PRIMARY KEY, host TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Row:
    """
    One reservation.

    :param token: A random word that only the creates which use it know.
    :param not_after: The host begins no later, seconds since the epoch; 0: it was not asked yet;
        :data:`BEGUN`.
    :param users: The processes whose creates use it, one that has several as often.
    """

    reserved: Reserved
    token: str
    not_after: float = 0.0
    users: tuple[Owner, ...] = field(default=(), compare=False)

    @property
    def may_begin(self) -> bool:
        """Return whether the host may have begun, or may do so yet."""
        return not self.not_after or time.time() <= self.not_after

    @property
    def is_left(self) -> bool:
        """Return whether every create that uses it died."""
        return not self._alive()

    @property
    def is_awaited(self) -> bool:
        """Return whether the host was asked, and has time yet to begin."""
        return 0 < self.not_after < BEGUN and time.time() <= self.not_after

    def without(self, user: Owner) -> tuple[Owner, ...]:
        """Return the users that are left once one of them has ended: none that died, as a rule."""
        users = list(self.users)
        with contextlib.suppress(ValueError):
            users.remove(user)
        rest = replace(self, users=tuple(users))
        # A host that a dead one asked may begin yet.
        return rest.users if self.is_awaited else rest._alive()

    def _alive(self) -> tuple[Owner, ...]:
        return tuple(one for one in self.users if processes.owner_state(one) != DEAD)


#: Chooses what to reserve, given all reservations and the host that the profile took last.
Chooser = Callable[[Sequence[Row], str], Reserved]


class Reservations:
    """
    The reservations of all creates of this master.

    :param opts: The master's configuration.
    """

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self.folder = os.path.join(str(opts["cachedir"]), "kvm_clone", "placement")
        self.path = os.path.join(self.folder, "placement.db")

    def all(self) -> list[Row]:
        """Return every reservation that has not ended."""
        with self._transaction() as connection:
            return self._rows(connection)

    def last(self, profile: str) -> str:
        """Return the host that was chosen last for a profile; empty for none."""
        with self._transaction() as connection:
            return self._last(connection, profile)

    def homes(self) -> list[tuple[str, str]]:
        """
        Return every host that a clone was ever placed on, and the url of its daemon there.

        A target expression may mean others by now.
        """
        if not os.path.exists(self.path):
            return []
        with self._transaction() as connection:
            found = connection.execute("SELECT host, url FROM homes_1 ORDER BY host, url")
            return [(str(host), str(url)) for host, url in found]

    def reserve(self, name: str, profile: str, url: str, choose: Chooser) -> Row:
        """
        Have a host chosen for a clone, and note it before anybody else chooses.

        Where another create of that name has reserved that host, both use the same reservation.

        :param url: The url of the daemon, as the hosts see it.
        :param choose: Returns the host and what the clone takes of it. It is given the reservation
            of that name as well, where another create of it is under way.
        :raises KvmCloneError: What ``choose`` raises; nothing is noted.
        """
        with self._transaction() as connection:
            rows = self._rows(connection)
            wanted = choose(rows, self._last(connection, profile))
            held = _of(rows, name)
            if held is not None and held.reserved.host == wanted.host:
                self._set_users(connection, held, (*held.users, _user()))
                connection.execute(
                    "UPDATE reservations_3 SET expires = max(expires, ?) WHERE token = ?",
                    (time.time() + LIFETIME_S, held.token),
                )
                return held
            row = Row(wanted, secrets.token_hex(8), users=(_user(),))
            self._insert(connection, row)
            connection.execute("INSERT OR IGNORE INTO homes_1 VALUES (?, ?)", (wanted.host, url))
            connection.execute(
                "INSERT OR REPLACE INTO turns_1 VALUES (?, ?)", (profile, wanted.host)
            )
            return row

    def hold(self, row: Row, not_after: float = 0.0) -> None:
        """
        Keep a reservation for as long again; one that ended by itself is made anew.

        :param not_after: The host is asked now and begins no later, seconds since the epoch;
            :data:`BEGUN`; 0 where the create still waits for its turn.
        :raises CreateInProgress: It ended, and another create of that name has reserved since.
        """
        name = row.reserved.name
        with self._transaction() as connection:
            held = _of(self._rows(connection), name)
            if held is None:
                self._insert(connection, replace(row, users=(_user(),)))
            elif held.token != row.token:
                raise in_progress(held)
            expires = time.time() + LIFETIME_S
            expires = expires if not_after == BEGUN else max(expires, not_after)
            connection.execute(
                "UPDATE reservations_3 SET not_after = max(not_after, ?), "
                "expires = max(expires, ?) WHERE token = ?",
                (not_after, expires, row.token),
            )

    @contextmanager
    def kept(self, row: Row) -> Iterator[None]:
        """Keep a reservation as long as the block lasts, however long that is."""

        def hold() -> None:
            with contextlib.suppress(KvmCloneError):  # the create itself says so
                self.hold(row)

        with at_once.meanwhile(hold, LIFETIME_S / 3):
            yield

    def free(self, row: Row) -> None:
        """End the use of a reservation; it stays while another create uses it."""
        with self._transaction() as connection:
            held = _of(self._rows(connection), row.reserved.name)
            if held is not None and held.token == row.token:
                self._set_users(connection, held, held.without(_user()))

    def left(self, name: str, apply: bool) -> list[Leftover]:
        """
        Return the reservations whose creates all died; only where every host has answered since.

        :param name: Only that of this clone; empty for all.
        :param apply: End them, except where a host may begin yet.
        """
        if not os.path.exists(self.path):
            return []
        found = []
        with self._transaction() as connection:
            for row in self._rows(connection):
                if not row.is_left or name not in ("", row.reserved.name):
                    continue
                if apply and not row.is_awaited:
                    self._set_users(connection, row, ())
                found.append(_leftover(row, apply))
        return found

    # --- the database -----------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """
        Open the database for this process alone; commit when the block ends without an error.

        :raises HostError: It is another user's, or cannot be used.
        """
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            if os.lstat(self.folder).st_uid != os.geteuid():
                raise HostError(
                    f"'{self.folder}' belongs to another user than this one.",
                    "Run this as the user that the master runs as.",
                )
            # A connection for each transaction: none is shared by threads, or with a fork.
            connection = sqlite3.connect(self.path, BUSY_TIMEOUT_S, isolation_level=None)
            with contextlib.closing(connection):
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute("BEGIN IMMEDIATE")
                for statement in filter(None, map(str.strip, _SCHEMA.split(";"))):
                    connection.execute(statement)
                connection.execute("DELETE FROM reservations_3 WHERE expires < ?", (time.time(),))
                yield connection
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise HostError(
                f"The reservations of hosts in '{self.path}' cannot be used: {error}.",
                f"Is there room? df {self.folder}   They are short-lived: while nothing is being "
                "made, the file may be removed.",
            ) from error

    @staticmethod
    def _set_users(connection: sqlite3.Connection, row: Row, users: tuple[Owner, ...]) -> None:
        """Write down who uses a reservation; with nobody, it ends."""
        if users:
            values = (json.dumps(to_plain(users)), row.token)
            connection.execute("UPDATE reservations_3 SET users = ? WHERE token = ?", values)
        else:
            connection.execute("DELETE FROM reservations_3 WHERE token = ?", (row.token,))

    @staticmethod
    def _insert(connection: sqlite3.Connection, row: Row) -> None:
        wanted = row.reserved
        values = (
            wanted.name, row.token, wanted.host,
            json.dumps(to_plain(wanted.need)), json.dumps(wanted.tags),
            time.time() + LIFETIME_S, 0.0, json.dumps(to_plain(row.users)),
        )  # fmt: skip
        connection.execute(
            "INSERT OR REPLACE INTO reservations_3 VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values
        )

    @staticmethod
    def _rows(connection: sqlite3.Connection) -> list[Row]:
        found = []
        for name, token, host, need, tags, not_after, users in connection.execute(
            "SELECT name, token, host, need, tags, not_after, users FROM reservations_3 "
            "ORDER BY name"
        ):
            try:
                wanted = from_plain(Need, json.loads(need))
                marked = from_plain(tuple[str, ...], json.loads(tags))
                owners = from_plain(tuple[Owner, ...], json.loads(users))
            except ValueError as error:
                raise sqlite3.DatabaseError(f"the reservation of {name!r} is damaged") from error
            found.append(Row(Reserved(name, host, wanted, marked), token, not_after, owners))
        return found

    @staticmethod
    def _last(connection: sqlite3.Connection, profile: str) -> str:
        query = "SELECT host FROM turns_1 WHERE profile = ?"
        row = connection.execute(query, (profile,)).fetchone()
        return str(row[0]) if row else ""


def in_progress(held: Row) -> CreateInProgress:
    """Return the error for a name that another create has reserved."""
    name, host = held.reserved.name, held.reserved.host
    return CreateInProgress(
        f"Another create of '{name}' is under way, on '{host}'.",
        f"When it is over: {Commands().clone('show', name)}   "
        f"If it was killed: {Commands().clone('gc', name, 'apply=True')}",
    )


def unanswered(held: Row) -> HostUnreachable:
    """Return the error for a name that another create has reserved, on a host that is silent."""
    name, host = held.reserved.name, held.reserved.host
    hint = in_progress(held).hint
    if 0 < held.not_after < BEGUN:
        hint = f"Repeat this in {held.not_after - time.time():.0f} seconds."
    return HostUnreachable(f"'{name}' may be under way on '{host}', which does not answer.", hint)


def _leftover(row: Row, removed: bool) -> Leftover:
    """Return the row of a reservation that nobody uses any more."""
    name, host = row.reserved.name, row.reserved.host
    ended = processes.owner_end(row.users[0])
    reason = (
        f"the name and room for it were reserved on '{host}' by a create when {ended}; that ends "
        f"by itself within {LIFETIME_S / 60:.0f} minutes"
    )
    found = Leftover(name, "reservation", host, reason, removed)
    if not row.is_awaited:
        return found
    seconds = row.not_after - time.time()
    return found.stays(f"{reason}; that host was asked, and may begin within {seconds:.0f} seconds")


def _user() -> Owner:
    """Return this process as one that uses a reservation."""
    # The token of an owner tells pieces of work apart; a reservation has one of its own.
    return replace(processes.this_process(), token="")


def _of(rows: Sequence[Row], name: str) -> Row | None:
    """Return the reservation of a name."""
    return next((row for row in rows if row.reserved.name == name), None)
