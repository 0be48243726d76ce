"""What warnings and findings say is typed in the state in which they are given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import libvirt
import pytest

from lab.bridge import Bridge
from lab.common import run
from lab.lab import Lab, connection
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import silent_agent, surroundings
from saltext.kvmclone.model import domain_xml
from tests.support import hint_readers
from tests.support.edited_definitions import rewrite
from tests.support.hints import Typist, tries
from tests.support.networks import network
from tests.support.open_images import open_in_a_tool
from tests.support.world import CloneOf, World, quick

pytestmark = pytest.mark.slow

MAC = "52:54:00:00:00:07"

host = hint_readers.host
connected = hint_readers.connected


def findings(host: LocalHost, kind: str) -> list[dict[str, str]]:
    return [one for one in host.doctor() if one["kind"] == kind]


@tries("base_changes.being_written")
def test_a_base_that_somebody_has_open(
    world: World, host: LocalHost, base: str, clone_of: CloneOf, typist: Typist
) -> None:
    clone_of(base)
    with open_in_a_tool(world.disks(base)[0]):
        (found,) = findings(host, "base-changed")
        typist(found["message"])
    assert findings(host, "base-changed") == []


@tries("doctor._Examination._duplicate_macs")
def test_two_machines_with_one_mac_address(
    world: World, host: LocalHost, base: str, clone_of: CloneOf, typist: Typist
) -> None:
    name = clone_of(base)
    mac = world.xml(base).find("./devices/interface/mac")
    assert mac is not None

    def same(root: ElementTree.Element) -> None:
        own = root.find("./devices/interface/mac")
        assert own is not None
        own.set("address", mac.attrib["address"])

    rewrite(name, same)
    (found,) = findings(host, "duplicate-mac")
    typist.edit(found["hint"], r"/<mac address=/d")
    assert findings(host, "duplicate-mac") == []


@tries("shared_stores.find")
def test_a_variable_store_of_two_machines(world: World, host: LocalHost, typist: Typist) -> None:
    base, name = world.base(uefi=True), world.name()
    host.clone(quick(name, base))
    store = world.xml(name).findtext("./os/nvram")
    theirs = world.xml(base).findtext("./os/nvram")
    assert store
    assert theirs

    def shared(root: ElementTree.Element) -> None:
        element = root.find("./os/nvram")
        assert element is not None
        element.text = theirs

    rewrite(name, shared)
    (found,) = findings(host, "nvram-shared")
    typist.edit(found["hint"], f"s#{theirs}<#{store}<#")
    assert findings(host, "nvram-shared") == []


@tries("host_findings._addresses", "host_findings._bridges", "host_findings._daemon")
def test_what_surrounds_clones(
    lab: Lab, world: World, host: LocalHost, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two addresses, one of them promised; a bridge with the kernel's own delay; a slow daemon."""
    with network(lab.name, first=7, last=8) as small, Bridge() as bridge:
        host.clone(quick(world.name(), world.base(devices=small.interface_xml)))
        assert findings(host, "dhcp-range-full") == [], "two of two are left"
        small.update(libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, MAC, small.address(7), 0)
        (found,) = findings(host, "dhcp-range-full")
        assert found["name"] == small.name
        typist(found["hint"])

        host.clone(quick(world.name("on"), world.base("over", devices=bridge.interface_xml)))
        by_stp = ["type", "bridge", "forward_delay", "1500", "stp_state", "1"]
        run(["ip", "link", "set", bridge.name, *by_stp])
        (found,) = findings(host, "bridge-delay")
        assert "first 30 seconds" in found["message"]
        typist(found["hint"])
        assert findings(host, "bridge-delay") == []

        monkeypatch.setattr(surroundings, "latency", lambda _host: 1.0)
        (found,) = findings(host, "libvirt-slow")
        typist(found["hint"])
        world.tidy()


LOG = "<serial type='file'><source path='{}'/></serial>"


@tries("silent_agent.check_agent")
@pytest.mark.guest
@pytest.mark.parametrize("sees", ["console", "file", "screen", "nothing"])
@pytest.mark.parametrize("state", ["running", "shutoff"])
def test_a_guest_whose_agent_is_silent(
    world: World,
    host: LocalHost,
    connected: Host,
    outside: Path,
    typist: Typist,
    sees: str,
    state: str,
) -> None:
    name = world.base(agent=True)

    def other_console(root: ElementTree.Element) -> None:
        devices = root.find("devices")
        assert devices is not None
        for tag in ("serial", "console"):
            for line in devices.findall(tag):
                devices.remove(line)
        if sees == "file":
            devices.append(ElementTree.fromstring(LOG.format(outside / f"{name}.log")))
        if sees == "screen":
            devices.append(ElementTree.fromstring("<video><model type='vga'/></video>"))

    if sees != "console":
        rewrite(name, other_console)
    if state == "running":
        world.lab.start(name)
    handle = connected.domain(name)
    xml = handle.live()
    told = f"Look at it: {silent_agent.check_agent(handle, domain_xml.read(xml), state)}"
    if sees == "console":
        typist.console(told, "virsh ")
    else:
        typist(told)
    if sees == "screen":
        Path(f"/var/tmp/{name}.ppm").unlink()
    assert (world.state(name) == "running") is (sees != "nothing" or state == "running")


@tries("clone_view.kept")
@pytest.mark.guest
def test_a_create_without_a_profile_that_was_kept_is_resumed_on_its_host(
    world: World, host: LocalHost, base: str, opened: Host, typist: Typist
) -> None:
    keys = {"base_domain": base, "clone_strategy": "quick"}
    request = quick(world.name(), base, overrides=keys)
    host.clone(request)
    handle = opened.domain(request.name)
    record = handle.record()
    assert record is not None
    handle.save_record(replace(record, failed="It was too slow.", goal="addressed"))
    with pytest.raises(Exception, match="failed and was kept") as info:
        host.clone(request)
    typist(info.value.hint, f"resume {request.name}")  # type: ignore[attr-defined]
    with connection() as conn:
        assert conn.lookupByName(request.name).isActive()
    assert host.show(request.name).stage == "addressed"
