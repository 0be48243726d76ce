"""Salt 3006's own libvirt driver against this project, on one machine, in one run.

The same master (Salt 3006), base, files and deploy script; a quick clone; from the command to
the first answer to ``test.version``. In turns: Salt's own driver by ``salt-cloud``, ours by
``salt-cloud`` and by ``salt-run kvmclone.create``, and ours forced to use ssh as Salt's does
(by default it uses the guest's agent). The results must look the same: a minion that answers,
and the same events on the bus. Most of every figure is the guest's own: its boot and the start
of its minion, which ``bench.first_answer`` measures alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.table import Table
from lab.common import CACHE, CHECKOUT, PASSWORD, LabError
from lab.demo import DEPLOY_SCRIPT
from lab.ear import Ear
from lab.lab import Lab, connection
from lab.salt import Answer, SaltWorld

BASE = "bench-centos7"
LINE = "3006"
#: The ways that are measured, as the table names them.
THEIRS, OURS = "Salt 3006, salt-cloud -p", "ours, salt-cloud -p"
RUNNER, SSH = "ours, salt-run kvmclone.create", "ours, salt-run, over ssh"
#: The share of the time of Salt's own driver that ours may take.
GOAL = 0.4


def world(lab: Lab, name: str, modules: tuple[Path, ...], over: str = "") -> SaltWorld:
    """Return a master of Salt 3006 with the documented provider and profile.

    :param modules: Its ``module_dirs``; empty for Salt's own driver.
    :param over: The profile's ``bootstrap``; empty for the default.
    """
    made = SaltWorld(
        lab.folder / name,
        address=lab.gateway,
        owner=lab.name,
        venv=CACHE / f"venv-{LINE}",
        modules=modules,
        preloads=False,
        keysize=0,
    )
    made.write_cloud(
        "providers", "kvm.conf", {"local-kvm": {"driver": "libvirt", "url": "qemu:///system"}}
    )
    profile = {
        "provider": "local-kvm",
        "base_domain": BASE,
        "ip_source": "ip-learning",
        "clone_strategy": "quick",
        "ssh_username": "root",
        "password": PASSWORD,
        "script": "place-and-start",
        "grains": {"clones-are-awesome": True},
        "minion": {"master": made.address, "master_port": made.ret_port},
    }
    if over:
        profile["bootstrap"] = over
    made.write_cloud("profiles", "centos7.conf", {"centos7": profile})
    made.write_cloud("deploy", "place-and-start.sh", DEPLOY_SCRIPT)
    return made


def until_answered(salt: SaltWorld, command: list[str], name: str) -> tuple[float, float, Answer]:
    """Run a command, and wait until the new minion answers ``test.version``.

    :return: Seconds until the command returned, seconds until the minion answered, the answer.
    :raises LabError: The command failed, or the minion never answered.
    """
    started = time.monotonic()
    answer = salt.execute(command)
    returned = time.monotonic() - started
    if answer.retcode:
        raise LabError(f"{command} failed: {answer}")
    deadline = started + 600
    while salt.salt(name, "test.version", timeout=5).retcode:
        if time.monotonic() > deadline:
            raise LabError(f"{name} never answered: {answer}")
    return returned, time.monotonic() - started, answer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1)
    rounds = parser.parse_args(sys.argv[1:]).rounds
    times: dict[str, list[float]] = {}
    words: dict[str, list[str]] = {}
    with Lab() as lab:
        lab.debian_base(BASE)
        with connection() as libvirtd:  # Salt's driver finds only volumes that libvirt knows of
            libvirtd.storagePoolLookupByName(lab.pool).refresh()
        print(f"\nfrom the command to test.version, {rounds} rounds in turns, seconds\n")
        for number in range(rounds):
            for way, label in enumerate((THEIRS, OURS, RUNNER, SSH)):
                name = f"bench-{number}-{way}"
                modules = () if label == THEIRS else (CHECKOUT,)
                over = "ssh" if label == SSH else ""
                with world(lab, f"salt-{name}", modules, over) as salt, Ear(salt) as ear:
                    how = ["salt-cloud", "--out=json", "-l", "error", "-p"]
                    if label in (RUNNER, SSH):
                        how = ["salt-run", "--out=json", "-l", "error", "kvmclone.create"]
                    command = salt.command(how[0], *how[1:], "centos7", name)
                    returned, answered, _answer = until_answered(salt, command, name)
                    times.setdefault(label, []).append(answered)
                    print(f"  {label:<32}{answered:6.1f}   (returned after {returned:.1f})")
                    if label in (RUNNER, SSH):
                        gone = salt.run("kvmclone.destroy", name)
                    else:
                        gone = salt.cloud("-d", "-y", name)
                        words[label] = ear.words(name, "destroyed")
                        for word, data in ear.about(name):
                            print(f"      {word}: {sorted(data)} {sorted(data.get('kwargs', {}))}")
                    if gone.retcode:
                        raise LabError(f"{name} could not be destroyed: {gone}")
                    with connection() as libvirtd:
                        if name in [domain.name() for domain in libvirtd.listAllDomains()]:
                            raise LabError(f"{name} is still there")
    return _report(rounds, times, words)


def _report(
    rounds: int, times: Mapping[str, Sequence[float]], words: Mapping[str, Sequence[str]]
) -> int:
    """Print what was measured of each way; return 1 where a goal was missed."""
    medians = {label: statistics.median(taken) for label, taken in times.items()}
    report = Table(
        f"From the command to test.version, median of {rounds} rounds in turns, s",
        *("way", "s", "/ Salt's own driver"),
    )
    for label, median in medians.items():
        report.add(label, median, f"{median / medians[THEIRS]:.2f}")
    for label in (OURS, RUNNER):
        report.goal(f"{label} / Salt's own driver", medians[label] / medians[THEIRS], GOAL)
    same = words[THEIRS] == words[OURS]
    print(f"\nevents: {' '.join(words[THEIRS])}\nours:   {' '.join(words[OURS])}")
    print(f"goal: the same events in the same order. {'Held' if same else 'MISSED'}.")
    return report.show() or int(not same)


if __name__ == "__main__":
    sys.exit(main())
