"""Promises about Debian guests whose network or identity is in the care of another program."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.common import LIBVIRT_URI, wait_until, write
from lab.lab import Lab, connection
from saltext.kvmclone.guest.agent import AgentChannel
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.request import Request, Wait
from tests.support.debian_guests import Guest, until
from tests.support.world import World, quick

pytestmark = [pytest.mark.guest, pytest.mark.long]


@dataclass(frozen=True)
class Kind:
    """A guest whose network is in the care of ``name``."""

    name: str
    #: Its systemd unit.
    unit: str
    packages: tuple[str, ...]
    settle: Callable[[Path], None]
    #: What its operator did in the base while it ran.
    done_there: str = "true"


def without_networkd(root: Path) -> None:
    for path in (root / "etc/systemd/system").rglob("*systemd-networkd*"):
        path.unlink()


def ifupdown(root: Path) -> None:
    # Its dhclient asks with an identifier that it made once and keeps beside its lease.
    without_networkd(root)
    write(root / "etc/network/interfaces", "auto lo eth0\niface eth0 inet dhcp\n")


def network_manager(root: Path) -> None:
    without_networkd(root)
    # From the machine's own secret, not from the card's address: a clone asks as its base. And
    # no connection but those that somebody made.
    write(
        root / "etc/NetworkManager/conf.d/lab.conf",
        "[connection]\nipv4.dhcp-client-id=stable\n[main]\nno-auto-default=*\n",
    )


#: A connection for this card alone, as many tools make it; its file has the name's blanks.
BOUND = (
    "nmcli connection add type ethernet con-name 'Wired connection 1' "
    "ethernet.mac-address $(cat /sys/class/net/eth0/address)"
)


def dhcpcd(root: Path) -> None:
    without_networkd(root)
    enable(root, "dhcpcd")


def enable(root: Path, unit: str) -> None:
    link = root / f"etc/systemd/system/multi-user.target.wants/{unit}.service"
    link.unlink(missing_ok=True)
    link.symlink_to(f"/lib/systemd/system/{unit}.service")


KINDS = [
    Kind("ifupdown", "networking", ("ifupdown", "isc-dhcp-client"), ifupdown),
    Kind("NetworkManager", "NetworkManager", ("network-manager",), network_manager, BOUND),
    Kind("dhcpcd", "dhcpcd", ("dhcpcd",), dhcpcd),
]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(scope="module")
def kind_base(lab: Lab, kind: Kind) -> str:
    name = f"{lab.name}-{kind.name.lower()}"
    base = lab.debian_base(name, change=kind.settle, packages=kind.packages)
    return lived(lab, base, kind.done_there)


def lived(lab: Lab, base: str, done_there: str = "true") -> str:
    """A base that has been up once, and remembers what a machine remembers."""
    lab.start(base)
    lab.wait_for_agent(base)
    with Host(LIBVIRT_URI) as host, AgentChannel(host.domain(base).agent) as channel:
        wait_until(lambda: channel.run(done_there, timeout=60).status == 0, done_there, 120, 2.0)
    lab.wait_for_lease(base)
    lab.agent(base, "guest-shutdown")
    with connection() as conn:
        wait_until(lambda: not conn.lookupByName(base).isActive(), "the base to be off", 120)
    return base


def test_two_clones_that_boot_at_once_are_two_machines_with_two_addresses(
    lab: Lab, world: World, host: LocalHost, kind: Kind, kind_base: str
) -> None:
    names = [world.name("one"), world.name("two")]
    wishes = [quick(name, kind_base, wait=Wait(timeout=300)) for name in names]

    def create(wish: Request) -> Clone:
        outcome = provision.create(LocalHost(host.url), wish)
        assert outcome.error is None, outcome.error
        assert outcome.clone is not None
        return outcome.clone

    with ThreadPoolExecutor() as pool:
        clones = list(pool.map(create, wishes))
    guests = [Guest(lab, host, wish) for wish in wishes]
    assert len({clone.address for clone in clones}) == len(names)
    assert len({guest.said("cat /etc/machine-id") for guest in guests}) == len(names)
    for guest, clone in zip(guests, clones, strict=True):
        assert clone.warnings == ()
        assert guest.said(f"systemctl is-active {kind.unit}") == "active"
        assert guest.said("hostname") == clone.name
        until(lambda guest=guest, clone=clone: clone.address in guest.said("hostname -I"))
        assert lab.lease(clone.name) == clone.address
