"""
Judge a host itself: its daemon, networks, bridges, and what confines guests.

Pure. What it goes by is read by :mod:`.surroundings`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from saltext.kvmclone.inventory.findings import Finding, in_words
from saltext.kvmclone.model.facts import NetworkFacts
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.host_reports import Installation

#: Seconds that a daemon may take for an answer that costs it nothing. A create asks some 20 times.
SLOW_S = 0.5

#: Seconds that a bridge may hold a new card back: the least that the kernel takes for a bridge with
#: the spanning tree protocol, as libvirt's own are.
DELAY_S = 4.0

#: Few are left of a network's addresses: a tenth of them, or four, but never more than half.
_TENTH, _FOUR = 10, 4


@dataclass(frozen=True)
class Surroundings:
    """
    What the clones of a host and their bases need of it.

    :param latency: Seconds that its daemon takes for an answer.
    :param delays: Seconds that each bridge with a card of theirs holds a new card back.
    :param networks: The networks that they are on, with the leases.
    :param closed: Their files that SELinux keeps from every guest, by the switch that is off.
    :param copies: What is left of interrupted copies of a base, by its name.
    """

    latency: float = 0.0
    delays: Mapping[str, float] = field(default_factory=dict)
    networks: tuple[NetworkFacts, ...] = ()
    closed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    copies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def find(seen: Surroundings, commands: Commands) -> Iterator[Finding]:
    """Yield what is wrong with a host's surroundings of its clones."""
    yield from _daemon(seen, commands)
    yield from _labels(seen, commands)
    for network in seen.networks:
        yield from _addresses(network, commands)
    yield from _copies(seen, commands)
    yield from _bridges(seen, commands)


def _daemon(seen: Surroundings, commands: Commands) -> Iterator[Finding]:
    if seen.latency > SLOW_S:
        yield Finding(
            "libvirt-slow",
            commands.url,
            f"libvirt takes {seen.latency:.1f} seconds for an answer that costs it nothing, and a "
            "create asks many times. Is the machine out of memory, or the network to it slow?",
            commands.there("journalctl", "-u", "libvirtd", "-n", "50"),
        )


def _labels(seen: Surroundings, commands: Commands) -> Iterator[Finding]:
    for switch, paths in seen.closed.items():
        yield Finding(
            "selinux-denies",
            switch,
            f"SELinux keeps {in_words(sorted(paths))} from every guest, since its switch "
            f"'{switch}' is off: a machine with that disk cannot start.",
            commands.there("setsebool", "-P", switch, "on"),
        )


def _copies(seen: Surroundings, commands: Commands) -> Iterator[Finding]:
    for base, paths in seen.copies.items():
        yield Finding(
            "copy-left",
            base,
            f"A copy of the base '{base}' was interrupted, and nobody goes on with it. It left "
            f"{in_words(sorted(paths))}.",
            commands.clone("gc", base, "apply=True"),
        )


def _addresses(network: NetworkFacts, commands: Commands) -> Iterator[Finding]:
    free, total = room(network)
    if total and free <= max(total // _TENTH, min(_FOUR, total // 2)):
        left = f"{free} of its {total} addresses are" if free != 1 else f"1 of {total} addresses is"
        yield Finding(
            "dhcp-range-full",
            network.name,
            f"In the network '{network.name}' {left} left to hand out. Destroy clones that nobody "
            "needs, or give it a larger <range> (virsh net-edit); the lease of a machine that is "
            "gone ends by itself.",
            commands.virsh("net-dhcp-leases", network.name),
        )


def room(network: NetworkFacts) -> tuple[int, int]:
    """Return how many addresses a network has left to hand out, and how many in all (IPv4)."""
    taken = {lease.address for lease in network.leases}
    taken |= {entry.address for entry in network.entries}
    numbers = {int(ipaddress.IPv4Address(one)) for one in taken if one and ":" not in one}
    free = total = 0
    for first, last in (pair for subnet in network.subnets for pair in subnet.ranges):
        if ":" not in first:
            low, high = (int(ipaddress.IPv4Address(one)) for one in (first, last))
            total += high - low + 1
            free += high - low + 1 - sum(low <= number <= high for number in numbers)
    return free, total


def _bridges(seen: Surroundings, commands: Commands) -> Iterator[Finding]:
    for bridge, delay in seen.delays.items():
        if delay > DELAY_S:
            yield Finding(
                "bridge-delay",
                bridge,
                f"The bridge '{bridge}' holds back what a guest sends in its first {delay:g} "
                "seconds, so every boot of a clone takes that much longer. The hint shortens that "
                "until the host boots, its configuration of the bridge for good; the spanning tree "
                "protocol stays on.",
                commands.there(
                    "ip", "link", "set", bridge, "type", "bridge", "forward_delay", "200"
                ),
            )


def of_installation(own: Installation, name: str, commands: Commands) -> Iterator[Finding]:
    """
    Yield what is wrong with kvm_clone on one machine.

    :param name: The machine's minion id; empty for the master.
    """
    where = f"On '{name}'" if name else "On this master"
    if own.other:
        yield Finding(
            "library-twice",
            name or own.other,
            f"{where} the modules of kvm_clone come with the library in '{own.other}', but work "
            f"with another one, in '{own.path}'. Remove one of the two: what was synced, or the "
            "package (where Salt is no onedir, with the pip of the Python that it runs in).",
            commands.beside("salt-pip", "uninstall", "-y", "saltext.kvmclone"),
        )
    if own.lost:
        yield Finding(
            "package-lost",
            name or own.path,
            f"{where} an upgrade of Salt to Python {own.python} left {in_words(list(own.lost))} "
            "behind, in the folder of the Python before.",
            commands.beside("salt-pip", "install", *own.lost),
        )
