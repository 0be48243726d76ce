"""What the runner costs on many hosts: a batch of clones, their list, their destroy.

The hosts are namespaces of this machine, each with a libvirtd and a minion of its own
(``lab.fleet``); the clones stay off. All of them share the CPUs of this machine, so beside the time
there is the CPU time of the command itself: it is the runner's own, whatever the hosts do. What
``salt-run`` takes to start is subtracted from that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import time
from dataclasses import dataclass

from bench.table import Table
from lab.common import LabError
from lab.fleet import Fleet

BASE = "bench-base"

#: How much more CPU time the runner may take for a clone where it has most hosts.
GOAL = 1.5

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
    """A fleet whose hosts all have the base, and a profile for every number of them."""

    def __init__(self, fleet: Fleet, sizes: list[int]) -> None:
        self.fleet = fleet
        hosts = list(fleet.hosts)
        for host in fleet.hosts.values():
            host.tiny_base(BASE)
        for size in sizes:
            profile = f"on-{size}"
            provider = {"driver": "libvirt", "url": "qemu:///system", "hosts": hosts[:size]}
            fleet.salt.write_cloud("providers", f"{profile}.conf", {profile: provider})
            keys = {"provider": profile, "base_domain": BASE, "clone_strategy": "quick"}
            fleet.salt.write_cloud("profiles", f"{profile}.conf", {profile: keys})

    def batch(self, size: int, clones: int, report: Table) -> float:
        """Make, list and destroy clones on some of the hosts, and add a row.

        :param clones: Clones for each host.
        :return: The runner's own CPU time for each clone, in seconds.
        """
        number = size * clones
        names = f"b{size}x[1-{number}]"
        run = ("salt-run",)
        idle = statistics.median(measured(self.fleet, *run, "test.arg").cpu for _ in range(3))
        made = measured(self.fleet, *run, "kvmclone.create", f"on-{size}", names, "start=False")
        hosts = ",".join(list(self.fleet.hosts)[:size])
        lists, jobs = [], []
        for _ in range(3):
            lists.append(measured(self.fleet, *run, "kvmclone.list").time)
            jobs.append(measured(self.fleet, "salt", "-L", hosts, "kvm_clone.list_clones").time)
        listed, job = statistics.median(lists), statistics.median(jobs)
        gone = measured(self.fleet, *run, "kvmclone.destroy", names, "yes=True")
        each = (made.cpu - idle) / number
        destroyed = (gone.cpu - idle) / number
        row = (made.time / number, each, gone.time / number, destroyed)
        report.add(size, number, *(seconds * 1000 for seconds in row), listed, job)
        report.goal(
            f"The list of {number} clones / the Salt job on {size} hosts",
            listed / job,
            GOAL_OF_LIST,
        )
        return each


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 5, 50])
    parser.add_argument("--clones", type=int, default=10, help="for each host")
    arguments = parser.parse_args()
    report = Table(
        f"The runner on many hosts, {arguments.clones} clones on each",
        *("hosts", "clones", "create: ms each", "of it CPU of the runner", "destroy: ms each"),
        *("of it CPU of the runner", "list, s", "the Salt job, s"),
    )
    sizes = sorted(arguments.hosts)
    with Fleet(sizes[-1]) as fleet:
        bench = Bench(fleet, sizes)
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
