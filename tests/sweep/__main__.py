"""
``make sweep``: every fault at every point, and the figures of ``docs/reliability.md``.

    make sweep ARGS="--seed WORD --only create --fault calls --every 5 --moments 4"
"""

from __future__ import annotations

import argparse
import datetime
import math
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lab import libvirtd
from lab.common import CHECKOUT, LabError
from lab.lab import Lab
from saltext.kvmclone.errors import KvmCloneError
from tests.support.world import World
from tests.sweep import cases
from tests.sweep.faults import INTERRUPTS, KINDS, WAYS, Kind, Scene

PAGE = CHECKOUT / "docs/reliability.md"
BEGIN, END = "<!-- figures: make sweep -->", "<!-- end of figures -->"


@dataclass
class Row:
    """One line of the table: how often a fault was tried, and how often the promise broke."""

    what: str
    fault: str
    points: int = 0
    runs: int = 0
    broken: int = 0

    @contextmanager
    def run(self, where: str) -> Iterator[None]:
        """One try; what breaks the promise is told and counted."""
        self.runs += 1
        try:
            yield
        except (AssertionError, KvmCloneError, LabError, subprocess.TimeoutExpired):
            self.broken += 1
            told = traceback.format_exc(limit=-2)
            print(f"BROKEN: {self.what}, {self.fault}: {where}: {told}", file=sys.stderr)

    def __str__(self) -> str:
        return f"| {self.what} | {self.fault} | {self.points} | {self.runs} | {self.broken} |"


def main() -> int:
    words = argparse.ArgumentParser(prog="make sweep")
    words.add_argument("--seed", default=datetime.date.today().isoformat())
    words.add_argument("--only", default="", help="kinds of run whose name contains this")
    words.add_argument("--fault", choices=sorted(FAULTS), action="append", help="default: all")
    words.add_argument("--every", type=int, default=1, help="only every so many points")
    words.add_argument("--moments", type=int, default=12, help="random moments of each kind")
    words.add_argument("--minutes", type=float, default=math.inf, help="begin nothing after that")
    words.add_argument("--write", action="store_true", help="put the figures into the docs")
    given = words.parse_args()
    started = time.monotonic()
    given.deadline = started + given.minutes * 60
    rows: list[Row] = []
    with Lab() as lab:
        for number, kind in enumerate(KINDS):
            if given.only in str(kind):
                token = f"{lab.name[-4:]}s{number}"
                for row in sweep(lab, kind, token, given):
                    print(row, flush=True)
                    rows.append(row)
    if given.write:
        minutes = (time.monotonic() - started) / 60
        every = "each point" if given.every == 1 else f"one of {given.every} points"
        write(
            PAGE,
            rows,
            f"Last run: {every}, {given.moments} random moments of each kind, seed `{given.seed}`, "
            f"{minutes:.0f} minutes, {datetime.date.today().isoformat()}.",
        )
    return 1 if any(row.broken for row in rows) else 0


def sweep(lab: Lab, kind: Kind, token: str, given: argparse.Namespace) -> Iterator[Row]:
    """The chosen faults for one kind of run."""
    world = World(lab, token)
    try:
        scene = Scene(world, kind)
        chosen = random.Random(f"{given.seed} {kind}")
        points = scene.points()[chosen.randrange(given.every) :: given.every]
        for name in given.fault or FAULTS:
            if time.monotonic() > given.deadline:
                yield Row(str(kind), f"{name}: not tried, no time was left")
                continue
            moments = [chosen.uniform(0.2, 1.0) for _ in range(given.moments)]
            yield FAULTS[name](scene, points, moments)
    finally:
        world.tidy()


def kill_at_points(scene: Scene, points: list[str], _moments: list[float]) -> Row:
    """The worker dies after each call, and is mended in both ways."""
    row = Row(str(scene.kind), "worker killed after each call", len(points))
    for point in points:
        for then in WAYS:
            with row.run(f"{point}, then {then}"):
                scene.fault("kill", point, then)
    return row


def kill_at_moments(scene: Scene, _points: list[str], moments: list[float]) -> Row:
    """The worker dies at any moment, inside libvirt's calls too."""
    row = Row(str(scene.kind), "worker killed at random moments", len(moments))
    for number, share in enumerate(moments):
        moment = share * scene.traced().seconds
        with row.run(f"{moment:.2f} s"):
            scene.kill_after(moment, WAYS[number % 2])
    return row


def interrupt(scene: Scene, points: list[str], _moments: list[float]) -> Row:
    """Ctrl-C, and what Salt makes of SIGTERM: the worker takes back what it made, by itself."""
    row = Row(str(scene.kind), "worker interrupted (Ctrl-C, SIGTERM) after each call", len(points))
    for number, point in enumerate(points):
        with row.run(point):
            scene.fault(INTERRUPTS[number % 2], point, WAYS[number // 2 % 2])
    return row


def kill_libvirtd(scene: Scene, points: list[str], _moments: list[float]) -> Row:
    """The daemon dies after each call and comes back; the worker lives on."""
    row = Row(str(scene.kind), "libvirtd killed and restarted after each call", len(points))
    return _with_libvirtd(scene, points, row, "libvirtd")


def kill_both(scene: Scene, points: list[str], _moments: list[float]) -> Row:
    """Worker and daemon die together."""
    row = Row(str(scene.kind), "worker and libvirtd killed together after each call", len(points))
    return _with_libvirtd(scene, points, row, "both")


def _with_libvirtd(scene: Scene, points: list[str], row: Row, fault: str) -> Row:
    if not libvirtd.is_ours():
        return replace(row, fault=NOT_OURS, points=0)
    for number, point in enumerate(points):
        with row.run(point):
            scene.fault(fault, point, WAYS[number % 2])
    return row


def crash_at_moments(scene: Scene, _points: list[str], moments: list[float]) -> Row:
    """The daemon dies at any moment, inside the worker's calls too."""
    row = Row(str(scene.kind), "libvirtd killed and restarted at random moments", len(moments))
    if not libvirtd.is_ours():
        return replace(row, fault=NOT_OURS, points=0)
    for number, share in enumerate(moments):
        moment = share * scene.traced().seconds
        with row.run(f"{moment:.2f} s"):
            scene.crash_after(moment, WAYS[number % 2], libvirtd.crash)
    return row


NOT_OURS = "libvirtd is not the lab's own here: not killed"

FAULTS = {
    "calls": kill_at_points,
    "moments": kill_at_moments,
    "interrupt": interrupt,
    "libvirtd": kill_libvirtd,
    "libvirtd-moments": crash_at_moments,
    "both": kill_both,
}


def write(page: Path, rows: list[Row], last: str) -> None:
    """Put the figures between the two marks; kinds that were not run now keep theirs."""
    text = page.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    old, _, tail = rest.partition(END)
    run = {row.what for row in rows}
    rows = [*(row for row in map(read, old.splitlines()) if row and row.what not in run), *rows]
    order = [str(kind) for kind in KINDS]
    rows = sorted((row for row in rows if row.what in order), key=lambda row: order.index(row.what))
    runs, broken = sum(row.runs for row in rows), sum(row.broken for row in rows)
    figures = "\n".join(
        [
            f"{runs} runs, {broken} broken. {last}",
            "",
            "| what was under way | fault | points | runs | broken |",
            "| --- | --- | --- | --- | --- |",
            *map(str, rows),
            "",
            cases.table(),
        ]
    )
    page.write_text(f"{head}{BEGIN}\n\n{figures}\n\n{END}{tail}", encoding="utf-8")


def read(line: str) -> Row | None:
    """A line of the table on the page; None for any other."""
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    if len(cells) != 5 or not cells[2].isdigit():
        return None
    return Row(cells[0], cells[1], *map(int, cells[2:]))


if __name__ == "__main__":
    sys.exit(main())
