"""A master, the minion of a KVM host and a Debian base, for what is measured with real guests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.table import milliseconds
from lab.common import PASSWORD, LabError
from lab.lab import Lab
from lab.salt import Answer, SaltWorld

BASE = "bench-base"


@contextmanager
def debian_world(lab: Lab) -> Iterator[SaltWorld]:
    """Make the base, and start a master with ``kvm01`` for the block."""
    lab.debian_base(BASE)
    folder = lab.folder / "salt"
    with SaltWorld(folder, address=lab.gateway, owner=lab.name, preloads=False, keysize=0) as world:
        provider = {"driver": "libvirt", "url": "qemu:///system", "host": "kvm01"}
        world.write_cloud("providers", "kvm.conf", {"kvm": provider})
        world.add_minion("kvm01")
        yield world


def write_profile(world: SaltWorld, name: str, **keys: Any) -> None:
    """Write a profile of quick clones of the base.

    :param keys: Other keys, or other values.
    """
    profile = {
        "provider": "kvm",
        "base_domain": BASE,
        "clone_strategy": "quick",
        "password": PASSWORD,
        "minion": {"master": world.address, "master_port": world.ret_port},
    }
    world.write_cloud("profiles", f"{name}.conf", {name: {**profile, **keys}})


def created(world: SaltWorld, profile: str, name: str) -> tuple[float, dict[str, float]]:
    """Make and destroy a clone, and measure the create.

    :return: Seconds until ``salt-run kvmclone.create`` returned, and its stages' timings in
        seconds.
    :raises LabError: The create failed.
    """
    answers: list[Answer] = []
    elapsed = milliseconds(lambda: answers.append(world.run("kvmclone.create", profile, name)))
    made = answers[0]
    if made.retcode:
        raise LabError(f"the create failed: {made.stdout}{made.stderr}")
    world.run("kvmclone.destroy", name)
    return elapsed / 1000, made.data["clones"][name]["timings"]
