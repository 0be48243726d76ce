"""Figures as Markdown tables, with the goals that they are held to, and where they are from."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import libvirt

from lab.common import SCRATCH_ROOT, LabError, run


class Table:
    """One table, and the goals beneath it.

    :param title: What was measured, with the unit.
    :param columns: Heads of the columns.
    """

    def __init__(self, title: str, *columns: str) -> None:
        self.title = title
        self.columns = columns
        self.rows: list[tuple[str, ...]] = []
        self.goals: list[str] = []
        self.missed = False

    def add(self, *cells: float | str | None) -> None:
        """Add a row; a number is shown with three digits, None as nothing."""
        self.rows.append(tuple(map(_shown, cells)))

    def goal(self, what: str, value: float, most: float) -> None:
        """Note a goal, and whether it was reached.

        :param what: What ``value`` is, as the begin of a sentence.
        :param most: The most that it may be.
        """
        held = value <= most
        self.missed |= not held
        self.goals.append(
            f"* {what}: {value:.2f}; goal: at most {most:g}. **{'Held' if held else 'MISSED'}.**"
        )

    def show(self) -> int:
        """Print all of it, and return the exit code: 1 where a goal was missed."""
        lines = [f"\n### {self.title}\n", _line(self.columns), _line(["---"] * len(self.columns))]
        lines += [_line(row) for row in self.rows]
        print("\n".join([*lines, "", *self.goals]), flush=True)
        return int(self.missed)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(cell: float | str | None) -> str:
    if isinstance(cell, float):
        return f"{cell:.0f}" if cell >= 100 else f"{cell:.3g}"
    return "" if cell is None else str(cell)


def milliseconds(work: Callable[[], object]) -> float:
    """Return how long a piece of work took, in milliseconds."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def in_turns(ways: Sequence[Callable[[], float]], rounds: int) -> list[float]:
    """Take every way in each round, and return the median of each.

    What else the machine does then affects all of them alike. Each follows each other one equally
    often, since what one leaves to the disk slows the next.

    :param ways: Each does its work once and returns what it measured.
    :param rounds: Rounds to measure, after one to warm up.
    """
    found: list[list[float]] = [[] for _ in ways]
    for turn in range(rounds + 1):
        for step in range(len(ways)):
            index = (turn + step * (1 + turn % 2)) % len(ways)
            taken = ways[index]()
            if turn:
                found[index].append(taken)
    return [statistics.median(one) for one in found]


def surroundings() -> str:
    """Return machine, versions and command as Markdown: without them no figure means anything."""
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    number = libvirt.getVersion()
    parts = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} CPUs ({processor}), {memory:.0f} GiB, "
        f"{_output('stat', '-f', '-c', '%T', SCRATCH_ROOT)} below {SCRATCH_ROOT}, "
        f"Linux {platform.release()}",
        "versions": f"commit {_output('git', 'rev-parse', '--short', 'HEAD')}, "
        f"Python {platform.python_version()}, Salt {metadata.version('salt')}, "
        f"libvirt {number // 10**6}.{number // 1000 % 1000}.{number % 1000}, "
        f"{_output('qemu-img', '--version').splitlines()[0]}",
        "command": f"python -m bench {' '.join(sys.argv[1:])}".strip(),
        "load at the begin": f"{os.getloadavg()[0]:.1f}",
    }
    return "\n".join(f"* {key}: {value}" for key, value in parts.items())


def _output(*command: object) -> str:
    try:
        return run(command).strip()
    except (LabError, OSError, subprocess.SubprocessError):
        return "?"
