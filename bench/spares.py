"""From ``claim`` to a machine that answered again, against what asking it alone takes.

A spare is made first, which is not measured; it is asked for its version by hand, and then claimed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial

from bench.guests import debian_world, write_profile
from bench.table import Table, milliseconds
from lab.common import LabError, wait_until
from lab.lab import Lab
from lab.salt import Answer, SaltWorld

#: Times that a claim may take of what ``salt NAME test.version`` takes, and seconds in all.
GOAL, GOAL_S = 3.0, 2.0

#: Seconds that the worker has to make one spare.
FILL_TIMEOUT_S = 600.0

KEYS = {"spare_names": "bench-{id}", "ttl": "1h"}


def stocked(world: SaltWorld) -> str:
    """Have one spare made, wait until nothing is made or destroyed any more, and return its name.

    :raises LabError: It was not made.
    """
    write_profile(world, "spare", **KEYS, spares=1)
    world.run("kvmclone.work_off", timeout=FILL_TIMEOUT_S)
    wait_until(lambda: not world.run("kvmclone.asked").data["working"], "the worker", 60)
    there = world.run("kvmclone.spares", "spare").data["spares"]["spare"]["stock"]
    write_profile(world, "spare", **KEYS, spares=0)  # so that none is made while one is claimed
    if not there:
        raise LabError("no spare was made")
    return str(next(iter(there)))


def seconds(work: Callable[[], Answer]) -> float:
    """Return how long a command takes.

    :raises LabError: It failed.
    """
    answers: list[Answer] = []
    took = milliseconds(lambda: answers.append(work())) / 1000
    if answers[0].retcode:
        raise LabError(f"a command failed: {answers[0].stdout}{answers[0].stderr}")
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args(sys.argv[1:]).rounds
    report = Table(
        f"A claim, and the same question asked by hand, {rounds} rounds, s",
        *("salt NAME test.version", "salt-run kvmclone.claim", "ratio"),
    )
    alone: list[float] = []
    claims: list[float] = []
    with Lab() as lab, debian_world(lab) as world:
        for _round in range(rounds):
            name = stocked(world)
            alone.append(seconds(partial(world.salt, name, "test.version")))
            claims.append(seconds(partial(world.run, "kvmclone.claim", "spare", "wait=False")))
            report.add(alone[-1], claims[-1], f"{claims[-1] / alone[-1]:.2f}")
            world.run("kvmclone.release", name)
    took = statistics.median(claims)
    report.goal("A claim / the question alone", took / statistics.median(alone), GOAL)
    report.goal("Seconds from a claim to a verified answer", took, GOAL_S)
    return report.show()


if __name__ == "__main__":
    sys.exit(main())
