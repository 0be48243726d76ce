"""Promises about cloud-init in guests: a clone never runs what its base was told."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from lab.common import wait_until
from lab.domain import Disk
from lab.lab import Lab
from saltext.kvmclone.errors import AddressTimeout
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.request import DiskChanges, Request, Secrets, Wait
from tests.support.seeds import (
    AT_BOOT,
    ONCE,
    boot_is_over,
    make_seed,
    seed_server,
    told,
    user_data,
    virsh,
)
from tests.support.world import World, quick

pytestmark = [pytest.mark.guest, pytest.mark.long]

GIB = 2**30
OFF = "power_state: {mode: poweroff, delay: now, timeout: 5}\n"
MAC = "52:54:00:00:05:05"


@pytest.fixture(scope="module")
def seeded(lab: Lab) -> Iterator[str]:
    """A base that its seed has set up, with a fixed address, and then switched off."""
    name = f"{lab.name}-seeded"
    network = f"""version: 2
ethernets:
  eth0:
    match: {{macaddress: "{MAC}"}}
    set-name: eth0
    addresses: [{fixed(lab)}/24]
"""
    # Not named like the base.
    seed = make_seed(lab.pool_path / "settings-7.img", user_data("base", OFF), network)
    lab.debian_base(name, cloud=True, more=[Disk(seed, "raw", device="cdrom")])
    xml = virsh("dumpxml", "--inactive", name)
    file = lab.folder / f"{name}.xml"
    file.write_text(xml.replace(xml.partition("<mac address='")[2][:17], MAC))
    virsh("define", str(file))
    lab.start(name)
    wait_until(lambda: "shut off" in virsh("domstate", name), "the base's own end", 900)
    yield name


def fixed(lab: Lab) -> str:
    return str(lab.subnet[5])


def created(host: LocalHost, request: Request, secrets: Secrets = Secrets()) -> Clone:
    outcome = provision.create(host, request, secrets)
    assert outcome.error is None
    assert outcome.clone is not None
    return outcome.clone


def booted_again(name: str) -> None:
    """Switch it off and on, and wait until everything that a boot starts has come to its end."""
    told(name, "sync")  # ext4 keeps what was written in memory for seconds
    virsh("destroy", name)
    virsh("start", name)
    wait_until(lambda: boot_is_over(name), f"the next boot of {name}", 600)


def facts(name: str) -> dict[str, str]:
    """What may not change by itself in a clone."""
    return {
        "ran once": told(name, f"cat {ONCE}"),
        "ran at each boot": told(name, f"cat {AT_BOOT}"),
        "password": told(name, "grep ^root: /etc/shadow"),
        "host key": told(name, "cat /etc/ssh/ssh_host_*_key.pub"),
        "name": told(name, "hostname"),
        "machine-id": told(name, "cat /etc/machine-id"),
    }


def test_a_clone_never_runs_what_its_base_was_told(
    world: World, host: LocalHost, lab: Lab, seeded: str
) -> None:
    name = world.name()
    request = quick(name, seeded, disks={"vda": DiskChanges(size=4 * GIB)})
    planned = host.plan(request)
    fates = {disk["target"]: (disk["action"], disk["reason"]) for disk in planned["disks"]}
    assert fates["sdb"][0] == "skip"
    assert "label 'cidata'" in fates["sdb"][1]

    clone = created(host, request)
    assert clone.warnings == ()
    assert clone.address != fixed(lab)
    assert f"{fixed(lab)}/" not in told(name, "ip -4 address; cat /etc/netplan/*")
    told(name, "echo root:changed | chpasswd; sync")
    before = facts(name)
    assert (before["ran once"], before["ran at each boot"]) == ("base", "base")
    assert int(told(name, "df --output=size -B1 / | tail -n 1")) > 3.5 * GIB
    assert "secret" not in told(name, "grep -rls the-password-of /var/lib/cloud /run/cloud-init")

    booted_again(name)
    started = time.monotonic()
    assert facts(name) == before
    result = json.loads(told(name, "cat /run/cloud-init/result.json"))["v1"]
    assert result["errors"] == []
    assert "Fallback" not in result["datasource"]
    wait_until(lambda: lab.lease(name), "an address at the next boot", 60)
    assert f"{fixed(lab)}/" not in told(name, "ip -4 address")
    # power_state of the base switches off within seconds of cloud-init's end.
    time.sleep(max(0.0, 15 - (time.monotonic() - started)))
    assert world.state(name) == "running"


def test_a_guest_without_a_network_is_told_of_the_seed_that_was_left_out(
    world: World, host: LocalHost
) -> None:
    seed = make_seed(world.lab.pool_path / f"settings-{world.token}.img", user_data("base"))
    drive = (
        f"<disk type='file' device='cdrom'><source file='{seed}'/>"
        "<target dev='sdz' bus='scsi'/></disk>"
    )
    base = world.base(options="tiny.nodhcp", devices=drive)
    outcome = provision.create(host, quick(world.name(), base, wait=Wait(timeout=3)))
    assert isinstance(outcome.error, AddressTimeout)
    assert "seed: {network_config" in outcome.error.hint


def test_a_seed_of_its_own_is_done_once(
    world: World, host: LocalHost, lab: Lab, seeded: str
) -> None:
    name = world.name()
    secrets = Secrets(seed=(("user-data", user_data("own")),))
    clone = created(host, quick(name, seeded, seed="own"), secrets)
    assert clone.warnings == ()
    assert clone.address != fixed(lab)
    seed = world.lab.pool_path / f"{name}-vdb.raw"
    assert seed.stat().st_mode & 0o777 == 0o600
    before = facts(name)
    assert before["ran once"] == "base\nown"
    assert before["ran at each boot"] == "base\nown"
    assert before["name"] == name
    assert told(name, "cat /var/lib/cloud/data/instance-id") == clone.uuid

    booted_again(name)
    after = facts(name)
    assert after.pop("ran at each boot") == "base\nown\nown"
    del before["ran at each boot"]
    assert after == before
    host.destroy(name)
    assert not seed.exists()


def numbered(lab: Lab, name: str, serial: str) -> None:
    """Give a machine a serial number of its board."""
    entry = f"<system><entry name='serial'>{serial}</entry></system>"
    xml = virsh("dumpxml", "--inactive", name)
    xml = xml.replace("<os>", f"<sysinfo type='smbios'>{entry}</sysinfo><os>", 1)
    file = lab.folder / f"{name}.xml"
    file.write_text(xml.replace("</os>", "<smbios mode='sysinfo'/></os>", 1))
    virsh("define", str(file))


def test_a_serial_number_that_names_cloud_inits_source_gives_a_clone_its_network(
    world: World, host: LocalHost, lab: Lab, seeded: str
) -> None:
    """Nobody resets this one: cloud-init, which is told that it is to run, sees to the new card."""
    plain = virsh("dumpxml", "--inactive", seeded)
    numbered(lab, seeded, "ds=nocloud")
    try:
        clone = created(host, quick(world.name(), seeded, reset_identity=False))
    finally:
        file = lab.folder / f"{seeded}.xml"
        file.write_text(plain)
        virsh("define", str(file))
    assert not any("seed is left out" in warning for warning in clone.warnings)
    assert clone.address not in ("", fixed(lab))
    wait_until(lambda: boot_is_over(clone.name), "the clone's first boot", 600)
    assert told(clone.name, f"cat {ONCE}") == "base"


@pytest.fixture
def served(lab: Lab, seeded: str) -> Iterator[str]:
    """The base asks a server for its seed from now on, by its uuid, as its serial number says."""
    plain = virsh("dumpxml", "--inactive", seeded)
    with seed_server(lab.gateway) as address:
        uuid = virsh("domuuid", seeded).strip()
        numbered(lab, seeded, f"ds=nocloud-net;s={address}/{uuid}/;h={seeded}")
        yield seeded
    file = lab.folder / f"{seeded}.xml"
    file.write_text(plain)
    virsh("define", str(file))


def test_a_clone_asks_the_server_of_its_base_as_itself(
    world: World, host: LocalHost, served: str
) -> None:
    name = world.name()
    clone = created(host, quick(name, served))
    (warning,) = clone.warnings
    assert "named the base, and names the clone now" in warning
    told_by_server = facts(name)
    assert told_by_server["ran once"].split() == ["base", f"of-{clone.uuid}"]
    assert told_by_server["name"] == name
    # By which cloud-init knows at the next boot that it has done all this.
    assert told(name, "cat /var/lib/cloud/data/instance-id") == f"of-{clone.uuid}"
