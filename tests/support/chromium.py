"""A headless Chromium, spoken to over a pipe by its DevTools protocol."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

#: Names of the program; ``KVMCLONE_CHROMIUM`` has the path of one that is elsewhere.
_PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")

#: Seconds until an answer must have come.
_ANSWER_S = 30.0


def program() -> str:
    """The Chromium of this machine; skips the test where there is none."""
    named = os.environ.get("KVMCLONE_CHROMIUM", "")
    found = named or next(filter(None, map(shutil.which, _PROGRAMS)), "")
    if not found:
        pytest.skip("no Chromium here: apt-get install chromium-headless-shell")
    return found


class Page:
    """
    One page.

    :ivar events: What the browser told of itself, besides answers.
    """

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._rest = b""
        self._last = 0
        self._session = ""
        self.events: list[dict[str, Any]] = []
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        attached = self.do("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return self._wait(lambda told: told.get("id") == self._last)["result"]  # type: ignore[no-any-return]

    def _wait(self, fits: Any) -> dict[str, Any]:
        deadline = time.monotonic() + _ANSWER_S
        while time.monotonic() < deadline:
            while b"\0" in self._rest:
                line, _, self._rest = self._rest.partition(b"\0")
                told: dict[str, Any] = json.loads(line)
                if "error" in told:
                    raise AssertionError(told["error"])
                if "id" not in told:
                    self.events.append(told)
                if fits(told):
                    return told
            if select.select([self._read], [], [], 1)[0]:
                told_more = os.read(self._read, 1 << 20)
                assert told_more, "Chromium has ended"
                self._rest += told_more
        raise TimeoutError("Chromium did not answer")

    def open(self, path: Path, width: int, height: int = 900) -> None:
        """Show a file in a window of that size, pixels."""
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self.do("Page.navigate", url=path.as_uri())
        self._wait(lambda told: told.get("method") == "Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """What an expression is, as JSON has it."""
        told = self.do("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def picture(self) -> bytes:
        """The whole page as PNG."""
        told = self.do("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(told["data"])

    def printed(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self.do("Page.printToPDF", preferCSSPageSize=True)["data"])

    def complaints(self) -> list[str]:
        """What the browser wrote to its console, refusals of a policy among them."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [json.dumps(told["params"]) for told in self.events if told["method"] in kinds]

    def requests(self) -> list[str]:
        """Every address that was asked for."""
        return [
            str(told["params"]["request"]["url"])
            for told in self.events
            if told["method"] == "Network.requestWillBeSent"
        ]


@contextmanager
def browser(path: str, profile: Path) -> Iterator[Page]:
    """
    Run Chromium, with one empty page.

    :param path: The program.
    :param profile: An empty folder for what it writes.
    """
    (its_in, write), (read, its_out) = os.pipe(), os.pipe()
    # Chromium reads its 3rd file and writes its 4th; what is moved there must be neither.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (its_in, its_out)]
    for end in (its_in, its_out):
        os.close(end)
    moved = f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}'
    process = subprocess.Popen(
        [
            "bash", "-c", moved, path, "--headless", "--remote-debugging-pipe", "--no-sandbox",
            "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--hide-scrollbars",
            f"--user-data-dir={profile}",
        ],
        pass_fds=ends,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for end in ends:
        os.close(end)
    try:
        yield Page(write, read)
    finally:
        process.kill()
        process.wait()
        os.close(write)
        os.close(read)
