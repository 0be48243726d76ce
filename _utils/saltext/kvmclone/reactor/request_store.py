"""
Store the notifications that came and the state of each request, across restarts.

An SQLite database in a folder under the master's ``cachedir`` that only its user can enter. The
one worker (see :mod:`.worker`) holds a lock while it works, on an open file that it can inherit. To
look into it: ``salt-run kvmclone.asked``, or ``sqlite3 requests.db .dump``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import secrets
import shlex
import sqlite3
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from saltext.kvmclone.errors import HostError
from saltext.kvmclone.reactor import json_store
from saltext.kvmclone.reactor.request_entry import MADE, STATES, Notification, Requests, damaged

#: Most notifications that wait for an answer; anybody may forge one for each minion id.
MAX_NOTIFICATIONS = 1000

#: Seconds that a process waits for the others that read or write the store.
BUSY_TIMEOUT_S = 60.0

#: What this version writes, as the database's ``user_version``.
SCHEMA_VERSION = 1

_SCHEMA = f"""
BEGIN;
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    token TEXT NOT NULL, minion_id TEXT NOT NULL, name TEXT NOT NULL, profile TEXT NOT NULL,
    keys TEXT NOT NULL CHECK (keys LIKE '{{%}}'),
    rule TEXT NOT NULL, state TEXT NOT NULL CHECK (state IN {STATES}), reason TEXT NOT NULL,
    asked REAL NOT NULL CHECK (typeof(asked) = 'real'),
    begun REAL NOT NULL CHECK (typeof(begun) = 'real'),
    digest TEXT NOT NULL, uuid TEXT NOT NULL, address TEXT NOT NULL,
    told INTEGER NOT NULL CHECK (told IN (0, 1)),
    UNIQUE (minion_id, token)
);
CREATE TABLE notifications (
    bell TEXT NOT NULL, about TEXT NOT NULL,
    after REAL NOT NULL CHECK (typeof(after) = 'real'),
    tries INTEGER NOT NULL CHECK (typeof(tries) = 'integer'),
    since REAL NOT NULL CHECK (typeof(since) = 'real'),
    stamp TEXT NOT NULL,
    PRIMARY KEY (bell, about)
);
CREATE TABLE highstates (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE, job TEXT NOT NULL DEFAULT '', done INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE switches (name TEXT PRIMARY KEY, is_on INTEGER NOT NULL);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


@contextmanager
def _connected(path: str) -> Iterator[sqlite3.Connection]:
    uri = f"file:{quote(path)}?mode=rw"
    connection = sqlite3.connect(uri, BUSY_TIMEOUT_S, isolation_level=None, uri=True)
    with contextlib.closing(connection):
        connection.row_factory = sqlite3.Row
        # What is committed is on the disk, the folder's entries as well. The journal is the default
        # one: a write-ahead log needs shared memory, which a network file system does not have.
        connection.execute("PRAGMA synchronous = EXTRA")
        yield connection


class RequestStore:
    """
    The folder with the notifications and requests.

    :param opts: The master's configuration.
    :raises HostError: It belongs to another user, or a store of an older version is damaged.
    """

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self.folder = os.path.join(str(opts["cachedir"]), "kvm_clone", "reactor")
        self.path = os.path.join(self.folder, "requests.db")
        self._worker_path = os.path.join(self.folder, "worker")
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        status = os.lstat(self.folder)
        if status.st_uid != os.geteuid():
            raise HostError(
                f"'{self.folder}' belongs to another user than this one.",
                "Run this as the user that the master runs as.",
            )
        os.chmod(self.folder, 0o700)
        if json_store.is_in(self.folder):
            with self._held("lock"):
                _unlock(self._read_over())

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """
        Open the database for this process alone; commit when the block ends without an error.

        Other processes wait meanwhile, so a block must be short, and must not open another.

        :raises HostError: It is damaged, or of a later version, or cannot be read or written.
        """
        try:
            if not os.path.exists(self.path):
                self._create()
            # A connection for each transaction: none is shared by threads, or with a fork.
            with _connected(self.path) as connection:
                connection.execute("BEGIN IMMEDIATE")
                self._require_version(connection)
                yield connection
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _create(self) -> None:
        """Make the database as a whole, so that an empty file is known to be damaged."""
        with self._held("requests.db.lock"):
            if os.path.exists(self.path):
                return
            draft = f"{self.path}.draft"
            # A journal that was left would be played into the new database.
            for left in (draft, f"{draft}-journal", f"{self.path}-journal"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(left)
            os.close(os.open(draft, os.O_CREAT | os.O_EXCL, 0o600))
            with _connected(draft) as connection:
                connection.executescript(_SCHEMA)
            os.replace(draft, self.path)

    def _require_version(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise HostError(
                f"The request store '{self.path}' is of a later version of kvm_clone (format "
                f"{version}; this version reads {SCHEMA_VERSION}), so no event is obeyed.",
                "Bring that version here again: salt-run saltutil.sync_all   Then restart the "
                "master.",
            )
        if version < SCHEMA_VERSION:
            raise sqlite3.DatabaseError("it is empty, or not ours")

    def _failure(self, error: sqlite3.Error) -> HostError:
        """Return the error to raise for one of SQLite's."""
        if type(error) is sqlite3.DatabaseError or "no such" in str(error):
            return damaged(self.path, error)
        path, folder = shlex.quote(self.path), shlex.quote(self.folder)
        look = f"fuser -v {path}" if "locked" in str(error) else f"df {folder}"
        return HostError(
            f"The request store '{self.path}' cannot be used: {error}.", f"See why: {look}"
        )

    # --- notifications ----------------------------------------------------------------

    def note(self, bell: str, about: str, after: float = 0.0, tries: int = 0) -> bool:
        """
        Note a notification; noting it twice is the same as once.

        :param bell: Its kind, one of :data:`.policy.BELLS`.
        :param about: A checked minion id, or name of a clone.
        :param after: Not to be answered before this time, seconds since the epoch.
        :param tries: How often it was answered without success.
        :return: False where too many wait already.
        """
        with self.transaction() as connection:
            waiting = connection.execute(
                "SELECT since FROM notifications WHERE bell = ? AND about = ?", (bell, about)
            ).fetchone()
            (number,) = connection.execute("SELECT count(*) FROM notifications").fetchone()
            if waiting is None and number >= MAX_NOTIFICATIONS:
                return False
            since = waiting["since"] if waiting and not after else max(after, time.time())
            connection.execute(
                "INSERT OR REPLACE INTO notifications VALUES (?, ?, ?, ?, ?, ?)",
                (bell, about, after, tries, since, secrets.token_hex(8)),
            )
        return True

    def notifications(self) -> list[Notification]:
        """Return the notifications that are not answered yet, longest waiting first."""
        with self.transaction() as connection:
            rows = connection.execute("SELECT * FROM notifications ORDER BY since").fetchall()
        return [Notification(**dict(row)) for row in rows]

    def answered(self, notification: Notification) -> None:
        """Forget a notification; one that came again since goes to the end of the queue."""
        key = (notification.bell, notification.about)
        with self.transaction() as connection:
            connection.execute(
                "DELETE FROM notifications WHERE bell = ? AND about = ? AND stamp = ?",
                (*key, notification.stamp),
            )
            connection.execute(
                "UPDATE notifications SET since = ? WHERE bell = ? AND about = ?",
                (time.time(), *key),
            )

    # --- requests ---------------------------------------------------------------------

    @contextmanager
    def requests(self) -> Iterator[Requests]:
        """
        Open the requests; changes are written when the block ends without an error.

        :raises HostError: See :meth:`transaction`. Limits count the requests, so without them
            nothing is allowed.
        """
        with self.transaction() as connection:
            requests = Requests(connection)
            yield requests
            if connection.total_changes:
                requests.prune()

    def has_made(self, names: Container[str]) -> bool:
        """Return True if a machine of one of these names was made for a request, and not ended."""
        with self.requests() as requests:
            return any(entry.name in names for entry in requests.in_state(MADE))

    def asked(self) -> dict[str, Any]:
        """
        Return every known request, the notifications that wait, and whether a worker runs.

        :raises HostError: It cannot be read, or a worker of an older version uses it.
        """
        if json_store.is_in(self.folder):
            raise HostError(
                "A worker that was started before the update still works with the requests in "
                f"'{json_store.path(self.folder)}'; they are read over when it ends.",
                "Wait for it; what it has made so far: salt-run kvmclone.list",
            )
        with self.requests() as found:
            requests = [dataclasses.asdict(entry) for entry in found.all()]
        waiting = [
            {"bell": one.bell, "who": one.about, "tries": one.tries} for one in self.notifications()
        ]
        working = self.has_worker()
        return {"requests": requests, "bells": waiting, "working": working, "retcode": 0}

    # --- the one worker ---------------------------------------------------------------

    def lock_worker(self, inherited: int | None = None) -> int | None:
        """
        Return the worker's lock, an open file descriptor; None where a worker runs already.

        It may be passed on to another process. What an older version stored is read over first;
        a worker of that version has the same lock.

        :param inherited: A descriptor that may be the lock, which is returned then.
        :raises HostError: The store of the older version is damaged.
        """
        with self._held("lock"):  # so that `has_worker` is not taken for a worker
            return self._read_over(inherited)

    def _read_over(self, inherited: int | None = None) -> int | None:
        """Take the worker's lock, then take over what an older version stored, if anything."""
        if inherited is not None and self.is_worker_lock(inherited):
            lock: int | None = inherited
        else:
            lock = _lock(self._worker_path, wait=False)
        if lock is not None and json_store.is_in(self.folder):
            try:
                with self.requests() as requests:
                    json_store.copy(self.folder, requests)
                json_store.put_away(self.folder)
            except BaseException:
                _unlock(lock)
                raise
        return lock

    def has_worker(self) -> bool:
        """Return True if there is a worker now."""
        with self._held("lock"):
            lock = _lock(self._worker_path, wait=False)
            _unlock(lock)
            return lock is None

    def is_worker_lock(self, descriptor: int) -> bool:
        """Return True if an inherited file descriptor is the worker's lock."""
        try:
            mine, there = os.fstat(descriptor), os.stat(self._worker_path)
        except OSError:
            return False
        return os.path.samestat(mine, there)

    @contextmanager
    def _held(self, name: str) -> Iterator[None]:
        """Hold a lock of the folder; for a moment only."""
        lock = _lock(os.path.join(self.folder, name), wait=True)
        try:
            yield
        finally:
            _unlock(lock)


def _lock(path: str, wait: bool) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _unlock(descriptor: int | None) -> None:
    """Release a lock, if there is one, also if a process that was forked since has it open."""
    if descriptor is None:
        return
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
