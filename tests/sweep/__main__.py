"""
``make sweep``: every fault at every point, and the figures of ``docs/reliability.md``.

    python -m tests.sweep [--seed WORD] [--only KIND] [--write]
"""

from __future__ import annotations

import argparse
import datetime
import random
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from lab import libvirtd
from lab.common import CHECKOUT
from lab.lab import Lab
from tests.functional.world import World
from tests.sweep.faults import KINDS, Kind, Scene

#: Random moments for each kind, besides every point.
MOMENTS = 12

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

    def __str__(self) -> str:
        return f"| {self.what} | {self.fault} | {self.points} | {self.runs} | {self.broken} |"


def main() -> int:
    words = argparse.ArgumentParser(prog="make sweep")
    words.add_argument("--seed", default=datetime.date.today().isoformat())
    words.add_argument("--only", default="", help="kinds whose name contains this")
    words.add_argument("--spare-libvirtd", action="store_true", help="others work with it, too")
    words.add_argument("--write", action="store_true", help="put the figures into the docs")
    given = words.parse_args()
    started = time.monotonic()
    rows: list[Row] = []
    with Lab() as lab:
        for number, kind in enumerate(KINDS):
            if given.only in str(kind):
                token = f"{lab.name[-4:]}s{number}"
                rows += sweep(lab, kind, token, given.seed, given.spare_libvirtd)
    table = "\n".join(
        [
            f"Seed `{given.seed}`, {(time.monotonic() - started) / 60:.0f} minutes.",
            "",
            "| what was under way | fault | points | runs | broken |",
            "| --- | --- | --- | --- | --- |",
            *map(str, rows),
        ]
    )
    print(table)
    if given.write:
        write(PAGE, table)
    return 1 if any(row.broken for row in rows) else 0


def sweep(lab: Lab, kind: Kind, token: str, seed: str, spare: bool) -> list[Row]:
    """All faults for one kind of run."""
    world = World(lab, token)
    try:
        scene = Scene(world, kind)
        points = scene.points()
        killed = Row(str(kind), "worker killed after each call", len(points))
        for point in points:
            for then in ("gc", "repeat"):
                _try(
                    killed,
                    f"{point}, then {then}",
                    lambda p=point, t=then: scene.fault("kill", p, t),
                )
        moments = Row(str(kind), "worker killed at random moments", MOMENTS)
        whole = scene.kill_after(90, "gc")
        chosen = random.Random(f"{seed} {kind}")
        for number in range(MOMENTS):
            moment = chosen.uniform(0.2, 1.0) * whole
            then = ("gc", "repeat")[number % 2]
            _try(
                moments, f"{moment:.2f} s", lambda m=moment, t=then: scene.kill_after(m, t) and None
            )
        rows = [killed, moments]
        if libvirtd.is_ours() and not spare:
            daemon = Row(str(kind), "libvirtd killed and restarted after each call", len(points))
            for point in points:
                _try(daemon, point, lambda p=point: scene.fault("libvirtd", p, "gc"))
            rows.append(daemon)
        else:
            print("libvirtd was not killed: it is not the lab's own, or to be spared")
        return rows
    finally:
        world.tidy()


def _try(row: Row, where: str, run: object) -> None:
    row.runs += 1
    try:
        run()  # type: ignore[operator]
    except AssertionError:
        row.broken += 1
        told = traceback.format_exc(limit=-2)
        print(f"BROKEN: {row.what}, {row.fault}: {where}: {told}", file=sys.stderr, flush=True)


def write(page: Path, table: str) -> None:
    """Replace the figures between the two marks."""
    text = page.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    page.write_text(f"{head}{BEGIN}\n\n{table}\n\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
