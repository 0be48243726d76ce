"""From ``claim`` to a machine that answered again, against what asking it alone takes.

Spares are stocked first, which is not measured. Then one is claimed, released and the next one is
asked for its version by hand, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable

from bench.guests import debian_world, write_profile
from bench.table import Table, milliseconds
from lab.common import LabError
from lab.lab import Lab
from lab.salt import Answer, SaltWorld

#: Times that a claim may take of what ``salt NAME test.version`` takes, and seconds in all.
GOAL, GOAL_S = 3.0, 2.0

#: Seconds that the worker has to fill the stock, of all spares together.
FILL_TIMEOUT_S = 1800.0


def stocked(world: SaltWorld, number: int) -> None:
    """Have the stock filled, and then no more made.

    :raises LabError: It was not.
    """
    world.run("kvmclone.work_off", timeout=FILL_TIMEOUT_S)
    there = world.run("kvmclone.spares", "spare").data["spares"]["spare"]["stock"]
    if len(there) < number:
        raise LabError(f"only {len(there)} of {number} spares were made")


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
    parser.add_argument("--spares", type=int, default=3)
    number = parser.parse_args(sys.argv[1:]).spares
    report = Table(
        f"A claim, and the same question asked by hand, {number} in turns, s",
        *("salt NAME test.version", "salt-run kvmclone.claim", "ratio"),
    )
    alone: list[float] = []
    claims: list[float] = []
    with Lab() as lab, debian_world(lab, preloads=False) as world:
        keys = {"spares": number, "spare_names": "bench-{id}", "ttl": "1h"}
        write_profile(world, "spare", **keys)
        stocked(world, number)
        waiting = list(world.run("kvmclone.spares", "spare").data["spares"]["spare"]["stock"])
        for left, name in reversed(list(enumerate(waiting))):
            # A claim wakes the worker, which is to find nothing to make and nothing to destroy.
            write_profile(world, "spare", **{**keys, "spares": left})
            alone.append(seconds(lambda: world.salt(name, "test.version")))  # noqa: B023
            claims.append(seconds(lambda: world.run("kvmclone.claim", "spare", "wait=False")))
            report.add(alone[-1], claims[-1], f"{claims[-1] / alone[-1]:.2f}")
        world.run("kvmclone.release", *waiting, "yes=True")
    took = statistics.median(claims)
    report.goal("A claim / the question alone", took / statistics.median(alone), GOAL)
    report.goal("Seconds from a claim to a verified answer", took, GOAL_S)
    return report.show()


if __name__ == "__main__":
    sys.exit(main())
