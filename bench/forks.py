"""A fork of a warmed base against a quick clone that boots, both by ``salt-run kvmclone.create``.

The base is warmed first, which is not measured. *Addressed* is when the network is applied and its
address acknowledged, *test.version* when the command returns; nobody waits for anything in between.
The last row is several by one command. Emulated guests share the CPUs, so that it says most where
there are as many CPUs as guests.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

from bench.guests import BASE, created, debian_world, write_profile
from bench.table import Table, in_turns, milliseconds
from lab.common import LabError
from lab.lab import Lab
from lab.salt import Answer, SaltWorld

#: What a fork may take of a quick clone's time, until each of the two.
GOAL_ADDRESSED, GOAL_ANSWER = 0.25, 0.40

#: The same for several at once, until the last one answered.
GOAL_AT_ONCE = 0.25

#: Seconds that all of a batch may take.
BATCH_TIMEOUT_S = 3600.0

#: The stages until the address is there.
_UNTIL_ADDRESSED = ("cloned", "booted", "addressed")


class Creates:
    """Creates of one profile, and what was measured of them.

    :param keys: Keys of the profile.
    """

    def __init__(self, world: SaltWorld, profile: str, **keys: Any) -> None:
        write_profile(world, profile, **keys)
        self.world, self.profile = world, profile
        self.addressed: list[float] = []

    def answered(self) -> float:
        """Make and destroy one more, and return the seconds until it answered."""
        name = f"bench-{self.profile}{len(self.addressed)}"
        elapsed, timings = created(self.world, self.profile, name)
        self.addressed.append(sum(timings.get(stage, 0.0) for stage in _UNTIL_ADDRESSED))
        return elapsed

    def at_once(self, count: int) -> float:
        """Make and destroy several by one command, and return the seconds until all answered.

        :raises LabError: One of them failed.
        """
        names = f"bench-{self.profile}-[1-{count}]"
        made: list[Answer] = []
        elapsed = milliseconds(
            lambda: made.append(
                self.world.run("kvmclone.create", self.profile, names, timeout=BATCH_TIMEOUT_S)
            )
        )
        self.world.run("kvmclone.destroy", names, "yes=True", timeout=BATCH_TIMEOUT_S)
        if made[0].retcode:
            raise LabError(f"not all were made: {made[0].stdout}{made[0].stderr}")
        return elapsed / 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=5, help="made by one command; 0: none")
    arguments = parser.parse_args(sys.argv[1:])
    rounds, count = arguments.rounds, arguments.at_once
    report = Table(
        f"A fork and a quick clone that boots, {rounds} rounds in turns, medians, s",
        *("until", "quick", "instant", "ratio"),
    )
    with Lab() as lab, debian_world(lab) as world:
        warmed = world.run("kvmclone.warm", BASE)
        if warmed.retcode:
            raise LabError(f"the base was not warmed: {warmed.stdout}{warmed.stderr}")
        cold = Creates(world, "cold")
        fork = Creates(world, "fork", clone_strategy="instant")
        answers = in_turns([cold.answered, fork.answered], rounds)
        addressed = [statistics.median(one.addressed[1:]) for one in (cold, fork)]
        batches = [one.at_once(count) for one in (cold, fork) if count]
        world.run("kvmclone.unwarm", BASE)
    for until, (slow, fast), goal in (
        ("addressed", addressed, GOAL_ADDRESSED),
        ("test.version", answers, GOAL_ANSWER),
    ):
        report.add(until, slow, fast, f"{fast / slow:.2f}")
        report.goal(f"A fork until {until} / a quick clone", fast / slow, goal)
    if batches:
        slow, fast = batches
        report.add(f"test.version of {count} at once", slow, fast, f"{fast / slow:.2f}")
        report.goal(f"{count} forks at once / {count} quick clones", fast / slow, GOAL_AT_ONCE)
    return report.show()


if __name__ == "__main__":
    sys.exit(main())
