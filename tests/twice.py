"""
``python -m tests.twice WORDS…``: pytest, and what failed once more, as Salt's own CI does it.

Real guests under emulation, several labs beside each other and a daemon that is killed on purpose
now and then trip over each other in a way that has nothing to do with the promise under test. A run
of half an hour is not worth less for it, so up to :data:`FEW` failures of a part are tried a second
time, in a process and a lab of their own. Who passes then is named at the end: it is a defect, of a
test or of ours, until somebody knows its cause. More failures than that are no accident.

A test that never ends would end the whole run without a word, so each has a time after which it
fails where it stands.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

import pytest

#: How many failures of one part a second try may still put down to chance.
FEW = 2

#: Seconds that a test may take with what it sets up; those with several guests take minutes.
TEST_TIMEOUT_S = 900


@dataclass(eq=False)  # pytest keeps its plugins in a set
class Failures:
    """A plugin of pytest that remembers which tests failed, in whichever of their phases."""

    names: list[str] = field(default_factory=list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self.names:
            self.names.append(report.nodeid)


class Deadline:
    """
    A plugin of pytest that fails a test which goes on for too long.

    :param seconds: How long a test may take, with what it sets up and clears away.
    """

    def __init__(self, seconds: float = TEST_TIMEOUT_S) -> None:
        self.seconds = seconds

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        """Give a test its time."""
        before = signal.signal(signal.SIGALRM, self._end)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        pytest.fail(f"It did not end within {self.seconds:.0f} s.")


def main(words: list[str]) -> int:
    """
    Run pytest with these words.

    :return: pytest's exit code; 0 as well where all that failed passed at the second try.
    """
    failures = Failures()
    code = int(pytest.main(words, plugins=[failures, Deadline()]))
    if code != pytest.ExitCode.TESTS_FAILED or len(failures.names) > FEW:
        return code
    print(f"\ntwice: {len(failures.names)} failed and are tried once more", flush=True)
    # What chose the tests (-k, -m) has chosen; the rest of the words would choose again.
    again = subprocess.run([sys.executable, "-m", "pytest", *failures.names], check=False)
    for name in failures.names if again.returncode == 0 else []:
        print(f"twice: FLICKERED (failed, then passed; look for the cause): {name}", flush=True)
    return again.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
