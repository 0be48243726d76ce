"""
Keep what this minion requests of the master's reactor, where only root can write.

An event only says that there is something, so the request itself waits here until the master
fetches it. Each request is one file; the answers are kept in it for people. Neither Salt nor
libvirt is needed. The checks here only help the user: the master decides.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import shlex
import stat
import time
from collections.abc import Iterator, Mapping
from typing import Any

from saltext.kvmclone.config import validate
from saltext.kvmclone.errors import ConfigError, HostError
from saltext.kvmclone.model.names import check
from saltext.kvmclone.reactor.policy import ASK_VERSION, OF_A_CLAIM, OVERRIDABLE
from saltext.kvmclone.reactor.request_entry import MAKING, QUEUED
from saltext.kvmclone.system import files

log = logging.getLogger(__name__)

#: How many requests may wait for the master at the same time.
MAX_PENDING = 100

#: How many answered requests are kept for people.
MAX_ANSWERED = 50

#: Seconds that a request waits for the master. An old one must not surprise anybody when the master
#: gets a reactor at last.
PENDING_TIMEOUT_S = 24 * 3600.0

#: Longest request, characters.
MAX_CHARACTERS = 16 * 1024


class RequestSpool:
    """
    The spool folder of one minion.

    :param opts: The minion's configuration.
    """

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self.folder = os.path.join(str(opts["cachedir"]), "kvm_clone", "asking")

    def request(self, name: Any, profile: Any, keys: Mapping[str, Any]) -> str:
        """
        Put a request for a machine where the master finds it.

        :param name: Name of the clone, unchecked; None for any spare of the profile.
        :param keys: Profile keys to override.
        :return: Its token.
        :raises KvmCloneError: The name cannot be one, or what :meth:`ask` raises.
        """
        if not profile:
            only = "" if name is None else f" '{name}' alone is the name of a machine."
            raise ConfigError(
                f"No profile is named.{only}",
                f"To claim a spare: salt-call kvm_clone.ask profile={name or 'PROFILE'}   To "
                "choose the name: salt-call kvm_clone.ask NAME PROFILE",
            )
        return self.ask("request", "" if name is None else check(name), str(profile), keys)

    def ask(self, bell: str, name: str, profile: str = "", keys: Mapping[str, Any] = {}) -> str:
        """
        Put a request where the master finds it.

        :param bell: ``request`` or ``release``.
        :param name: Name of the clone; empty to request any spare of the profile.
        :param profile: Name of the profile; only for ``request``.
        :param keys: Profile keys to override; only for ``request``.
        :return: Its token.
        :raises SecretInArgument: A secret was typed, which ``salt-call`` has told the master.
        :raises ConfigError: A key that no policy can allow; too many wait; it is too long.
        """
        validate.refuse_secrets(keys)
        if strange := sorted(set(keys) - set(OVERRIDABLE)):
            raise ConfigError(
                f"An event cannot set {', '.join(strange)}; only {', '.join(OVERRIDABLE)}.",
                "Write it into the profile, on the master.",
            )
        if not name and (strange := sorted(set(keys) - set(OF_A_CLAIM))):
            raise ConfigError(
                f"A spare is as its profile says, so {', '.join(strange)} cannot be set.",
                f"Ask for a machine by name: salt-call kvm_clone.ask NAME {profile} "
                + " ".join(f"{key}={keys[key]}" for key in strange),
            )
        if len(self.pending()) >= MAX_PENDING:
            raise ConfigError(
                f"{MAX_PENDING} requests of this minion wait for the master already.",
                "See them: salt-call kvm_clone.asked   Does the master have a reactor for them?",
            )
        token = secrets.token_hex(16)
        item = {
            "version": ASK_VERSION,
            "token": token,
            "bell": bell,
            "name": name,
            "at": time.time(),
        }
        if bell == "request":
            item |= {"profile": profile, "keys": dict(keys)}
        if len(json.dumps(item, default=str)) > MAX_CHARACTERS:
            raise ConfigError("The request is too long.", f"At most {MAX_CHARACTERS} characters.")
        self._write(item)
        return token

    def pending(self) -> list[dict[str, Any]]:
        """Return the requests that wait, oldest first; drop those older than a day."""
        known, later = self._read()
        for path in later:
            log.warning("'%s' is of a later version of kvm_clone, and left alone", path)
        waiting = [item for item in known if not _is_settled(item)]
        for item in waiting:
            if item["at"] < time.time() - PENDING_TIMEOUT_S:
                self._drop(item)
        return [item for item in waiting if item["at"] >= time.time() - PENDING_TIMEOUT_S]

    def told(self, answers: Mapping[str, Any]) -> list[str]:
        """
        Note what the master answered.

        Each answer is a job, and a minion carries out several at once: that a request waits may be
        heard after how it ended, and is then over.

        :param answers: By token: ``{"verdict", "reason", …}``.
        :return: The tokens that are known here.
        """
        with self._locked():
            known = {str(item["token"]): item for item in self._read()[0]}
            heard = [token for token in answers if token in known]
            for token in heard:
                if not _is_over(answers[token], known[token]):
                    answered = {"answer": answers[token], "told": time.time()}
                    self._write({**known[token], **answered})
            settled = [item for item in self._read()[0] if _is_settled(item)]
            for item in settled[: max(0, len(settled) - MAX_ANSWERED)]:
                self._drop(item)
        return heard

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other jobs of this minion from noting answers during the block."""
        descriptor = os.open(self._checked(), os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _drop(self, item: Mapping[str, Any]) -> None:
        with contextlib.suppress(FileNotFoundError):  # another job of this minion was faster
            os.unlink(self._path(item["token"]))

    def _path(self, token: str) -> str:
        return os.path.join(self._checked(), f"{token}.json")

    def _checked(self) -> str:
        """
        Return the path of the folder, made if necessary.

        :raises HostError: Others than this process's user could write it.
        """
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        status = os.lstat(self.folder)
        mine = status.st_uid == os.geteuid() and not status.st_mode & 0o022
        if not stat.S_ISDIR(status.st_mode) or not mine:
            raise HostError(
                f"'{self.folder}' could be written by others, so nothing in it counts.",
                f"Remove it: rm -r {shlex.quote(self.folder)}",
            )
        return self.folder

    def _write(self, item: Mapping[str, Any]) -> None:
        try:
            text = json.dumps(item)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"That cannot be written down: {error}.", "Use plain values."
            ) from error
        files.write(self._path(str(item["token"])), text)

    def all(self) -> list[dict[str, Any]]:
        """
        Return every request that is known here, with its answer if any, oldest first.

        :raises HostError: One is of a later version.
        """
        known, later = self._read()
        if later:
            raise HostError(
                f"Requests of a later version of kvm_clone are in '{self.folder}': {len(later)}.",
                f"Bring that version here again, or forget them: {shlex.join(['rm', *later])}",
            )
        return [{key: item[key] for key in item if key != "version"} for item in known]

    def _read(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the requests, oldest first, and the paths of those of a later version."""
        found, later = [], []
        folder = self._checked()
        for entry in os.listdir(folder):
            if not entry.endswith(".json"):
                continue
            path = os.path.join(folder, entry)
            try:
                with open(path, encoding="utf-8") as source:
                    item = json.load(source)
                if int(item.get("version", 1)) > ASK_VERSION:
                    later.append(path)
                elif f"{item['token']}.json" == entry:
                    found.append({**item, "at": float(item["at"])})
            except (OSError, ValueError, TypeError, KeyError, AttributeError):
                continue  # half-written, or not our file
        return sorted(found, key=lambda item: item["at"]), sorted(later)


def _is_settled(item: Mapping[str, Any]) -> bool:
    return "answer" in item


def _is_over(answer: Any, item: Mapping[str, Any]) -> bool:
    """Return whether an answer says that a request goes on which has ended already."""
    before = item.get("answer")
    going_on = isinstance(answer, Mapping) and answer.get("verdict") in (QUEUED, MAKING)
    ended = isinstance(before, Mapping) and before.get("verdict") not in (QUEUED, MAKING)
    return going_on and ended
