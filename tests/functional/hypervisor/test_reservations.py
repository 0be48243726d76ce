"""Promises about ``ip_source: reserve``: an address of one's own, and not a trace afterwards."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import libvirt
import pytest

from lab.bridge import Bridge
from lab.common import CHECKOUT, LIBVIRT_URI, wait_until
from lab.lab import Lab
from saltext.kvmclone.errors import HostError, PlanRefused
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hosts.outcome import Outcome
from saltext.kvmclone.hypervisor import networks
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.record import Reservation
from saltext.kvmclone.model.request import AddressPick, InterfaceChanges, Request
from tests.support.networks import Network, network
from tests.support.world import World, at_once, quick

pytestmark = pytest.mark.slow

LIVE, CONFIG = libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE, libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG
ADD = libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST
MAC = "52:54:00:00:00:01"
OTHER = "52:54:00:00:00:02"


@pytest.fixture
def net(lab: Lab, world: World) -> Iterator[Network]:
    with network(lab.name) as made:
        yield made
        world.tidy()  # nothing may hang on it


@pytest.fixture
def base(world: World, net: Network) -> str:
    """A base on that network."""
    return world.base(interfaces=0, devices=net.interface_xml)


def mac_of(world: World, name: str) -> str:
    mac = world.xml(name).find("./devices/interface/mac")
    assert mac is not None
    return mac.attrib["address"]


def reserving(name: str, base: str, **keys: Any) -> Request:
    return quick(name, base, ip_source="reserve", **keys)


def conflicts(host: LocalHost, request: Request) -> str:
    return " ".join(host.plan(request)["conflicts"])


# --- a whole create -----------------------------------------------------------------------------


@pytest.mark.guest
def test_the_address_is_reserved_before_boot_and_is_the_guests(
    world: World, host: LocalHost, net: Network, base: str
) -> None:
    name = world.name()
    host.clone(reserving(name, base))
    (entry,) = net.entries()
    assert net.entries(stored=True) == {entry}
    assert entry[0] == mac_of(world, name)
    assert 100 <= int(entry[1].split(".")[3]) < 200
    record = world.record(name)
    assert record is not None
    (noted,) = record.reservations
    assert (noted.network, noted.mac, noted.address) == (net.name, *entry)

    host.boot(name)
    clone = host.wait_for_address(reserving(name, base))
    assert clone.address == entry[1]
    assert clone.addresses[0].source in ("lease", "arp")

    host.destroy(name)
    assert net.entries() == net.entries(stored=True) == set()


@pytest.mark.guest
def test_the_address_that_is_asked_for_is_given(
    world: World, host: LocalHost, net: Network, base: str
) -> None:
    wanted = net.address(42)  # beside the range that is handed out freely
    request = reserving(world.name(), base, address=wanted)
    planned = host.plan(request)
    assert planned["changes"]["address"] == {"old": None, "new": wanted}
    outcome = provision.create(host, request)
    assert outcome.error is None
    assert outcome.clone is not None
    assert outcome.clone.address == wanted
    host.destroy(request.name)
    assert net.entries() == set()


def test_a_plan_writes_nothing_and_does_not_promise_an_address(
    world: World, host: LocalHost, net: Network, base: str
) -> None:
    planned = host.plan(reserving(world.name(), base))
    assert planned["conflicts"] == []
    assert planned["changes"]["address"] == {"old": None, "new": "<generated>"}
    assert net.entries() == net.entries(stored=True) == set()


def test_a_rollback_gives_the_address_back(
    world: World, host: LocalHost, net: Network, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def fail(_handle: DomainHandle, _on: bool) -> None:
        seen.append(net.entries())
        raise HostError("libvirt says no")

    monkeypatch.setattr(DomainHandle, "set_autostart", fail)
    before = world.footprint()
    with pytest.raises(HostError):
        host.clone(reserving(world.name(), base, autostart=True))
    assert len(seen[0]) == 1
    assert net.entries() == net.entries(stored=True) == set()
    assert world.footprint() == before


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_that_dies_at_the_network_leaves_what_its_record_lists(
    world: World, host: LocalHost, net: Network, base: str, moment: str
) -> None:
    name = world.name()
    script = f"""
        import os
        from saltext.kvmclone.hosts.local import LocalHost
        from saltext.kvmclone.hypervisor import networks
        from tests.support.world import quick
        real = networks._update
        def dying(*arguments):
            if {moment!r} == "after":
                real(*arguments)
            os._exit(9)
        networks._update = dying
        LocalHost({LIBVIRT_URI!r}).clone(quick({name!r}, {base!r}, ip_source="reserve"))
    """
    assert _python(script) == 9
    record = world.record(name)
    assert record is not None
    noted = {(one.mac, one.address) for one in record.reservations}
    assert len(noted) == 1
    assert net.entries() == (noted if moment == "after" else set())
    host.destroy(name)
    assert net.entries() == net.entries(stored=True) == set()
    assert not world.exists(name)


def test_a_clone_is_destroyed_although_its_network_stopped_or_is_gone(
    world: World, host: LocalHost, net: Network, base: str
) -> None:
    names = [world.name("one"), world.name("two")]
    for name in names:
        host.clone(reserving(name, base))
    net.stop()
    assert len(net.entries(stored=True)) == 2
    host.destroy(names[0])
    assert len(net.entries(stored=True)) == 1
    with Host(LIBVIRT_URI) as connected:
        connected.raw.networkLookupByName(net.name).undefine()
    host.destroy(names[1])
    assert not world.exists(names[1])


# --- what is refused ----------------------------------------------------------------------------


def test_every_reason_against_an_address_is_named_at_once(
    world: World, host: LocalHost, net: Network, base: str
) -> None:
    net.update(ADD, MAC, net.address(50), LIVE | CONFIG, "printer")
    for last, reason in (
        (0, "is the network address"),
        (1, "is the host's own"),
        (255, "is the broadcast address"),
        (50, f"is reserved for 'printer' ({MAC})"),
    ):
        request = reserving(world.name(f"c{last}"), base, address=net.address(last))
        assert reason in conflicts(host, request)
        with pytest.raises(PlanRefused):
            host.clone(request)
    far = reserving(world.name("far"), base, address="172.31.255.7", memory=2**60)
    assert "is outside network" in conflicts(host, far)
    assert "Only IPv4" in conflicts(host, reserving(world.name("six"), base, address="fd00::7"))
    assert net.entries() == {(MAC, net.address(50))}


@pytest.mark.guest
def test_an_address_that_another_guest_holds_is_refused(
    world: World, host: LocalHost, net: Network, base: str
) -> None:
    outcome = provision.create(host, quick(world.name("holder"), base))
    assert outcome.clone is not None
    held = outcome.clone.address
    request = reserving(world.name(), base, address=held)
    assert f"is in use: network '{net.name}' leased it to" in conflicts(host, request)


def test_an_address_without_reserve_is_refused(world: World, host: LocalHost, base: str) -> None:
    said = conflicts(host, quick(world.name(), base, address="10.0.0.7"))
    assert "only with 'ip_source: reserve'" in said


def test_a_network_that_is_not_started_is_refused(
    world: World, host: LocalHost, net: Network, base: str
) -> None:
    net.stop()
    said = conflicts(host, reserving(world.name(), base))
    assert f"net-start {net.name}" in said


def test_a_network_without_dhcp_and_a_plain_bridge_are_refused(
    lab: Lab, world: World, host: LocalHost, base: str
) -> None:
    with network(lab.name, dhcp=False) as silent, Bridge() as bridge:
        for wish in (InterfaceChanges(network=silent.name), InterfaceChanges(bridge=bridge.name)):
            request = reserving(world.name(wish.bridge[:3] or "net"), base, networks=(wish,))
            said = conflicts(host, request)
            assert "hands out no" in said
            assert "'ip_source: qemu-agent'" in said


def test_a_full_network_is_refused(lab: Lab, world: World, host: LocalHost, base: str) -> None:
    with network(lab.name, first=7, last=7) as small:
        wish = (InterfaceChanges(network=small.name),)
        host.clone(reserving(world.name("one"), base, networks=wish))
        said = conflicts(host, reserving(world.name("two"), base, networks=wish))
        assert "has no free address" in said
        world.tidy()


def test_pick_says_which_network_the_address_is_of(
    lab: Lab, world: World, host: LocalHost, net: Network
) -> None:
    base = world.base(devices=net.interface_xml)  # the first interface is on the lab's network
    for number, pick in enumerate((AddressPick(interface=net.name), AddressPick(cidr=net.cidr))):
        host.clone(reserving(world.name(f"p{number}"), base, pick=pick))
        assert len(net.entries()) == number + 1
    wrong = reserving(world.name("wrong"), base, pick=AddressPick(interface="eth1"))
    assert "names none of the clone's networks" in conflicts(host, wrong)


# --- several at once ----------------------------------------------------------------------------


def _clone_some(url: str, base: str, names: list[str], problems: Any) -> None:
    def one(name: str) -> None:
        try:
            LocalHost(url).clone(reserving(name, base))
        except Exception as error:
            problems.put(f"{name}: {error}")

    at_once(*[partial(one, name) for name in names])


@pytest.mark.slow
def test_twenty_at_once_get_twenty_addresses(lab: Lab, world: World, host: LocalHost) -> None:
    """Four processes of five threads each, in a network that has room for exactly twenty."""
    with network(lab.name, first=11, last=30) as tight:
        base = world.base(interfaces=0, devices=tight.interface_xml)
        names = [world.name(f"c{number}") for number in range(20)]
        context = multiprocessing.get_context("spawn")
        problems = context.Queue()
        workers = [
            context.Process(target=_clone_some, args=(LIBVIRT_URI, base, names[begin::4], problems))
            for begin in range(4)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert problems.empty(), problems.get()
        records = [world.record(name) for name in names]
        reserved = {
            (one.mac, one.address) for record in records if record for one in record.reservations
        }
        assert {address for _mac, address in reserved} == {tight.address(n) for n in range(11, 31)}
        assert tight.entries() == tight.entries(stored=True) == reserved
        for name in names:
            host.destroy(name)
        assert tight.entries() == tight.entries(stored=True) == set()


@pytest.mark.guest
def test_clones_with_one_machine_id_have_addresses_of_their_own(
    lab: Lab, world: World, host: LocalHost
) -> None:
    """Without an agent nobody gives them identities, and DHCP takes them for one machine."""
    base = lab.debian_base(world.name("debian"), agent=False)
    names = [world.name("one"), world.name("two")]

    def create(name: str) -> Outcome:
        request = reserving(name, base, reset_identity=False)
        return provision.create(LocalHost(host.url), request)

    outcomes = at_once(*[partial(create, name) for name in names])
    assert [outcome.error for outcome in outcomes] == [None, None]
    found = {}
    for name, outcome in zip(names, outcomes, strict=True):
        record, clone = world.record(name), outcome.clone
        assert record is not None
        assert clone is not None
        assert clone.address == record.reservations[0].address
        found[clone.address] = record.reservations[0].mac
    assert len(found) == 2
    # Both really answer there, each from its own card.
    for address, mac in found.items():
        wait_until(lambda address=address, mac=mac: _answers(address) == mac, address, 30)


@pytest.mark.guest
def test_the_address_survives_the_reset_of_the_identity(lab: Lab, world: World) -> None:
    base = lab.debian_base(world.name("debian"))
    host = LocalHost(LIBVIRT_URI, label="kvm01")
    name = world.name()
    outcome = provision.create(host, reserving(name, base))
    assert outcome.error is None
    record = world.record(name)
    assert record is not None
    assert record.identity == "reset"
    assert outcome.clone is not None
    assert outcome.clone.address == record.reservations[0].address
    assert [one.address for one in outcome.clone.addresses] == [outcome.clone.address]
    host.destroy(name)


def _answers(address: str) -> str:
    """The MAC address that answers for an address now."""
    subprocess.run(["ip", "neigh", "flush", "to", address], check=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"hello", (address, 9))
    time.sleep(0.5)
    with open("/proc/net/arp", encoding="ascii") as table:
        rows = [line.split() for line in table]
    return next((row[3] for row in rows if row[0] == address), "")


# --- error 55 means many things -----------------------------------------------------------------


@pytest.fixture
def connected() -> Iterator[Host]:
    with Host(LIBVIRT_URI) as made:
        yield made


def _reserve(connected: Host, wanted: Reservation, **keys: Any) -> tuple[Reservation, list[Any]]:
    journal: list[Reservation] = []
    request = reserving(wanted.name or "clone", "base", **keys)
    return networks.reserve(connected, wanted, request, journal.append), journal


@pytest.mark.parametrize("there", [0, LIVE, CONFIG, LIVE | CONFIG])
def test_what_is_half_there_is_completed(connected: Host, net: Network, there: int) -> None:
    wanted = Reservation(net.name, MAC, net.address(120), "clone")
    for side in (LIVE, CONFIG):
        if there & side:
            net.update(ADD, MAC, wanted.address, side, "clone")
    assert _reserve(connected, wanted) == (wanted, [])
    assert net.entries() == net.entries(stored=True) == {(MAC, wanted.address)}


@pytest.mark.parametrize("there", [0, LIVE, CONFIG, LIVE | CONFIG])
def test_what_is_half_there_is_removed(connected: Host, net: Network, there: int) -> None:
    made = Reservation(net.name, MAC, net.address(120), "clone")
    net.update(ADD, OTHER, net.address(121), LIVE | CONFIG)
    for side in (LIVE, CONFIG):
        if there & side:
            net.update(ADD, MAC, made.address, side, "another-name")
    assert networks.release(connected, made) == bool(there)
    assert not networks.release(connected, made)
    assert net.entries() == net.entries(stored=True) == {(OTHER, net.address(121))}


def test_an_entry_of_somebody_else_is_never_removed(connected: Host, net: Network) -> None:
    net.update(ADD, OTHER, net.address(120), LIVE | CONFIG, "clone")
    assert not networks.release(connected, Reservation(net.name, MAC, net.address(120), "clone"))
    assert not networks.release(connected, Reservation(net.name, OTHER, net.address(121), "clone"))
    assert net.entries() == {(OTHER, net.address(120))}


@pytest.mark.parametrize("side", [LIVE, CONFIG])
def test_an_address_that_was_taken_meanwhile_is_given_up_for_another(
    connected: Host, net: Network, side: int
) -> None:
    wanted = Reservation(net.name, MAC, net.address(120), "clone")
    net.update(ADD, OTHER, net.address(120), side)
    got, journal = _reserve(connected, wanted)
    assert got.address != wanted.address
    assert journal == [got]  # noted before it was made
    assert (MAC, got.address) in net.entries()
    assert (MAC, got.address) in net.entries(stored=True)


def test_an_address_that_was_asked_for_and_taken_meanwhile_is_refused(
    connected: Host, net: Network
) -> None:
    wanted = Reservation(net.name, MAC, net.address(120), "clone")
    net.update(ADD, OTHER, net.address(120), LIVE | CONFIG)
    with pytest.raises(PlanRefused, match="reserved for"):
        _reserve(connected, wanted, address=wanted.address)
    assert net.entries() == {(OTHER, net.address(120))}


def test_a_name_that_stands_for_another_address_is_left_out(connected: Host, net: Network) -> None:
    net.update(ADD, OTHER, net.address(120), LIVE | CONFIG, "clone")
    wanted = Reservation(net.name, MAC, net.address(121), "clone")
    got, _journal = _reserve(connected, wanted)
    assert (got.address, got.name) == (wanted.address, "")
    assert (MAC, wanted.address) in net.entries()


def _python(script: str) -> int:
    env = {**os.environ, "PYTHONPATH": f"{CHECKOUT}/_utils:{CHECKOUT}"}
    words = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(words, env=env, cwd=CHECKOUT, check=False).returncode
