"""
Keep track of the clones that became ``ready`` while ``finish`` was on, until their highstate.

Each such clone gets one highstate. The request store also keeps what the policy last said of
``finish``, for when that cannot be read for a while. No clock is involved: a clone is noted by the
process that makes it ``ready``, and one that is not noted gets nothing.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Mapping
from typing import Any

import salt.utils.jid

from saltext.kvmclone.reactor.request_store import RequestStore

log = logging.getLogger(__name__)

_UUID = re.compile(r"[0-9a-fA-F-]{36}")

#: Most clones that are noted as waiting, and as done; of more the oldest are forgotten.
MAX_NOTED = 5000


class Highstates:
    """
    The clones that are still to get their highstate.

    :param store: The request store, which keeps them.
    """

    def __init__(self, store: RequestStore) -> None:
        self.store = store

    @property
    def is_on(self) -> bool:
        """Return True if ``finish`` was on when the policy was last read."""
        with self.store.transaction() as connection:
            return bool(_is_on(connection))

    def switch(self, on: bool) -> None:
        """Note what the policy says of ``finish``; off forgets every clone that still waits."""
        with self.store.transaction() as connection:
            if _is_on(connection) == on:
                return
            connection.execute("INSERT OR REPLACE INTO switches VALUES ('finish', ?)", (on,))
            if not on:
                connection.execute("DELETE FROM highstates WHERE NOT done")

    def expect(self, uuid: str) -> bool:
        """
        Note that a clone becomes ``ready`` now.

        :param uuid: Its uuid, as its host says.
        :return: False where ``finish`` is off, or the clone had its highstate.
        """
        if not isinstance(uuid, str) or not _UUID.fullmatch(uuid):
            log.warning("kvm_clone reactor: %.80r is not a uuid; no highstate for that", uuid)
            return False
        with self.store.transaction() as connection:
            if not _is_on(connection):
                return False
            connection.execute("INSERT OR IGNORE INTO highstates (uuid) VALUES (?)", (uuid,))
            _prune(connection)
            return _job(connection, uuid) is not None

    def job_for(self, uuid: str, opts: Mapping[str, Any]) -> str:
        """
        Return the number of the job that is to bring a clone its highstate.

        It is written down before the job is published, and stays the same: a minion that is sent
        one number twice, since the worker was killed in between, runs it once.

        :return: Empty where the clone is to get none.
        """
        with self.store.transaction() as connection:
            job = _job(connection, uuid)
            if job == "":
                job = str(salt.utils.jid.gen_jid(opts))
                connection.execute("UPDATE highstates SET job = ? WHERE uuid = ?", (job, uuid))
        return job or ""

    def done(self, uuid: str) -> None:
        """Note that a clone got its highstate; it does not get another."""
        with self.store.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO highstates (uuid, done) VALUES (?, 1)", (uuid,)
            )
            _prune(connection)


def _is_on(connection: sqlite3.Connection) -> bool | None:
    """Return what the policy last said of ``finish``; None where it was never read."""
    found = connection.execute("SELECT is_on FROM switches WHERE name = 'finish'").fetchone()
    return None if found is None else bool(found["is_on"])


def _job(connection: sqlite3.Connection, uuid: str) -> str | None:
    """Return the job of a clone that waits, empty where it has none yet; None for another clone."""
    found = connection.execute(
        "SELECT job FROM highstates WHERE uuid = ? AND NOT done", (uuid,)
    ).fetchone()
    return found and str(found["job"])


def _prune(connection: sqlite3.Connection) -> None:
    for done in (0, 1):
        connection.execute(
            "DELETE FROM highstates WHERE id IN "
            "(SELECT id FROM highstates WHERE done = ? ORDER BY id DESC LIMIT -1 OFFSET ?)",
            (done, MAX_NOTED),
        )
