"""
Store the notifications that came and the state of each request, across restarts.

A folder under the master's ``cachedir`` that only its user can enter: a file for each
notification (``bell``) that is not answered yet, one file with every request, and two locks.
:meth:`Ledger.open` holds the first for a moment, the one worker (see :mod:`.worker`) holds the
second while it works.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import secrets
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from saltext.kvmclone.errors import HostError
from saltext.kvmclone.reactor.policy import HOUR, REQUEST, Ask, Rule

#: The states of a request. Alive are those that may have a machine.
QUEUED, MAKING, MADE, FAILED, REFUSED, GONE = (
    "queued", "making", "made", "failed", "refused", "gone",
)  # fmt: skip
ALIVE = (MAKING, MADE)
OVER = (FAILED, REFUSED, GONE)

#: Most notifications that wait for an answer; anybody may forge one for each minion id.
MOST_BELLS = 1000

#: Most requests that are over and still known, so that they are not taken for new ones.
KEPT = 1000

#: Most machines of which it is kept that something was done to them once.
KEPT_ONCE = 5000


@dataclass(frozen=True)
class Entry:
    """
    One request of one minion.

    :param rule: The rule that it is counted under, see :attr:`.policy.Rule.key`.
    :param asked: When the master first heard of it, seconds since the epoch.
    :param begun: When its create began, seconds since the epoch; 0 for not yet.
    :param digest: Digest of the request that the create was made from.
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
    def ask(self) -> Ask:
        """Return what was requested."""
        return Ask(self.token, self.minion_id, REQUEST, self.name, self.profile, self.keys)

    def same_as(self, ask: Ask) -> bool:
        """Return True if the very same was requested, perhaps under another token."""
        return dataclasses.replace(self.ask, token="") == dataclasses.replace(ask, token="")


@dataclass(frozen=True)
class Ring:
    """
    A notification that waits for an answer, see :meth:`Ledger.ring`.

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


def new(ask: Ask, rule: str, state: str = QUEUED, reason: str = "") -> Entry:
    """
    Return the entry for a request that was just heard of.

    One that ends at once (refused, withdrawn) counts as told: its handler answers the minion
    itself.
    """
    return Entry(
        ask.token, ask.minion_id, ask.name, ask.profile, dict(ask.keys), rule, state, reason,
        time.time(), told=state != QUEUED,
    )  # fmt: skip


def told(entry: Entry) -> dict[str, Any]:
    """Return what an event says of a request."""
    said = {"who": entry.minion_id, "name": entry.name, "profile": entry.profile}
    return {**said, "state": entry.state, "reason": entry.reason, "uuid": entry.uuid}


def verdict(state: str, reason: str, entry: Entry | None = None) -> dict[str, Any]:
    """Return what the minion that made a request is told of it."""
    found = {"verdict": state, "reason": reason}
    if entry is not None and entry.uuid:
        found |= {"uuid": entry.uuid, "address": entry.address}
    return found


class Book:
    """Every entry, open for reading and writing."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries

    def heard(self, minion_id: str, token: str) -> Entry | None:
        """Return the entry of a request; None if it was not heard of before."""
        for entry in self.entries:
            if (entry.minion_id, entry.token) == (minion_id, token):
                return entry
        return None

    def current(self, name: str) -> Entry | None:
        """Return the entry that has a name now: waiting, being made or made; None for none."""
        for entry in self.entries:
            if entry.name == name and not entry.over:
                return entry
        return None

    def untold(self) -> list[Entry]:
        """Return the entries whose minion was not told how they ended; mark them as told."""
        found = [one for one in self.entries if not one.told and one.state not in (QUEUED, MAKING)]
        for entry in found:
            self.put(dataclasses.replace(entry, told=True))
        return found

    def put(self, entry: Entry) -> Entry:
        """Add an entry, or replace the one with its token."""
        for number, old in enumerate(self.entries):
            if (old.minion_id, old.token) == (entry.minion_id, entry.token):
                self.entries[number] = entry
                return entry
        self.entries.append(entry)
        return entry

    def some(self, *states: str) -> list[Entry]:
        """Return the entries in one of these states, oldest first."""
        return [entry for entry in self.entries if entry.state in states]

    def under(self, rule: Rule, rules: Iterable[Rule]) -> list[Entry]:
        """
        Return the entries that a rule's limits count: its own, and those it would allow today.

        The latter only where their own rule was changed since.
        """
        known = {one.key for one in rules}
        return [
            entry
            for entry in self.entries
            if entry.rule == rule.key
            or (entry.rule not in known and rule.fits(entry.minion_id, entry.profile, entry.name))
        ]

    def prune(self) -> None:
        """
        Forget the oldest entries that are over and count for no limit, of the minion with most.

        Forgetting another minion's entry for its sake would let that be taken for a new request.
        """
        recent = time.time() - HOUR
        old: dict[str, list[Entry]] = {}
        for entry in self.entries:
            if entry.over and entry.begun < recent:
                old.setdefault(entry.minion_id, []).append(entry)
        doomed = set()
        for _ in range(sum(map(len, old.values())) - KEPT):
            doomed.add(id(max(old.values(), key=len).pop(0)))
        self.entries = [entry for entry in self.entries if id(entry) not in doomed]


class Ledger:
    """
    The folder with the notifications and requests.

    :param opts: The master's configuration.
    :raises HostError: It belongs to another user.
    """

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self.folder = os.path.join(str(opts["cachedir"]), "kvm_clone", "reactor")
        self.bells = os.path.join(self.folder, "bells")
        os.makedirs(self.bells, mode=0o700, exist_ok=True)
        status = os.lstat(self.folder)
        if status.st_uid != os.geteuid():
            raise HostError(
                f"'{self.folder}' belongs to another user than this one.",
                "Run this as the user that the master runs as.",
            )
        os.chmod(self.folder, 0o700)

    # --- notifications ----------------------------------------------------------------

    def ring(self, bell: str, about: str, after: float = 0.0, tries: int = 0) -> bool:
        """
        Note a notification; noting it twice is the same as once.

        :param bell: Its kind, one of :data:`.policy.BELLS`.
        :param about: A checked minion id, or name of a clone.
        :param after: Not to be answered before this time, seconds since the epoch.
        :param tries: How often it was answered without success.
        :return: False where too many wait already.
        """
        path = self._bell(bell, about)
        with self.held():
            waiting = _ring(path)
            if waiting is None and len(os.listdir(self.bells)) >= MOST_BELLS:
                return False
            since = waiting.since if waiting is not None and not after else max(after, time.time())
            _put(path, Ring(bell, about, after, tries, since, secrets.token_hex(8)))
        return True

    def rung(self) -> list[Ring]:
        """Return the notifications that are not answered yet, longest waiting first."""
        written = (entry for entry in os.listdir(self.bells) if not entry.startswith("."))
        paths = (os.path.join(self.bells, entry) for entry in written)
        found = [ring for ring in map(_ring, paths) if ring is not None]
        return sorted(found, key=lambda ring: ring.since)

    def answered(self, ring: Ring) -> None:
        """Forget a notification; one that came again since goes to the end of the queue."""
        path = self._bell(ring.bell, ring.about)
        with self.held():
            now = _ring(path)
            if now is not None and now.stamp != ring.stamp:
                _put(path, dataclasses.replace(now, since=time.time()))
            elif os.path.exists(path):
                os.unlink(path)

    def _bell(self, bell: str, about: str) -> str:
        return os.path.join(self.bells, hashlib.sha256(f"{bell} {about}".encode()).hexdigest())

    # --- what was done once -----------------------------------------------------------

    def was_done(self, word: str, uuid: str) -> bool:
        """Return True if :meth:`done` was called with this word for that machine."""
        return os.path.exists(os.path.join(self.folder, word, uuid))

    def done(self, word: str, uuid: str) -> None:
        """Note that something, named by ``word``, was done to a machine; it is done only once."""
        folder = os.path.join(self.folder, word)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.close(os.open(os.path.join(folder, uuid), os.O_CREAT, 0o600))
        noted = sorted(os.scandir(folder), key=lambda entry: entry.stat().st_mtime)
        for entry in noted[: max(0, len(noted) - KEPT_ONCE)]:
            os.unlink(entry.path)

    # --- requests ---------------------------------------------------------------------

    @contextmanager
    def open(self) -> Iterator[Book]:
        """
        Open the request store; changes are written when the block ends without an error.

        :raises HostError: It cannot be read. Limits count its entries, so without it nothing is
            allowed.
        """
        with self.held():
            path = os.path.join(self.folder, "requests.json")
            try:
                with open(path, encoding="utf-8") as source:
                    book = Book([_entry(item) for item in json.load(source)])
            except FileNotFoundError:
                book = Book([])
            except (ValueError, TypeError, AttributeError) as error:
                raise HostError(
                    f"The book of requests '{path}' is damaged ({error}), so no event is obeyed.",
                    "Look at the machines that there are: salt-run kvmclone.list   Then begin a "
                    f"new book: rm {shlex.quote(path)}",
                ) from error
            before = list(book.entries)
            yield book
            if book.entries != before:
                book.prune()
                _write(path, json.dumps([dataclasses.asdict(entry) for entry in book.entries]))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock of the folder; for a moment only."""
        lock = _lock(os.path.join(self.folder, "lock"), wait=True)
        try:
            yield
        finally:
            if lock is not None:
                _unlock(lock)

    # --- the one worker ---------------------------------------------------------------

    def hire(self) -> int | None:
        """
        Return the worker's lock, an open file descriptor; None where a worker runs already.

        It may be passed on to another process.
        """
        with self.held():  # so that `is_worked_at` is not taken for a worker
            return _lock(os.path.join(self.folder, "worker"), wait=False)

    def is_worked_at(self) -> bool:
        """Return True if there is a worker now."""
        with self.held():
            lock = _lock(os.path.join(self.folder, "worker"), wait=False)
            if lock is not None:
                _unlock(lock)
            return lock is None

    def is_lock(self, descriptor: int) -> bool:
        """Return True if an inherited file descriptor is the worker's lock."""
        try:
            mine, there = os.fstat(descriptor), os.stat(os.path.join(self.folder, "worker"))
        except OSError:
            return False
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _entry(item: Mapping[str, Any]) -> Entry:
    known = Entry.__dataclass_fields__
    entry = Entry(**{key: value for key, value in item.items() if key in known})
    texts = (entry.token, entry.minion_id, entry.name, entry.rule, entry.state, entry.uuid)
    if not all(isinstance(text, str) for text in texts) or not isinstance(entry.keys, dict):
        raise TypeError("an entry of another form")
    float(entry.asked), float(entry.begun)
    return entry


def _ring(path: str) -> Ring | None:
    """Return the notification in a file; None where the file is gone, or has another form."""
    try:
        with open(path, encoding="utf-8") as source:
            ring = Ring(**json.load(source))
        return dataclasses.replace(ring, after=float(ring.after), since=float(ring.since))
    except (OSError, ValueError, TypeError):
        return None


def _put(path: str, ring: Ring) -> None:
    _write(path, json.dumps(dataclasses.asdict(ring)))


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


def _unlock(descriptor: int) -> None:
    """Release a lock, also if a process that was forked since has its file open."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _write(path: str, text: str) -> None:
    """
    Write a file whole or not at all, even if the machine goes down.

    Called under the store's lock, so that what a killed writer left is overwritten by the next.
    """
    folder = os.path.dirname(path)
    draft = os.path.join(folder, ".draft")
    with open(draft, "w", encoding="utf-8", opener=_private) as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
    os.replace(draft, path)
    entered = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(entered)
    finally:
        os.close(entered)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
