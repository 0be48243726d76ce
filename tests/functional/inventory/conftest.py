"""What tests of several files of this folder share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saltext.kvmclone.hosts.local import LocalHost
from tests.support.firmware_machines import (
    EFI,
    as_made_before,
    boot,
    everything,
)
from tests.support.world import World, quick


@pytest.fixture
def as_before(world: World) -> Iterator[None]:
    """What a test left in libvirt's own folders goes; a machine that is used has more there."""
    before = set(everything())
    yield
    world.tidy()
    for path in everything().keys() - before:
        Path(path).unlink()


@pytest.fixture
def efi(world: World) -> Callable[..., str]:
    """Makes a machine whose firmware libvirt chooses, and its variable store with that."""

    def make(name: str, devices: str = "", uuid: str = "", firmware: str = EFI) -> str:
        disk = world.lab.pool_path / f"{name}-disk-{world.token}.raw"
        disk.write_bytes(b"")
        with disk.open("r+b") as file:
            file.truncate(2**20)
        world.refresh()
        return world.lab.define(
            f"<domain type='qemu'><name>{name}</name>"
            + f"<uuid>{uuid}</uuid>" * bool(uuid)
            + f"<memory unit='MiB'>64</memory><os{firmware}>"
            "<type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>"
            f"<devices><disk type='file'><driver name='qemu' type='raw'/><source file='{disk}'/>"
            f"<target dev='vda' bus='virtio'/></disk>{devices}<memballoon model='none'/></devices>"
            "</domain>"
        )

    return make


@pytest.fixture
def firmware_base(world: World, efi: Callable[..., str]) -> str:
    made = efi(world.name("base"))
    boot(made)
    return made


@pytest.fixture
def old(world: World, host: LocalHost, firmware_base: str) -> Callable[..., str]:
    """Makes a clone of the version before, which was started once."""

    def make(word: str = "clone") -> str:
        name = world.name(word)
        host.clone(quick(name, firmware_base))
        as_made_before(world, name)
        boot(name)
        return name

    return make
