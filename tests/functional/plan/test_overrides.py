"""Promises about overrides: checked before anything is written, shown, and then done."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt
import pytest

from lab.common import run, wait_until
from lab.lab import connection
from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.request import DiskChanges, InterfaceChanges
from tests.support.world import Salt, World, full, image_info, quick, same_content

MIB = 2**20
GIB = 2**30


@pytest.fixture
def two_disks(world: World) -> str:
    """A base with a qcow2 and a raw disk of 64 MiB each, data in both."""
    base = world.base(disks=["qcow2", "raw"])
    world.filled(base, 1)
    words = ["qemu-io", "-f", "qcow2", "-c", "write -P 9 1M 3M", world.disks(base)[0]]
    subprocess.run(words, check=True, capture_output=True)
    return base


@pytest.fixture
def bridge(world: World) -> Iterator[str]:
    name = f"vk{world.token}"[:15]
    run(["ip", "link", "add", name, "type", "bridge"])
    yield name
    run(["ip", "link", "del", name])


@pytest.fixture
def idle_network(world: World) -> Iterator[str]:
    """A network that is defined and not started."""
    name = f"{world.lab.name}-idle-{world.token}"
    with connection() as conn:
        conn.networkDefineXML(f"<network><name>{name}</name></network>")
    yield name
    with connection() as conn:
        conn.networkLookupByName(name).undefine()


def refusals(world: World, host: LocalHost, base: str, **keys: Any) -> list[str]:
    """Why a request is refused; nothing is written by trying it."""
    request = quick(world.name(f"no{len(world.names)}"), base, **keys)
    before = world.footprint()
    with pytest.raises(PlanRefused) as info:
        host.clone(request)
    assert info.value.hint
    assert world.footprint() == before
    return list(host.plan(request)["conflicts"])


# --- disks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["quick", "full"])
def test_a_disk_grows_and_keeps_what_it_held(
    world: World, host: LocalHost, two_disks: str, strategy: str
) -> None:
    wishes = {"vda": DiskChanges(size=GIB), "vdb": DiskChanges(size=100 * MIB)}
    request = quick(world.name(), two_disks, clone_strategy=strategy, disks=wishes)
    changes = host.plan(request)["changes"]
    assert changes["disk vda size"] == {"old": 64 * MIB, "new": GIB}
    clone = host.clone(request)
    for disk, source, size in zip(
        clone.disks, world.disks(two_disks), (GIB, 100 * MIB), strict=True
    ):
        assert image_info(disk.path)["virtual-size"] == size
        assert image_info(disk.path)["actual-size"] < 8 * MIB
        assert same_content(source, disk.path)  # what is beyond the source reads as zeros
    record = world.record(clone.name)
    assert record is not None
    assert [volume.capacity for volume in record.volumes] == [GIB, 100 * MIB]


def test_a_flattened_chain_grows_too(world: World, host: LocalHost) -> None:
    base = world.base(chain=2)
    clone = host.clone(full(world.name(), base, disks={"vda": DiskChanges(size=GIB)}))
    info = image_info(clone.disks[0].path)
    assert info["virtual-size"] == GIB
    assert "backing-filename" not in info


def test_a_disk_grows_beyond_what_is_free_since_it_is_sparse(
    world: World, host: LocalHost, two_disks: str
) -> None:
    wishes = {target: DiskChanges(size=2**43) for target in ("vda", "vdb")}
    clone = host.clone(full(world.name(), two_disks, disks=wishes))
    assert [image_info(disk.path)["virtual-size"] for disk in clone.disks] == [2**43, 2**43]


def test_each_disk_is_cloned_in_its_own_way(
    world: World, host: LocalHost, two_disks: str, small_pool: str
) -> None:
    wishes = {"vda": DiskChanges(strategy="full"), "vdb": DiskChanges(pool=small_pool)}
    request = quick(world.name(), two_disks, disks=wishes)
    shown = {disk["target"]: disk for disk in host.plan(request)["disks"]}
    assert "profile says strategy full" in shown["vda"]["reason"]
    clone = host.clone(request)
    assert [disk.strategy for disk in clone.disks] == ["copy", "overlay"]
    assert "backing-filename" not in image_info(clone.disks[0].path)
    assert clone.disks[1].path.startswith(str(world.lab.folder / small_pool))
    host.destroy(clone.name)


def test_a_disk_can_be_left_out(world: World, host: LocalHost, two_disks: str) -> None:
    request = quick(world.name(), two_disks, disks={"vdb": DiskChanges(action="skip")})
    plan = host.plan(request)
    assert plan["changes"]["disk vdb"]["new"] is None
    assert plan["disks"][1]["action"] == "skip"
    host.clone(request)
    assert len(world.disks(request.name)) == 1


def test_a_medium_and_a_read_only_disk_can_have_their_own_copy(
    world: World, host: LocalHost
) -> None:
    base = world.base(cdrom=True)
    request = quick(world.name(), base, disks={"sdb": DiskChanges(action="clone")})
    clone = host.clone(request)
    medium = clone.disks[1]
    assert (medium.target, medium.strategy) == ("sdb", "copy")
    shared = world.lab.pool_path / "shared.iso"
    assert same_content(shared, medium.path)
    disk = world.xml(clone.name).find("./devices/disk[@device='cdrom']")
    assert disk is not None
    assert disk.find("readonly") is not None
    host.destroy(clone.name)
    assert shared.exists()
    assert not os.path.exists(medium.path)


def test_a_wish_that_cannot_be_fulfilled_is_refused_before_anything_is_written(
    world: World, host: LocalHost, two_disks: str
) -> None:
    cases = [
        ({"vda": DiskChanges(size=32 * MIB)}, ("32MiB", "64MiB")),
        ({"vdx": DiskChanges(action="skip")}, ("'vdx'", "vda, vdb")),
        ({"vda": DiskChanges(action="share")}, ("<shareable/>", "<readonly/>")),
        ({"vda": DiskChanges(action="skip", size=GIB)}, ("skip", "size")),
        ({"vda": DiskChanges(pool="no-such-pool")}, ("'no-such-pool'", "pool-list")),
    ]
    for wishes, words in cases:
        (said,) = refusals(world, host, two_disks, disks=wishes)
        assert all(word in said for word in words), said


def test_all_wishes_that_cannot_be_fulfilled_are_named_at_once(
    world: World, host: LocalHost, two_disks: str
) -> None:
    found = refusals(
        world,
        host,
        two_disks,
        disks={"vda": DiskChanges(size=MIB), "vdz": DiskChanges(pool="x")},
        networks=(InterfaceChanges(network="none"),),
    )
    assert len(found) == 3


def test_a_disk_is_known_by_what_the_base_knows_it_by_or_the_profile_asks_for(
    world: World, host: LocalHost
) -> None:
    drives = "".join(
        f"<disk type='file' device='cdrom'><target dev='{target}' bus='{bus}'/><readonly/>"
        f"{inside}</disk>"
        for target, bus, inside in (
            ("sdx", "scsi", "<vendor>ACME</vendor><product>Reader</product>"),
            ("sdy", "scsi", "<wwn>5000c50015ea71ac</wwn><alias name='ua-mine'/>"),
            ("sdz", "sata", "<serial>kept</serial>"),
        )
    )
    base = world.base(disks=2, devices=drives)
    wishes = {
        "vdb": DiskChanges(serial="data"),
        "sdx": DiskChanges(serial="s" * 36, wwn="5000c50015ea71ad"),
    }
    request = quick(world.name(), base, disks=wishes)
    plan = host.plan(request)
    assert plan["warnings"] == []
    assert plan["changes"]["disk vdb serial"] == {"old": "disk-1", "new": "data"}
    host.clone(request)
    disks = {
        disk.find("target").get("dev"): [disk.findtext(tag) for tag in ("serial", "wwn", "vendor")]
        for disk in world.xml(request.name).findall("./devices/disk")
    }
    assert disks == {
        "vda": ["disk-0", None, None],
        "vdb": ["data", None, None],
        "sdx": ["s" * 36, "5000c50015ea71ad", "ACME"],
        "sdy": [None, "5000c50015ea71ac", None],
        "sdz": ["kept", None, None],
    }
    assert world.xml(request.name).find("./devices/disk/alias[@name='ua-mine']") is not None

    (said,) = refusals(world, host, base, disks={"vdb": DiskChanges(serial="disk-0")})
    assert "one serial number, 'disk-0'" in said


# --- networks ------------------------------------------------------------------------------------


def test_what_the_machine_type_cannot_have_is_known_beforehand(
    world: World, host: LocalHost, two_disks: str
) -> None:
    before = world.footprint()
    (reason,) = host.plan(quick(world.name("no"), two_disks, cpus=4096))["conflicts"]
    assert "a machine of the base's type can have" in reason
    assert "the host has" in host.plan(quick(world.name(), two_disks, memory=2**50))["warnings"][0]
    assert world.footprint() == before


def test_networks_replace_in_order_and_add_the_rest(
    world: World, host: LocalHost, bridge: str
) -> None:
    base = world.base()
    mac = f"52:54:00:{os.urandom(1).hex()}:{os.urandom(1).hex()}:01"
    wishes = (
        InterfaceChanges(bridge=bridge),
        InterfaceChanges(network=world.lab.network, model="e1000e", mac=mac),
    )
    request = quick(world.name(), base, networks=wishes)
    changes = host.plan(request)["changes"]
    assert changes["interface 0"]["new"] == f"bridge {bridge}"
    assert changes["interface 1 mac"]["new"] == mac
    host.clone(request)
    cards = world.xml(request.name).findall("./devices/interface")
    assert [card.get("type") for card in cards] == ["bridge", "network"]
    assert cards[0].find("source").attrib == {"bridge": bridge}
    assert cards[0].find("model").get("type") == "virtio"
    assert cards[1].find("mac").get("address") == mac
    assert cards[1].find("model").get("type") == "e1000e"

    (said,) = refusals(world, host, base, networks=wishes)
    assert f"'{request.name}' already" in said


def test_nothing_of_the_old_connection_is_left(world: World, host: LocalHost, bridge: str) -> None:
    base = world.base(
        interfaces=0,
        devices="<interface type='direct'><source dev='lo' mode='bridge'/>"
        "<virtualport type='802.1Qbh'><parameters profileid='finance'/></virtualport>"
        "<target dev='macvtap99'/><model type='virtio'/></interface>"
        f"<interface type='network'><source network='{world.lab.network}'/>"
        "<filterref filter='clean-traffic'><parameter name='IP' value='10.9.8.7'/></filterref>"
        "<model type='virtio'/></interface>",
    )
    clone = host.clone(quick(world.name(), base, networks=(InterfaceChanges(bridge=bridge),)))
    text = world.secure_xml(clone.name)
    for stale in ("802.1Qbh", "finance", "macvtap99", "10.9.8.7"):
        assert stale not in text
    assert "clean-traffic" in text  # the second interface keeps its filter, without the address


@pytest.fixture
def grouped_network(world: World) -> Iterator[str]:
    """A network with two portgroups, that leads nowhere."""
    name = f"{world.lab.name}-groups-{world.token}"
    with connection() as conn:
        conn.networkCreateXML(
            f"<network><name>{name}</name><portgroup name='red'/><portgroup name='blue'/></network>"
        )
    yield name
    with connection() as conn:
        conn.networkLookupByName(name).destroy()


def test_an_entry_changes_only_what_it_names(
    world: World, host: LocalHost, grouped_network: str
) -> None:
    mac = f"52:54:00:{os.urandom(1).hex()}:{os.urandom(1).hex()}:02"
    base = world.base(
        interfaces=0,
        options="tiny.nodhcp",
        devices="<interface type='network'>"
        f"<source network='{grouped_network}' portgroup='red'/><bandwidth><inbound average='1000'/>"
        "</bandwidth><model type='virtio'/><driver name='qemu' queues='2'/>"
        "<filterref filter='clean-traffic'><parameter name='CTRL_IP_LEARNING' value='none'/>"
        "<parameter name='IP' value='10.9.8.7'/></filterref><link state='down'/>"
        "<mtu size='1400'/><port isolated='yes'/></interface>"
        f"<interface type='network'><source network='{grouped_network}'/><model type='e1000'/>"
        "</interface>",
    )
    wishes = (
        InterfaceChanges(network=grouped_network),
        InterfaceChanges(mac=mac, portgroup="blue"),
    )
    request = quick(world.name(), base, networks=wishes)
    assert set(host.plan(request)["changes"]) >= {
        "interface 0 filter IP",
        "interface 0 filter CTRL_IP_LEARNING",
        "interface 1 portgroup",
    }
    host.clone(request)
    before, after = (
        world.xml(name).findall("./devices/interface") for name in (base, request.name)
    )
    for tag in ("source", "bandwidth", "model", "driver", "link", "mtu", "port", "address"):
        one, other = (ElementTree.tostring(cards[0].find(tag)) for cards in (before, after))
        assert one == other
    parameters = after[0].findall("./filterref[@filter='clean-traffic']/parameter")
    assert [p.attrib for p in parameters] == [{"name": "CTRL_IP_LEARNING", "value": "dhcp"}]
    assert after[1].find("source").get("portgroup") == "blue"
    assert after[1].find("mac").get("address") == mac
    assert after[1].find("model").get("type") == "e1000"


@pytest.mark.guest
def test_a_clone_whose_filter_lost_the_address_of_its_base_starts(
    world: World, host: LocalHost
) -> None:
    """libvirt starts no machine whose filter neither has an address nor may learn one."""
    base = world.base(
        interfaces=0,
        devices=f"<interface type='network'><source network='{world.lab.network}'/>"
        "<model type='virtio'/><filterref filter='clean-traffic'>"
        "<parameter name='CTRL_IP_LEARNING' value='none'/><parameter name='IP' value='10.9.8.7'/>"
        "</filterref></interface>",
    )
    name = world.name()
    outcome = provision.create(host, quick(name, base))
    assert outcome.error is None
    assert outcome.clone is not None
    assert outcome.clone.address == world.lab.lease(name)


def test_a_network_that_cannot_be_is_refused(
    world: World, host: LocalHost, base: str, idle_network: str
) -> None:
    cases = [
        (InterfaceChanges(network="no-such-network"), "net-list --all"),
        (InterfaceChanges(network=idle_network), f"net-start {idle_network}"),
        (InterfaceChanges(bridge="no-such-bridge"), "no bridge"),
        (InterfaceChanges(bridge="lo"), "not a Linux bridge"),
        (InterfaceChanges(network=world.lab.network, mac="53:54:00:00:00:01"), "multicast"),
        (InterfaceChanges(network=world.lab.network, portgroup="red"), "no portgroup 'red'"),
        (InterfaceChanges(portgroup="red"), "no portgroup 'red'"),
        (InterfaceChanges(mac=_own_address(world)), f"the host's {world.lab.bridge}"),
    ]
    for wish, word in cases:
        (said,) = refusals(world, host, base, networks=(wish,))
        assert word in said


def _own_address(world: World) -> str:
    """The MAC address of the lab's bridge."""
    return Path(f"/sys/class/net/{world.lab.bridge}/address").read_text(encoding="ascii").strip()


@pytest.mark.guest
def test_an_address_that_only_a_running_machine_has_is_taken(
    world: World, host: LocalHost, base: str
) -> None:
    """Its card was plugged in live, or its definition was edited while it runs."""
    other = world.base("other")
    with connection() as conn:
        conn.lookupByName(other).createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    mac = world.xml(other, live=True).find("./devices/interface/mac")
    definition = world.xml(other)
    edited = definition.find("./devices/interface/mac")
    assert mac is not None
    assert edited is not None
    edited.set("address", "52:54:00:0e:d1:7d")
    with connection() as conn:
        conn.defineXML(ElementTree.tostring(definition, encoding="unicode"))
    for taken in (mac.attrib["address"], "52:54:00:0e:d1:7d"):
        wish = InterfaceChanges(network=world.lab.network, mac=taken)
        (said,) = refusals(world, host, base, networks=(wish,))
        assert f"belongs to '{other}' already" in said


# --- from the keys that a user writes ------------------------------------------------------------


def test_a_user_writes_overrides_as_keys(world: World, salt_minion: Salt) -> None:
    base = world.base(disks=2)
    name = world.name()
    keys = {
        "base_domain": base,
        "clone_strategy": "quick",
        "cpus": 2,
        "memory": "192MiB",
        "disks": {"vda": {"size": "96MiB", "strategy": "full"}, "vdb": {"action": "skip"}},
        "networks": [{"network": world.lab.network}, {"network": world.lab.network}],
        "description": "made by hand",
        "tags": ["a"],
        "autostart": True,
    }
    plan = salt_minion("kvm_clone.plan", name, **keys)
    assert plan["conflicts"] == []
    assert plan["changes"]["cpus"] == {"old": 1, "new": 2}
    assert plan["changes"]["memory"]["new"] == 192 * MIB
    assert plan["changes"]["disk vda size"]["new"] == 96 * MIB
    assert plan["changes"]["tags"] == {"old": [], "new": ["a"]}
    assert plan["changes"]["autostart"]["new"] is True
    clone = salt_minion("kvm_clone.create", name, start=False, **keys)
    assert [disk["strategy"] for disk in clone["disks"]] == ["copy"]
    assert world.autostart(name)
    assert len(world.xml(name).findall("./devices/interface")) == 2


# --- seen from inside ----------------------------------------------------------------------------


@pytest.mark.guest
def test_the_guest_sees_its_larger_disk_and_its_memory(world: World, host: LocalHost) -> None:
    base = world.base(options="tiny.look")
    name = world.name()
    size = image_info(world.disks(base)[0])["virtual-size"] + GIB
    request = quick(
        name,
        base,
        memory=192 * MIB,
        cpus=2,
        disks={"vda": DiskChanges(size=size)},
        networks=(
            InterfaceChanges(network=world.lab.network),
            InterfaceChanges(network=world.lab.network),
        ),
    )
    outcome = provision.create(host, request)
    assert outcome.error is None
    seen = wait_until(
        lambda: re.search("TINY-SEES (.*)", world.lab.console(name)), "what the guest sees", 60
    )
    sectors, memory, processors, cards = map(int, seen[1].split())
    assert sectors * 512 == size
    assert 128 * 1024 < memory < 192 * 1024
    assert processors == 2
    assert cards == 2
