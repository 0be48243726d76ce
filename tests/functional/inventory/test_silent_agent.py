"""An address alone is no booted machine: what is said of a guest whose agent is silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.common import run, wait_until
from lab.lab import Lab, connection
from saltext.kvmclone.errors import ChannelError
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.record import Record
from saltext.kvmclone.model.request import Deploy, DiskChanges, Wait
from tests.support.debian_guests import enrolment
from tests.support.world import World, quick

pytestmark = pytest.mark.guest


def made(host: LocalHost, name: str, base: str, **keys: object) -> Clone:
    outcome = provision.create(host, quick(name, base, wait=Wait(timeout=240), **keys))
    assert outcome.error is None
    assert outcome.clone is not None
    assert outcome.clone.stage == "addressed"
    return outcome.clone


def doubts(clone: Clone) -> list[str]:
    return [warning for warning in clone.warnings if "may not have come up" in warning]


def record_of(world: World, name: str) -> Record:
    record = world.record(name)
    assert record is not None
    return record


# --- a guest that nobody speaks for --------------------------------------------------------------


def test_a_guest_whose_agent_never_connects_may_not_have_come_up(
    world: World, host: LocalHost
) -> None:
    base = world.base(agent=True)
    clone = made(host, name := world.name(), base)
    (doubt,) = doubts(clone)
    assert f"virsh -c {host.url} console {name}" in doubt
    assert "ssh -t kvm01 " in doubt
    assert any("its guest agent did not answer" in warning for warning in clone.warnings)
    assert doubts(host.show(name)) == [doubt]
    assert doubts(next(one for one in host.list_clones() if one.name == name)) == [doubt]
    with pytest.raises(ChannelError, match="may not have come up") as caught:
        request = quick(name, base, deploy=Deploy(bootstrap="agent"), reset_identity=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("saltext.kvmclone.lifecycle.bootstrap.AGENT_CONNECT_TIMEOUT_S", 1.0)
            host.bootstrap(request, enrolment(name))
    assert "console" in caught.value.hint

    off = host.power(name, "off")
    (doubt,) = doubts(off)
    assert f"virsh -c {host.url} start {name} --console" in doubt


def test_it_is_said_also_where_the_identity_is_kept(world: World, host: LocalHost) -> None:
    clone = made(host, world.name(), world.base(agent=True), reset_identity=False)
    assert len(clone.warnings) == len(doubts(clone)) == 1


def test_a_guest_without_a_channel_for_an_agent_is_not_doubted(
    world: World, host: LocalHost, base: str
) -> None:
    (warning,) = made(host, world.name(), base).warnings
    assert "its definition has no channel for a guest agent" in warning


# --- a guest that mounts what it finds by a serial number -----------------------------------------


@pytest.fixture(scope="module")
def mounting(lab: Lab) -> str:
    """A Debian that mounts the disk with the serial number ``data0``, or does not come up."""
    data = lab.pool_path / "mounted-data.raw"
    run(["mke2fs", "-q", "-t", "ext4", data, "32M"])
    with connection() as conn:
        conn.storagePoolLookupByName(lab.pool).refresh()

    def mounts(root: Path) -> None:
        with (root / "etc/fstab").open("a", encoding="ascii") as table:
            table.write("/dev/disk/by-id/virtio-data0 /srv ext4 x-systemd.device-timeout=15s 0 0\n")

    return lab.debian_base(
        f"{lab.name}-mounting",
        change=mounts,
        devices=f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source "
        f"file='{data}'/><target dev='vdb' bus='virtio'/><serial>data0</serial></disk>",
    )


def test_a_guest_finds_its_file_system_by_the_serial_number(
    world: World, host: LocalHost, mounting: str
) -> None:
    clone = made(host, name := world.name(), mounting)
    assert doubts(clone) == []
    assert not any("identity" in warning for warning in clone.warnings)
    assert record_of(world, name).agent == ""
    assert _mounted(world, name) == "/dev/vdb"


def test_a_guest_in_emergency_mode_is_doubted_until_its_agent_answers(
    world: World, host: LocalHost, mounting: str
) -> None:
    name = world.name()
    clone = made(host, name, mounting, disks={"vdb": DiskChanges(serial="other")})
    assert clone.address
    (doubt,) = doubts(clone)
    wait_until(lambda: "emergency mode" in world.lab.console(name), "emergency mode", 120)
    assert doubts(host.show(name)) == [doubt]

    _set_serial(world, name, "data0")
    host.power(name, "off")
    assert doubts(host.power(name, "start"))
    world.lab.wait_for_agent(name)
    assert doubts(host.show(name)) == []
    assert record_of(world, name).agent == "silent", "a look changes nothing"
    assert doubts(host.power(name, "stop")) == []
    assert record_of(world, name).agent == ""
    assert doubts(host.show(name)) == []


def _set_serial(world: World, name: str, serial: str) -> None:
    xml = world.secure_xml(name)
    with connection() as conn:
        conn.defineXML(xml.replace("<serial>other</serial>", f"<serial>{serial}</serial>"))
    texts = [element.text for element in world.xml(name).findall("./devices/disk/serial")]
    assert serial in texts


def _mounted(world: World, name: str) -> str:
    """The device that is mounted on /srv, as the guest's own kernel tells it."""
    found = wait_until(
        lambda: world.lab.agent(name, "guest-get-fsinfo"), "the file systems of the guest", 60
    )
    return next(f"/dev/{one['name']}" for one in found if one["mountpoint"] == "/srv")
