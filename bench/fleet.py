"""What the runner costs on many hosts: a batch of clones, their destroy, and the list of all hosts.

The hosts are namespaces of this machine, each with a libvirtd and a minion of its own
(``lab.fleet``), and the guests tiny ones that need an address and no more. All of them share the
CPUs of this machine, so beside the time there is the CPU time of the command itself: it is the
runner's own, whatever hosts and guests do. What ``salt-run`` takes to start is subtracted from
that. Each row makes the same number of clones, on more hosts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from bench.table import Table
from lab.common import CHECKOUT, LabError
from lab.fleet import Fleet

BASE = "bench-base"

#: How much more CPU time the runner may take for a clone where it has most hosts.
GOAL = 1.5

#: The machines of a row promise more CPUs than this machine, which each host takes for its own.
LIMITS = {"kvm_clone": {"hosts": {"*": {"cpu_ratio": 1000}}}}

#: How many times as long as the Salt job that it needs a list may take.
GOAL_OF_LIST = 2.0


@dataclass(frozen=True)
class Taken:
    """The seconds that a command took, and its CPU time."""

    time: float
    cpu: float


def measured(fleet: Fleet, program: str, *words: object) -> Taken:
    """Run a Salt program to its end, in a process of its own.

    :raises LabError: It failed.
    """
    salt = fleet.salt
    command = salt.command(program, "--out=json", "-l", "error", *words)
    started = time.monotonic()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=salt.environment("command"),
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise LabError(f"{' '.join(command)} failed: {said.decode(errors='replace')[-2000:]}")
    return Taken(time.monotonic() - started, usage.ru_utime + usage.ru_stime)


class Bench:
    """A fleet whose hosts all have the base, and a profile for every number of them.

    :param listed: Clones that each host has already; they are off.
    """

    def __init__(self, fleet: Fleet, sizes: list[int], listed: int) -> None:
        self.fleet = fleet
        self.listed = listed
        hosts = list(fleet.hosts)
        for name, host in fleet.hosts.items():
            host.tiny_base(BASE)
            others = [f"{name}-{number}" for number in range(listed)]
            python = ("env", "-C", CHECKOUT, sys.executable)
            host.run(*python, "-m", "bench.fleet_host", BASE, *others)
        for size in sizes:
            profile = f"on-{size}"
            provider = {"driver": "libvirt", "url": "qemu:///system", "hosts": hosts[:size]}
            fleet.salt.write_cloud("providers", f"{profile}.conf", {profile: provider})
            keys = {
                "provider": profile,
                "base_domain": BASE,
                "clone_strategy": "quick",
                "deploy": False,
                "reset_identity": False,
            }
            fleet.salt.write_cloud("profiles", f"{profile}.conf", {profile: keys})
        self.run("kvmclone.bases", BASE, "hash=True")  # several hosts need to have the same

    def batch(self, size: int, clones: int, report: Table) -> float:
        """Make and destroy clones on some of the hosts, list all on them, and add a row.

        :param clones: How many, on all of these hosts together.
        :return: The runner's own CPU time for each clone, in seconds.
        """
        names, hosts = f"on{size}-[1-{clones}]", list(self.fleet.hosts)[:size]
        idle = statistics.median(self.run("test.arg").cpu for _ in range(3))
        made = self.run("kvmclone.create", f"on-{size}", names)
        gone = self.run("kvmclone.destroy", names, "yes=True")
        each, destroyed = ((one.cpu - idle) / clones for one in (made, gone))
        times = (made.time / clones, each, gone.time / clones, destroyed)
        report.add(size, clones, *(seconds * 1000 for seconds in times))
        if size == len(self.fleet.hosts):
            self._list(hosts, report)
        return each

    def _list(self, hosts: list[str], report: Table) -> None:
        """Hold a list of all clones against the Salt job that it needs."""
        lists, jobs = [], []
        for _ in range(5):
            lists.append(self.run("kvmclone.list").time)
            words = ("-L", ",".join(hosts), "kvm_clone.list_clones")
            jobs.append(measured(self.fleet, "salt", *words).time)
        listed, job = statistics.median(lists), statistics.median(jobs)
        report.goal(
            f"The list of {len(hosts)} hosts with {self.listed} clones each ({listed:.1f} s) / "
            f"the Salt job that it needs ({job:.1f} s)",
            listed / job,
            GOAL_OF_LIST,
        )

    def run(self, function: str, *arguments: object) -> Taken:
        """Run a function of a runner."""
        return measured(self.fleet, "salt-run", function, *arguments)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 5, 50])
    parser.add_argument("--clones", type=int, default=50, help="made on these, in each row")
    parser.add_argument("--listed", type=int, default=10, help="that each host has already")
    arguments = parser.parse_args()
    report = Table(
        f"The runner on many hosts with {arguments.listed} clones each, ms for each clone",
        *("hosts", "clones made", "create", "of it CPU of the runner"),
        *("destroy", "of it CPU of the runner"),
    )
    sizes = sorted(arguments.hosts)
    with Fleet(sizes[-1], LIMITS, preloads=False) as fleet:
        bench = Bench(fleet, sizes, arguments.listed)
        each = {size: bench.batch(size, arguments.clones, report) for size in sizes}
    few = min((size for size in sizes if size > 1), default=sizes[0])
    report.goal(
        f"CPU time of the runner for a clone on {sizes[-1]} hosts / on {few}",
        each[sizes[-1]] / each[few],
        GOAL,
    )
    return report.show()


if __name__ == "__main__":
    raise SystemExit(main())
