"""Volumes that are half made, or that libvirt is still writing, are told and waited for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.common import wait_until
from lab.lab import connection
from saltext.kvmclone.errors import HostError
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor import unfinished_volumes, volumes
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.record import MAKING, Volume
from tests.support.disk_cases import file_xml, img
from tests.support.storage import MIB
from tests.support.world import World, quick, same_content

pytestmark = pytest.mark.slow


@pytest.mark.slow
def test_a_half_made_volume_is_told_from_somebody_elses_file(world: World, host: LocalHost) -> None:
    def being_made(path: Path, form: str, strategy: str) -> Volume:
        return Volume("vda", str(path), form, strategy, MAKING, 64 * MIB)

    made, other = (world.lab.pool_path / f"{word}-{world.token}.x" for word in ("made", "other"))
    img("create", "-f", "qcow2", made, "64M")
    img("create", "-f", "qcow2", other, "32M")
    with Host(host.url) as connected:
        assert unfinished_volumes.resembles(connected, being_made(made, "qcow2", "overlay"))
        assert not unfinished_volumes.resembles(connected, being_made(other, "qcow2", "overlay"))
        # A copy has its source's size until it is grown at the very end.
        assert unfinished_volumes.resembles(connected, being_made(other, "qcow2", "copy"))
        other.write_bytes(b"\0" * 65 * MIB)
        assert not unfinished_volumes.resembles(connected, being_made(other, "qcow2", "copy"))
        assert not unfinished_volumes.resembles(connected, being_made(other, "raw", "copy"))
        os.truncate(other, 10 * MIB)
        # Marked as made before the first byte is filled in: what holds data is no work of ours.
        assert not unfinished_volumes.resembles(connected, being_made(other, "raw", "copy"))
        os.truncate(other, 0)
        os.truncate(other, 10 * MIB)
        assert unfinished_volumes.resembles(connected, being_made(other, "raw", "copy"))
        other.unlink()
        assert not unfinished_volumes.resembles(connected, being_made(other, "raw", "copy"))


@pytest.fixture
def being_made(world: World) -> Iterator[Path]:
    """A volume that libvirt is still filling for somebody else."""
    source, made = (world.lab.pool_path / f"{word}-{world.token}.raw" for word in ("big", "made"))
    with source.open("wb") as file:
        for _ in range(400):
            file.write(os.urandom(MIB))
    world.refresh()

    def make() -> None:
        with connection() as conn:
            conn.storagePoolLookupByName(world.lab.pool).createXMLFrom(
                f"<volume><name>{made.name}</name><capacity>1</capacity><allocation>0</allocation>"
                "<target><format type='raw'/></target></volume>",
                conn.storageVolLookupByPath(str(source)),
            )

    maker = threading.Thread(target=make)
    maker.start()
    wait_until(made.exists, "the volume", 10, interval=0.001)
    yield made
    maker.join()


def test_a_delete_waits_until_libvirt_has_finished_writing(
    host: LocalHost, being_made: Path
) -> None:
    with Host(host.url) as connected:
        assert volumes.delete(connected, str(being_made))
        assert not being_made.exists()


def test_a_look_at_a_pool_waits_until_libvirt_has_finished_writing(
    world: World, host: LocalHost, being_made: Path
) -> None:
    with Host(host.url) as connected:
        assert volumes.refresh_folder(connected, str(world.lab.pool_path))


def test_a_file_that_libvirt_has_not_noticed_is_cloned_while_it_is_busy(
    world: World, host: LocalHost, being_made: Path
) -> None:
    path = world.lab.pool_path / f"new-{world.token}.raw"
    path.write_bytes(os.urandom(MIB))
    clone = host.clone(quick(world.name(), world.base(devices=file_xml(path))))
    assert same_content(path, clone.disks[1].path)


def test_a_delete_does_not_wait_for_ever(
    world: World, host: LocalHost, being_made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes, "VOLUME_BUSY_TIMEOUT_S", 0)
    with Host(host.url) as connected:
        with pytest.raises(HostError, match="still writing") as info:
            volumes.delete(connected, str(being_made))
        assert info.value.hint
        assert being_made.exists()
