"""
Note what one round of refilling the stock leaves for the next: when it was, and what failed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saltext.kvmclone.errors import HostError
from saltext.kvmclone.model.plain import from_plain, to_plain
from saltext.kvmclone.system import files

#: Seconds after the first failure in which no spare of its profile is made; it doubles each time.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 3600.0


@dataclass(frozen=True)
class Failure:
    """
    The last failures of a profile, up to a success.

    :param count: How many there were, one after the other.
    :param until: No spare of it is made before this time, seconds since the epoch.
    :param error: Type and message of the last one.
    """

    count: int
    until: float
    error: str


@dataclass(frozen=True)
class Notes:
    """
    What is noted. Times are seconds since the epoch, 0 for never.

    :param looked: When all hosts were last looked at.
    :param asked: When the spares in stock were last asked for ``test.version``.
    :param holds: There were spares at the last look, claimed ones among them.
    :param silent: Labels of the hosts that did not answer at the last look.
    :param failures: By profile.
    """

    looked: float = 0.0
    asked: float = 0.0
    holds: bool = False
    silent: tuple[str, ...] = ()
    failures: Mapping[str, Failure] = field(default_factory=dict)

    def failed(self, profile: str, error: str, now: float) -> Notes:
        """Return these notes after a spare of a profile could not be made."""
        count = self.failures[profile].count + 1 if profile in self.failures else 1
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(count - 1, 20))
        failure = Failure(count, now + pause, error)
        return dataclasses.replace(self, failures={**self.failures, profile: failure})

    def made(self, profile: str) -> Notes:
        """Return these notes after a spare of a profile was made."""
        left = {name: one for name, one in self.failures.items() if name != profile}
        return dataclasses.replace(self, failures=left)

    def at(self, now: float) -> Notes:
        """Return these notes without times that a clock has written which was ahead."""
        failures = {
            name: dataclasses.replace(one, until=min(one.until, now + LONGEST_PAUSE_S))
            for name, one in self.failures.items()
        }
        looked, asked = (when if when <= now else 0.0 for when in (self.looked, self.asked))
        return dataclasses.replace(self, looked=looked, asked=asked, failures=failures)


def read(opts: Mapping[str, Any]) -> Notes:
    """Return what is noted; nothing where the notes cannot be read: all of it is found again."""
    try:
        with open(_path(opts), encoding="utf-8") as source:
            return from_plain(Notes, json.load(source)).at(time.time())
    except (OSError, ValueError):
        return Notes()


def write(opts: Mapping[str, Any], notes: Notes) -> None:
    """
    Replace what is noted; only the one worker does.

    :raises HostError: It cannot be written.
    """
    path = _path(opts)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        files.write(path, json.dumps(to_plain(notes)))
    except OSError as error:
        raise HostError(
            f"The notes about spares in '{path}' cannot be written: {error.strerror}.",
            f"Is there room? df {os.path.dirname(path)}",
        ) from error


def _path(opts: Mapping[str, Any]) -> str:
    return os.path.join(str(opts["cachedir"]), "kvm_clone", "spares", "notes.json")
