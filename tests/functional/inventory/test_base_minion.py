"""Whether a base has a minion is read from its disk on a real libvirtd, however that is kept."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.base_minion import BaseMinion
from saltext.kvmclone.model.request import DiskChanges
from tests.support.world import World, quick

ROOT = ("etc/passwd", "usr/bin/env")
MINION = ("usr/lib/systemd/system/salt-minion.service", "etc/salt/pki/minion/minion.pem")


@pytest.fixture(params=["host", "far_host"])
def either(request: pytest.FixtureRequest) -> LocalHost:
    """The host, with its files at hand and out of reach."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, LocalHost)
    return found


def installed(world: World, path: Path, *files: str) -> str:
    """A base with these files on its disk, which is a qcow2."""
    for file in files:
        (path / "files" / file).parent.mkdir(parents=True, exist_ok=True)
        (path / "files" / file).write_text("x")
    base = world.base()
    words = ["mke2fs", "-q", "-t", "ext4", "-d", path / "files", path / "raw", "32M"]
    subprocess.run(words, check=True, capture_output=True)
    target = world.disks(base)[0]
    words = ["qemu-img", "convert", "-O", "qcow2", path / "raw", target]
    subprocess.run(words, check=True, capture_output=True)
    world.refresh()
    return base


@pytest.mark.parametrize(
    ("files", "found"),
    [(ROOT, BaseMinion(False, False)), ((*ROOT, *MINION), BaseMinion(True, True))],
)
def test_a_base_shows_its_minion_and_so_does_a_clone_of_it(
    world: World, either: LocalHost, tmp_path: Path, files: tuple[str, ...], found: BaseMinion
) -> None:
    base = installed(world, tmp_path, *files)
    before = world.footprint()
    assert either.base_minion(quick("any", base)) == found
    assert world.footprint() == before
    clone = world.name("clone")
    either.clone(quick(clone, base))
    assert either.base_minion(quick("any", clone)) == found


def test_a_disk_that_the_clone_will_not_have_and_a_base_that_is_gone_show_nothing(
    world: World, host: LocalHost, tmp_path: Path
) -> None:
    base = installed(world, tmp_path, *ROOT)
    without = quick("any", base, disks={"vda": DiskChanges(action="skip")})
    assert host.base_minion(without) == BaseMinion()
    assert host.base_minion(quick("any", "there-is-none")) == BaseMinion()


def test_of_a_disk_without_a_system_nothing_is_known(world: World, host: LocalHost) -> None:
    assert host.base_minion(quick("any", world.base())) == BaseMinion()
