"""Promises about clones that run: their address, their power, and guests that misbehave."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import libvirt
import pytest
from salt.exceptions import CommandExecutionError

from lab.common import wait_until
from lab.lab import connection
from saltext.kvmclone.errors import AddressTimeout, GuestStopped
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hosts.outcome import Outcome
from saltext.kvmclone.hypervisor.events import Watch
from saltext.kvmclone.model.request import Wait
from tests.support.world import CloneOf, Salt, World, at_once, full, quick

pytestmark = pytest.mark.guest


class LeaseWatch(threading.Thread):
    """Looks for a machine's lease every 10 ms and notes when it was there first."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(daemon=True)
        mac = world.xml(name).find("./devices/interface/mac")
        assert mac is not None
        self.network, self.mac = world.lab.network, mac.attrib["address"]
        self.seen = 0.0
        self.over = threading.Event()

    def run(self) -> None:
        with connection() as conn:
            network = conn.networkLookupByName(self.network)
            while not self.over.wait(0.01):
                if network.DHCPLeases(self.mac):
                    self.seen = time.monotonic()
                    return


@contextmanager
def watching(world: World, name: str) -> Iterator[LeaseWatch]:
    watch = LeaseWatch(world, name)
    watch.start()
    yield watch
    watch.over.set()
    watch.join()


# --- the address --------------------------------------------------------------------------------


def test_an_address_is_noticed_within_half_a_second(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    for word in ("first", "second", "third"):  # a machine with other work delays one now and then
        name = clone_of(base, word)
        host.boot(name)
        with watching(world, name) as watch:
            clone = host.wait_for_address(quick(name, base))
            noticed = time.monotonic()
            wait_until(lambda watch=watch: watch.seen, "the watch", 5)
        if noticed - watch.seen < 0.5:
            break
    assert noticed - watch.seen < 0.5
    assert clone.address == world.lab.lease(name)
    assert clone.stage == "addressed"
    assert clone.state == "running"
    (address,) = clone.addresses
    assert (address.family, address.source, address.prefix) == ("ipv4", "lease", 24)
    assert address.mac == watch.mac


def test_two_clones_at_once_are_two_machines(
    world: World, host: LocalHost, base: str, salt_minion: Salt
) -> None:
    names = [world.name("one"), world.name("two")]

    def create(name: str) -> Outcome:
        return provision.create(LocalHost(host.url), quick(name, base))

    outcomes = at_once(*[partial(create, name) for name in names])
    assert [outcome.error for outcome in outcomes] == [None, None]
    clones = [outcome.clone for outcome in outcomes]
    assert len({clone.uuid for clone in clones if clone}) == 2
    assert len({clone.address for clone in clones if clone}) == 2
    assert len({clone.addresses[0].mac for clone in clones if clone}) == 2
    assert len({clone.disks[0].path for clone in clones if clone}) == 2


def test_every_interface_shows_its_address(world: World, host: LocalHost) -> None:
    name = world.name()
    outcome = provision.create(host, quick(name, world.base(interfaces=2)))
    assert outcome.error is None
    macs = [mac.get("address") for mac in world.xml(name).findall("./devices/interface/mac")]
    wait_until(lambda: len(host.show(name).addresses) == 2, "both addresses", 20)
    assert [address.mac for address in host.show(name).addresses] == macs


def test_a_guest_that_is_reset_by_nobody_carries_a_warning(
    world: World, base: str, salt_minion: Salt
) -> None:
    clone = salt_minion("kvm_clone.create", world.name(), **_keys(base))
    assert any("identity of its base" in warning for warning in clone["warnings"])
    quiet = salt_minion("kvm_clone.create", world.name("b"), reset_identity=False, **_keys(base))
    assert quiet["warnings"] == []


def test_an_agent_that_never_connects_counts_as_absent(world: World, host: LocalHost) -> None:
    base = world.base(agent=True)
    name = world.name()
    outcome = provision.create(host, quick(name, base))
    assert outcome.error is None
    assert outcome.clone is not None
    assert outcome.clone.address


# --- guests that misbehave ----------------------------------------------------------------------


def test_a_guest_without_an_address_fails_in_time_and_leaves_nothing(
    world: World, salt_minion: Salt
) -> None:
    base = world.base(options="tiny.nodhcp")
    before = world.footprint()
    started = time.monotonic()
    with pytest.raises(CommandExecutionError) as info:
        salt_minion("kvm_clone.create", world.name(), wait_for_ip_timeout=4, **_keys(base))
    assert 4 < time.monotonic() - started < 20
    said = str(info.value)
    assert "AddressTimeout" in said
    assert "within 4 s" in said
    assert "no DHCP lease for 52:54:00" in said
    assert f"in network '{world.lab.network}'" in said
    assert "no guest agent channel" in said
    assert "Hint" in said
    assert world.footprint() == before


def test_the_deadline_of_the_address_holds_whatever_the_interval(
    world: World, host: LocalHost, clone_of: CloneOf
) -> None:
    base = world.base(options="tiny.nodhcp")
    name = clone_of(base)
    host.boot(name)
    for wait in (Wait(timeout=1), Wait(timeout=1, interval=30), Wait(timeout=0)):
        started = time.monotonic()
        with pytest.raises(AddressTimeout):
            host.wait_for_address(quick(name, base, wait=wait))
        assert time.monotonic() - started < wait.timeout + 10


def test_a_guest_that_powers_off_while_we_wait_fails_at_once_and_leaves_nothing(
    world: World, host: LocalHost
) -> None:
    base = world.base(options="tiny.nodhcp tiny.poweroff=2")
    before = world.footprint()
    name = world.name()
    started = time.monotonic()
    outcome = provision.create(host, quick(name, base))
    assert time.monotonic() - started < 60
    assert isinstance(outcome.error, GuestStopped)
    assert "is shutoff" in outcome.error.message
    assert outcome.error.hint
    assert outcome.stage == "booted"
    assert world.footprint() == before


@pytest.mark.parametrize(("wish", "state"), [("stop", "shutoff"), ("keep", "running")])
def test_on_failure_says_what_becomes_of_the_clone(
    world: World, host: LocalHost, wish: str, state: str
) -> None:
    base = world.base(options="tiny.nodhcp")
    name = world.name()
    outcome = provision.create(host, quick(name, base, on_failure=wish, wait=Wait(timeout=1)))
    assert isinstance(outcome.error, AddressTimeout)
    assert world.state(name) == state
    assert host.show(name).stage == "booted"
    host.destroy(name)
    assert not world.exists(name)


def test_an_interrupted_wait_leaves_nothing(
    world: World, host: LocalHost, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.footprint()

    def interrupt(_watch: Watch) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "rest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        provision.create(host, quick(world.name(), base))
    assert world.footprint() == before


# --- what boots ---------------------------------------------------------------------------------


def test_a_full_raw_clone_boots(world: World, host: LocalHost) -> None:
    base = world.base(fmt="raw")
    world.filled(base)
    outcome = provision.create(host, full(world.name(), base))
    assert outcome.error is None
    assert outcome.clone is not None
    assert outcome.clone.address


def test_a_quick_clone_of_a_raw_base_boots_beside_another(world: World, host: LocalHost) -> None:
    base = world.base(fmt="raw", cdrom=True)
    for word in ("one", "two"):
        outcome = provision.create(host, quick(world.name(word), base))
        assert outcome.error is None


def test_a_uefi_clone_boots(world: World, host: LocalHost) -> None:
    outcome = provision.create(host, quick(world.name(), world.base(uefi=True)))
    assert outcome.error is None
    assert outcome.clone is not None
    assert outcome.clone.address
    host.destroy(outcome.name)
    assert not list((world.lab.folder / "nvram").glob(f"{outcome.name}*"))


# --- power --------------------------------------------------------------------------------------


def test_start_stop_and_reboot(world: World, base: str, salt_minion: Salt) -> None:
    name = world.name()
    clone = salt_minion("kvm_clone.create", name, **_keys(base))
    assert clone["state"] == "running"
    address = clone["address"]
    assert [a["address"] for a in salt_minion("kvm_clone.addresses", name)] == [address]
    assert salt_minion("kvm_clone.wait_for_address", name, timeout=5) == address

    started = time.monotonic()
    assert salt_minion("kvm_clone.stop", name)["state"] == "shutoff"
    assert time.monotonic() - started < 20  # it heard the power button
    assert salt_minion("kvm_clone.stop", name)["state"] == "shutoff"
    assert salt_minion("kvm_clone.show", name)["address"] == address

    assert salt_minion("kvm_clone.start", name)["state"] == "running"
    assert salt_minion("kvm_clone.start", name)["state"] == "running"
    assert salt_minion("kvm_clone.reboot", name)["state"] == "running"


def test_reboot_starts_a_clone_that_is_off(
    world: World, base: str, salt_minion: Salt, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    assert salt_minion("kvm_clone.reboot", name)["state"] == "running"


def test_starting_a_paused_clone_lets_it_go_on(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    host.power(name, "start")
    with connection() as conn:
        conn.lookupByName(name).suspend()
    assert host.show(name).state == "paused"
    assert host.power(name, "start").state == "running"


def test_starting_a_clone_that_sleeps_wakes_it(world: World, host: LocalHost) -> None:
    base = world.lab.debian_base(world.name("debian"))
    name = world.name()
    outcome = provision.create(host, quick(name, base, wait=Wait(timeout=240)))
    assert outcome.error is None
    with connection() as conn:
        conn.lookupByName(name).pMSuspendForDuration(libvirt.VIR_NODE_SUSPEND_TARGET_MEM, 0)
    wait_until(lambda: host.show(name).state == "pmsuspended", "the guest to sleep", 60)
    assert host.power(name, "start").state == "running"
    world.lab.wait_for_agent(name)


def _keys(base: str) -> dict[str, Any]:
    return {"base_domain": base, "clone_strategy": "quick"}
