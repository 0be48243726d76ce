"""What a clone and its destroy cost as pool and host grow, against the calls that they need.

At each size, in turns: the calls of the same effect by hand (``bench.quick_clone``), ours; then the
removal by hand and our destroy, which must know every user of every file. The library opens a
connection for each and knows nothing of the time before, as in a Salt job of its own; the last
column is a batch, where one job destroys several. The CPU time is that of this process: it says
what the library itself adds, also on a machine that is busy.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

from bench.quick_clone import Bench
from bench.table import Table, in_turns, milliseconds
from lab.common import LIBVIRT_URI
from lab.lab import Lab, connection
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.request import Request

#: How much more a clone, or a destroy, may take than on an empty host.
GOAL = 1.1

#: Clones that one job of the last column destroys.
BATCH = 10


@dataclass
class Cost:
    """Medians in milliseconds; ``cpu`` is the CPU time of one destroy."""

    raw: float
    clone: float
    raw_removal: float
    destroy: float
    cpu: float
    batch: float


class Growth(Bench):
    """The base and the ways of ``bench.quick_clone``, on a host that fills up."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.others = 0

    def cost(self, rounds: int) -> Cost:
        """Measure at the present size."""
        made: list[float] = []
        removed: list[float] = []
        spent: list[float] = []

        def by_hand() -> float:
            name = self._next()
            taken = milliseconds(lambda: self.same_effect(name))
            removed.append(milliseconds(lambda: self._remove(name)))
            return taken

        def ours() -> float:
            name, host = self._next(), LocalHost(LIBVIRT_URI)
            made.append(milliseconds(lambda: self.ours(name)))
            before = time.thread_time()
            taken = milliseconds(lambda: host.destroy(name))
            spent.append((time.thread_time() - before) * 1000)
            return taken

        raw, destroyed = in_turns([by_hand, ours], rounds)
        # The first of each was to warm up.
        clone, raw_removal, cpu = (statistics.median(one[1:]) for one in (made, removed, spent))
        return Cost(raw, clone, raw_removal, destroyed, cpu, self._batch())

    def _batch(self) -> float:
        names = [self._next() for _ in range(BATCH)]
        for name in names:
            self.ours(name)
        host = LocalHost(LIBVIRT_URI)
        return milliseconds(lambda: [host.destroy(name) for name in names]) / BATCH

    def _next(self) -> str:
        self.number += 1
        return f"bench-{self.number}"

    def _remove(self, name: str) -> None:
        with connection() as conn:
            conn.lookupByName(name).undefine()
            conn.storageVolLookupByPath(str(self._path(name))).delete()

    def add_domains(self, count: int) -> None:
        """Add quick clones of the base until there are so many."""
        while self.others < count:
            self.others += 1
            name = f"other-{self.others}"
            self.host.clone(Request(name=name, base_domain=self.base, clone_strategy="quick"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--domains", type=int, nargs="*", default=[10, 200])
    parser.add_argument("--volumes", type=int, nargs="*", default=[10, 1000, 5000])
    arguments = parser.parse_args()
    report = Table(
        f"Quick clone and destroy as the host grows, median of {arguments.rounds} rounds, ms",
        *("other domains", "other volumes", "calls by hand", "clone", "removal by hand"),
        *("destroy", "of it CPU", "destroy in a batch"),
    )
    empty: Cost | None = None
    for domains, volumes in (
        (0, 0),
        *((count, 0) for count in arguments.domains),
        *((0, count) for count in arguments.volumes),
    ):
        with Lab() as lab:
            bench = Growth(lab)
            bench.add_domains(domains)
            bench.fill_pool(volumes)
            cost = bench.cost(arguments.rounds)
        report.add(domains, volumes, *vars(cost).values())
        empty = empty or cost
        if (domains, volumes) != (0, 0):
            # What libvirt itself takes longer is not ours.
            beside = f"beside {domains} domains and {volumes} volumes"
            rest = cost.clone - cost.raw + empty.raw
            report.goal(f"A clone {beside}, / on an empty host", rest / empty.clone, GOAL)
            rest = cost.destroy - cost.raw_removal + empty.raw_removal
            report.goal(f"A destroy {beside}, / on an empty host", rest / empty.destroy, GOAL)
            rest = cost.batch - cost.raw_removal + empty.raw_removal
            report.goal(f"One of {BATCH} destroyed {beside}", rest / empty.batch, GOAL)
    return report.show()


if __name__ == "__main__":
    raise SystemExit(main())
