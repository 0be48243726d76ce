"""Several clones at once, until each answers ``test.version``: ours against Salt 3006's ``-P`` map.

The same master, base, files and deploy script as in ``bench.against_salt_cloud``. Twenty emulated
guests are more than two CPUs can bear; where that is so, the guests' own time is what is measured.
"""

from __future__ import annotations

import argparse
import time

from bench.against_salt_cloud import BASE, GOAL, world
from bench.table import Table
from lab.common import CHECKOUT, LabError
from lab.lab import Lab, connection
from lab.salt import SaltWorld

#: Seconds that all of a batch may take.
TIMEOUT_S = 3600.0


def until_all_answer(salt: SaltWorld, command: list[str], names: list[str]) -> float:
    """Run a command, and return the seconds until every one of the new minions answers.

    :raises LabError: The command failed, or a minion never answered.
    """
    started = time.monotonic()
    answer = salt.execute(command, TIMEOUT_S)
    if answer.retcode:
        raise LabError(f"{command} failed: {answer}")
    waiting = set(names)
    while waiting:
        told = salt.salt(f"L@{','.join(sorted(waiting))}", "test.version", "-C", timeout=5)
        waiting -= {name for name, said in (told.data or {}).items() if isinstance(said, str)}
        if time.monotonic() > started + TIMEOUT_S:
            raise LabError(f"never answered: {', '.join(sorted(waiting))}")
    return time.monotonic() - started


def theirs(lab: Lab, names: list[str]) -> float:
    """Return the seconds that Salt's own driver takes for a map, in parallel."""
    with world(lab, f"salt-{names[0]}", ()) as salt:
        path = salt.write_cloud("maps", "bench.map", {"centos7": names})
        words = ("-l", "error", "-y", "-P", "-m", path)
        try:
            return until_all_answer(salt, salt.command("salt-cloud", *words), names)
        finally:
            salt.cloud("-d", "-y", *names, timeout=TIMEOUT_S)


def ours(lab: Lab, names: list[str]) -> float:
    """Return the seconds that one command of ours takes for the same."""
    with world(lab, f"salt-{names[0]}", (CHECKOUT,)) as salt:
        words = ("-l", "error", "kvmclone.create", "centos7", *names)
        try:
            return until_all_answer(salt, salt.command("salt-run", *words), names)
        finally:
            salt.run("kvmclone.destroy", *names, "yes=True", timeout=TIMEOUT_S)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    report = Table(
        "Quick clones at once, from the command to the last answer to test.version, s",
        *("clones", "Salt 3006, salt-cloud -P -m", "this project, salt-run", "ratio"),
    )
    with Lab() as lab:
        lab.debian_base(BASE)
        with connection() as libvirtd:  # Salt's driver finds only volumes that libvirt knows of
            libvirtd.storagePoolLookupByName(lab.pool).refresh()
        for size in arguments.sizes:
            for number in range(arguments.rounds):
                one, other = (
                    way(lab, [f"bench-{word}-{size}-{number}-{i}" for i in range(size)])
                    for word, way in (("theirs", theirs), ("ours", ours))
                )
                report.add(size, one, other, f"{other / one:.2f}")
                report.goal(f"{size} at once / Salt's own driver", other / one, GOAL)
    return report.show()


if __name__ == "__main__":
    raise SystemExit(main())
