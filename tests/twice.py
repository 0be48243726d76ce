"""
``python -m tests.twice WORDS…``: pytest, and what failed once more, as Salt's own CI does it.

Real guests under emulation, several labs beside each other and a daemon that is killed on purpose
now and then trip over each other in a way that has nothing to do with the promise under test. A run
of half an hour is not worth less for it, so up to :data:`FEW` failures of a part are tried a second
time, in a process and a lab of their own. Who passes then is named at the end: it is a defect, of a
test or of ours, until somebody knows its cause. More failures than that are no accident.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field

import pytest

#: How many failures of one part a second try may still put down to chance.
FEW = 2


@dataclass(eq=False)  # pytest keeps its plugins in a set
class Failures:
    """A plugin of pytest that remembers which tests failed, in whichever of their phases."""

    names: list[str] = field(default_factory=list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self.names:
            self.names.append(report.nodeid)


def main(words: list[str]) -> int:
    """
    Run pytest with these words.

    :return: pytest's exit code; 0 as well where all that failed passed at the second try.
    """
    failures = Failures()
    code = int(pytest.main(words, plugins=[failures]))
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
