"""Record the events on a master's bus, with the master's own Salt."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from typing import IO, Any

from lab.common import LabError, wait_until
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
        if event and event["tag"] != "ear/ready":
            print(json.dumps([event["tag"], event["data"]], default=str), flush=True)
"""

Data = dict[str, Any]


class Ear:
    """A recording of a master's events, as a context manager.

    It listens in a process of its own, so that it works with any Salt line. What it recorded can
    still be read afterwards.

    :param world: Whose master to listen to.
    """

    def __init__(self, world: SaltWorld) -> None:
        self._world = world
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: threading.Thread | None = None
        self._ready = threading.Event()
        #: Tags and data so far, in the order in which they came.
        self.events: list[tuple[str, Data]] = []

    def __enter__(self) -> Ear:
        words = [str(self._world.venv / "bin/python"), "-c", _LISTEN]
        words.append(str(self._world.conf / "master"))
        self._process = subprocess.Popen(
            words, stdout=subprocess.PIPE, cwd="/", env=self._world.environment("ear")
        )
        assert self._process.stdout is not None
        self._writer = threading.Thread(
            target=self._write_down, args=(self._process.stdout,), daemon=True
        )
        self._writer.start()
        try:
            wait_until(self._hears, "the ear", 60)
        except LabError:
            self._end()
            raise
        return self

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        assert self._process is not None
        deaf = self._process.poll()
        self._end()
        # A test that expects an event not to come must know that it would have been recorded.
        if deaf is not None and error is None:
            raise LabError(f"the ear heard no more: its process ended ({deaf})")

    def about(self, name: str) -> list[tuple[str, Data]]:
        """Return salt-cloud's events about one machine: the end of each tag, and the data."""
        begin = f"salt/cloud/{name}/"
        return [(tag[len(begin) :], data) for tag, data in self.events if tag.startswith(begin)]

    def words(self, name: str, last: str) -> list[str]:
        """Return the ends of salt-cloud's tags about one machine, once ``last`` is among them."""

        def told() -> list[str] | None:
            found = [word for word, _data in self.about(name)]
            return found if last in found else None

        return list(wait_until(told, f"'{last}' of {name}", 30))

    def tags(self, prefix: str) -> list[str]:
        """Return the tags with a prefix, in the order in which they came."""
        return [tag for tag, _data in self.events if tag.startswith(prefix)]

    def heard(self, tag: str) -> list[Data]:
        """Return the data of every event so far with that very tag."""
        return [data for one, data in self.events if one == tag]

    def wait_for(self, tag: str, right: Callable[[Data], bool] = bool, timeout: float = 60) -> Data:
        """Wait for an event with that tag and the right data, and return the data of the first.

        :param right: Returns whether the data is right; by default, whether there is any.
        :param timeout: Seconds to wait.
        :raises LabError: There was none in time.
        """
        found = wait_until(
            lambda: [data for data in self.heard(tag) if right(data)], f"the event {tag}", timeout
        )
        first: Data = found[0]
        return first

    def _hears(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise LabError(f"the ear's process ended ({self._process.returncode})")
        return self._ready.is_set()

    def _write_down(self, said: IO[bytes]) -> None:
        with said:
            for line in said:
                if not line.endswith(b"\n"):  # the process was ended in the middle of a line
                    return
                tag, data = json.loads(line)
                if tag:
                    self.events.append((tag, data))
                else:
                    self._ready.set()

    def _end(self) -> None:
        assert self._process is not None and self._writer is not None
        self._process.terminate()
        self._process.wait()
        self._writer.join(10)
