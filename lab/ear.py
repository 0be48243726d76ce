"""Everything that is said on a master's bus, heard with the master's own Salt."""

from __future__ import annotations

import json
import subprocess
from types import TracebackType
from typing import Any

from lab.common import wait_until
from lab.salt import SaltWorld

_LISTEN = """
import json
import sys
import salt.config
import salt.utils.event
opts = salt.config.master_config(sys.argv[1])
with salt.utils.event.get_master_event(opts, opts["sock_dir"], listen=True) as bus:
    bus.connect_pub()
    # To be connected is not yet to hear: an event of one's own tells when that has come.
    while True:
        bus.fire_event({}, "ear/ready")
        if bus.get_event(wait=1, tag="ear/ready", full=True):
            break
    print(json.dumps(["", {}]), flush=True)
    while True:
        event = bus.get_event(wait=1, full=True)
        if event:
            print(json.dumps([event["tag"], event["data"]], default=str), flush=True)
"""


class Ear:
    """
    A context manager; listens in a process of its own, so that any Salt line can be heard.

    :param world: Whose master to listen to.
    """

    def __init__(self, world: SaltWorld) -> None:
        self._world = world
        self._path = world.folder / "log/heard"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Ear:
        words = [str(self._world.venv / "bin/python"), "-c", _LISTEN]
        words.append(str(self._world.conf / "master"))
        with self._path.open("wb") as output:
            self._process = subprocess.Popen(
                words, stdout=output, cwd="/", env=self._world.environment("ear")
            )
        wait_until(lambda: self.events is not None and self._path.stat().st_size, "the ear", 60)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()

    @property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """Tags and data so far, in the order in which they came."""
        lines = self._path.read_text(encoding="utf-8").split("\n")[:-1]
        return [(tag, data) for tag, data in map(json.loads, lines) if tag]

    def about(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        """What salt-cloud told of one machine: the last word of each tag, and the data."""
        begin = f"salt/cloud/{name}/"
        return [(tag[len(begin) :], data) for tag, data in self.events if tag.startswith(begin)]

    def words(self, name: str, last: str) -> list[str]:
        """Those words, once the last one of them has been heard."""

        def heard() -> list[str] | None:
            found = [word for word, _data in self.about(name)]
            return found if last in found else None

        return list(wait_until(heard, f"'{last}' of {name}", 30))
