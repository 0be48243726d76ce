"""Devices that a clone goes without, on a real libvirtd: what the plan shows is what it gets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import libvirt
import pytest
import yaml

from lab.lab import connection
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.request import InterfaceChanges
from tests.support.world import Salt, World, quick

_ARGUMENTS = (
    "<qemu:commandline><qemu:arg value='-name'/><qemu:arg value='canary-7'/></qemu:commandline>"
)
FOLDER = "<filesystem type='mount'><source dir='/srv'/><target dir='srv'/></filesystem>"
STICK = (
    "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product id='0x5678'/>"
    "</source></hostdev>"
)


def telnet(port: int, number: int = 0) -> str:
    return (
        f"<serial type='tcp'><source mode='bind' host='127.0.0.1' service='{port}'/>"
        f"<protocol type='telnet'/><target port='{number}'/></serial>"
    )


@pytest.fixture
def cluttered(world: World) -> str:
    """A base with a shared folder, a stick of the host and arguments for QEMU."""
    base = world.base(devices=FOLDER + STICK, interfaces=2)
    with connection() as conn:
        xml = conn.lookupByName(base).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        xml = xml.replace("</domain>", f"{_ARGUMENTS}</domain>").replace(
            "<domain ", "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' ", 1
        )
        conn.defineXML(xml)
    return base


@pytest.fixture
def on_ports(world: World) -> Iterator[str]:
    """A base whose only serial line listens on a port of the host."""
    base = world.base()
    with connection() as conn:
        root = ElementTree.fromstring(
            conn.lookupByName(base).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        )
        devices = root.find("devices")
        assert devices is not None
        for tag in ("serial", "console"):
            for line in devices.findall(tag):
                devices.remove(line)
        devices.append(ElementTree.fromstring(telnet(40931)))
        conn.defineXML(ElementTree.tostring(root, encoding="unicode"))
    assert [line.get("type") for line in world.xml(base).findall("./devices/console")] == ["tcp"]
    yield base


def devices(xml: ElementTree.Element) -> list[str]:
    return sorted(element.tag for element in xml.findall("./devices/*"))


def test_the_lines_of_the_refusals_are_the_way_to_a_clone(
    world: World, host: LocalHost, cluttered: str
) -> None:
    name = world.name()
    refused = host.plan(quick(name, cluttered))["conflicts"]
    lines = [yaml.safe_load(re.findall(r"leave_out: \[[^]]*\]", one)[0]) for one in refused]
    names = tuple(one for line in lines for one in line["leave_out"])
    assert sorted(names) == ["filesystem0", "hostdev0", "qemu:commandline"]
    request = quick(name, cluttered, leave_out=names)
    plan = host.plan(request)
    assert plan["conflicts"] == []
    assert {one: plan["changes"][one]["new"] for one in names} == dict.fromkeys(names)
    host.clone(request)
    made = world.xml(name)
    assert devices(made) == [
        one for one in devices(world.xml(cluttered)) if one not in ("filesystem", "hostdev")
    ]
    assert "canary-7" not in world.secure_xml(name)
    assert devices(ElementTree.fromstring(plan["xml"])) == devices(made)


def test_libvirt_puts_nothing_back_of_what_was_left_out(
    world: World, host: LocalHost, cluttered: str
) -> None:
    name = world.name()
    names = ("serial", "memballoon", "interface0", "filesystem", "hostdev", "qemu:commandline")
    request = quick(
        name,
        cluttered,
        leave_out=names,
        networks=(InterfaceChanges(mac="52:54:00:00:77:01"),),
    )
    host.clone(request)
    made = world.xml(name)
    left = devices(made)
    assert not {"serial", "console", "filesystem", "hostdev"} & set(left)
    balloon = made.find("./devices/memballoon")
    assert balloon is None or balloon.get("model") == "none"
    (card,) = made.findall("./devices/interface/mac")
    assert card.get("address") == "52:54:00:00:77:01"
    with connection() as conn:
        conn.lookupByName(name).create()
    assert world.state(name) == "running"


@pytest.mark.guest
def test_two_clones_of_a_base_on_a_port_of_the_host_run_at_once(
    world: World, host: LocalHost, on_ports: str
) -> None:
    for name in (world.name("one"), world.name("two")):
        clone = host.clone(quick(name, on_ports))
        (said,) = [one for one in clone.warnings if "listens on a port of the host" in one]
        assert "127.0.0.1:40931" in said
        with connection() as conn:
            conn.lookupByName(name).create()
        running = world.xml(name, live=True)
        for tag in ("serial", "console"):
            (line,) = running.findall(f"./devices/{tag}")
            assert line.get("type") == "pty"
        assert not running.findall("./devices/*/source[@service]")


def test_a_state_and_its_clone_agree_about_what_is_left_out(
    world: World, host: LocalHost, cluttered: str, salt_minion: Salt
) -> None:
    name = world.name()
    keys = {
        "base_domain": cluttered,
        "clone_strategy": "quick",
        "running": False,
        "leave_out": ["filesystem", "hostdev", "qemu:commandline"],
    }
    assert salt_minion.state("kvm_clone.present", name, **keys)["result"] is True
    again = salt_minion.state("kvm_clone.present", name, **keys)
    assert (again["result"], again["changes"]) == (True, {})
    more = {**keys, "leave_out": [*keys["leave_out"], "serial"]}
    refused = salt_minion.state("kvm_clone.present", name, **more)
    assert refused["result"] is False
    assert "It has serial0, which 'leave_out' names." in refused["comment"]
