"""What every demo has: stages that are timed, commands as a person types them, a clean end."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from lab.common import LabError, say
from lab.salt import SaltWorld


class Demonstration:
    """The stages of a demo, each timed; the summary is printed however it ends.

    :param keep: Leave everything running.
    """

    def __init__(self, keep: bool) -> None:
        self.keep = keep
        self.times: list[tuple[str, float]] = []
        self.salt: SaltWorld | None = None

    # --- what each demo has of its own ---------------------------------------------------------

    def prepare(self, stack: ExitStack) -> None:
        """Make the scratch world; what removes it goes onto the stack."""
        raise NotImplementedError

    def show(self) -> None:
        """Run the commands."""
        raise NotImplementedError

    def stay(self, stack: ExitStack) -> None:
        """Leave everything running."""
        raise NotImplementedError

    def logs(self) -> Iterable[Path]:
        """Return the logs that may say why it failed."""
        return sorted((self.salt.folder / "log").iterdir()) if self.salt else ()

    # --- its course ----------------------------------------------------------------------------

    def play(self) -> int:
        """Run the demo and return the exit code."""
        stack = ExitStack()
        try:
            with _terminable():
                say("== Preparing a scratch world (nothing that is here already is touched)")
                if started := os.environ.get("KVMCLONE_STARTED"):
                    took = time.time() - float(started)
                    self.times.append(("system packages and Python environment", took))
                self.prepare(stack)
                self.show()
                if self.keep:
                    self.stay(stack)
            self._summary("the demo worked")
        except KeyboardInterrupt:
            self._summary("interrupted")
            return 130
        except LabError as error:
            say(f"\n!! {error}")
            self._tell_logs()
            self._summary("the demo FAILED")
            return 1
        finally:
            with _undisturbed():
                stack.close()
        return 0

    def user(
        self, what: str, program: str, *words: str, expect: str = "", code: int | None = 0
    ) -> None:
        """Run a command as a person would; its output goes to the terminal as it comes.

        :param what: What the command does, for the summary.
        :param expect: Text that the answer must contain.
        :param code: The exit code that it must have; None for any.
        :raises LabError: It failed, or the answer does not contain that.
        """
        assert self.salt is not None
        command = self.salt.command(program, *words)
        say("\n$ " + shlex.join([Path(command[0]).name, *command[1:]]))
        with self.stage(what, quiet=True):
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if expect else None,
                text=True,
                cwd="/",
                env=self.salt.environment("command"),
                check=False,
            )
            if expect:  # the answer goes to stdout; live progress is on stderr
                print(done.stdout, end="", flush=True)
            if code is not None and done.returncode != code:
                raise LabError(f"{what}: exit code {done.returncode}")
            if expect not in (done.stdout or ""):
                raise LabError(f"{what}: the answer does not contain {expect!r}")

    # --- telling -------------------------------------------------------------------------------

    @contextmanager
    def stage(self, what: str, quiet: bool = False) -> Iterator[None]:
        """Time a stage, and announce it unless it is ``quiet``."""
        if not quiet:
            say(f"-- {what} ...")
        start = time.monotonic()
        try:
            yield
        finally:
            self.times.append((what, time.monotonic() - start))
        if not quiet:
            say(f"-- {what}: {self.times[-1][1]:.1f} s")

    def _summary(self, verdict: str) -> None:
        width = max((len(what) for what, _ in self.times), default=0)
        say(f"\n== Summary: {verdict}")
        for what, seconds in self.times:
            say(f"   {what:<{width}}  {seconds:6.1f} s")
        say(f"   {'in all':<{width}}  {sum(seconds for _, seconds in self.times):6.1f} s")

    def _tell_logs(self) -> None:
        """Print the ends of the logs, since a failure's scratch folder is removed."""
        for path in self.logs():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            worth = [line for line in lines if "INFO" not in line][-15:]
            if worth:
                say(f"\n-- the end of {path.name}:\n" + "\n".join(worth))


@contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C, so that everything is removed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore another Ctrl-C, which must not interrupt the removal."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
