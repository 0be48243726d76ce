"""
Decide about the clone's network interfaces: what the profile changes, and MAC addresses.

Pure. Without a wish every interface of the base stays where it is connected and gets a
fresh MAC address; a wish changes what it names. What the clone cannot take over from the base's
interfaces is decided in :mod:`.rewrite`.
"""

from __future__ import annotations

import random
import re

from saltext.kvmclone.model.domain_xml import Domain, Interface
from saltext.kvmclone.model.facts import HostFacts, SwitchFacts
from saltext.kvmclone.model.request import InterfaceChanges, Request
from saltext.kvmclone.plan.disk_sources import PlanIssues
from saltext.kvmclone.plan.rewrite.interfaces import NewInterface

#: Models of network cards that QEMU can emulate on x86, Arm and POWER, as libvirt names them.
MODELS = (
    "virtio", "virtio-transitional", "virtio-non-transitional", "e1000", "e1000e", "igb",
    "rtl8139", "vmxnet3", "ne2k_pci", "pcnet", "i82551", "i82557b", "i82559er", "usb-net",
    "spapr-vlan", "lan9118", "smc91c111",
)  # fmt: skip

#: The name of a network device of the host; it has fewer than 16 bytes.
_DEVICE = re.compile(r"[^\s/]{1,15}")


def decide(
    base: Domain, facts: HostFacts, request: Request, notes: PlanIssues
) -> tuple[tuple[NewInterface, ...], tuple[str, ...]]:
    """
    Return the clone's interfaces, in order, and the MAC addresses that were made up for them.

    :param notes: Gets reasons to refuse, and warnings.
    """
    wishes = request.networks
    for number, wish in enumerate(wishes):
        old = base.interfaces[number] if number < len(base.interfaces) else None
        _check(number, wish, old, facts, notes)
    _check_macs(wishes, facts, notes)
    cards: list[NewInterface] = []
    generated: list[str] = []
    taken = {card.mac for card in base.interfaces} | {wish.mac for wish in wishes} | set(facts.macs)
    teams = {
        old.mac: wish.mac
        for old, wish in zip(base.interfaces, wishes, strict=False)
        if _teamed(old, wish) and wish.mac
    }
    for number in range(max(len(base.interfaces), len(wishes))):
        wish = wishes[number] if number < len(wishes) else InterfaceChanges()
        old = base.interfaces[number] if number < len(base.interfaces) else None
        # A guest finds the two cards of a team by their one address.
        team = old.mac if old and _teamed(old, wish) else ""
        mac = wish.mac or teams.get(team, "")
        if not mac:
            while (mac := random_mac()) in taken:
                pass
            taken.add(mac)
            generated.append(mac)
        if team:
            teams[team] = mac
        cards.append(
            NewInterface(
                mac, wish.network, wish.bridge, wish.model, wish.portgroup, _cannot(wish, facts)
            )
        )
    return tuple(cards), tuple(generated)


def _teamed(old: Interface, wish: InterfaceChanges) -> bool:
    return old.teamed and old.stays(wish.network, wish.bridge)


def _cannot(wish: InterfaceChanges, facts: HostFacts) -> frozenset[str]:
    """Return the elements that an interface cannot have where it is connected anew."""
    switch = facts.switches.get(wish.network, SwitchFacts())
    can = {"vlan": switch.tags, "filterref": switch.filters, "bandwidth": switch.bandwidth}
    return frozenset(tag for tag, possible in can.items() if not possible)


def _check(
    number: int, wish: InterfaceChanges, old: Interface | None, facts: HostFacts, notes: PlanIssues
) -> None:
    said = f"'networks' item {number + 1}"
    if wish.network and wish.bridge:
        notes.conflicts.append(f"{said} must name either a network or a bridge, not both.")
    if old is None and not (wish.network or wish.bridge):
        notes.conflicts.append(
            f"{said} must name a network or a bridge: the base has no interface there whose "
            "connection it could keep."
        )
    if wish.network and wish.network not in facts.networks:
        notes.conflicts.append(
            f"{said}: there is no network '{wish.network}'. "
            f"See: {facts.commands.virsh('net-list', '--all')}"
        )
    elif wish.network and not facts.networks[wish.network]:
        notes.conflicts.append(
            f"{said}: network '{wish.network}' is not started. "
            f"Start it: {facts.commands.virsh('net-start', wish.network)}"
        )
    if wish.portgroup:
        _check_portgroup(said, wish, old, facts, notes)
    # An interface that is on this bridge already stays there, whatever the bridge is.
    if wish.bridge and not (old and old.stays("", wish.bridge)):
        _check_bridge(said, wish.bridge, facts, notes)
    if wish.model and wish.model not in MODELS:
        notes.conflicts.append(
            f"{said}: there is no network card '{wish.model}'. There are: {', '.join(MODELS)}."
        )


def _check_portgroup(
    said: str, wish: InterfaceChanges, old: Interface | None, facts: HostFacts, notes: PlanIssues
) -> None:
    network = wish.network or (old.source if old and old.kind == "network" else "")
    if wish.bridge or not network:
        notes.conflicts.append(
            f"{said} asks for portgroup '{wish.portgroup}', and is on no network of libvirt's; "
            "nothing else has portgroups. Name one with 'network', or take 'portgroup' out."
        )
    elif network in facts.switches and wish.portgroup not in facts.switches[network].portgroups:
        groups = ", ".join(facts.switches[network].portgroups) or "none"
        notes.conflicts.append(
            f"{said}: network '{network}' has no portgroup '{wish.portgroup}'. It has: {groups}."
        )


def _check_bridge(said: str, bridge: str, facts: HostFacts, notes: PlanIssues) -> None:
    found = facts.bridges.get(bridge, "unknown")
    if not _DEVICE.fullmatch(bridge) or found == "missing":
        notes.conflicts.append(f"{said}: there is no bridge '{bridge}'. See: ip link")
    elif found == "other":
        notes.conflicts.append(
            f"{said}: '{bridge}' is not a Linux bridge. For Open vSwitch or macvtap define a "
            "libvirt network over it, and name that with 'network:'."
        )
    elif found == "unknown":
        notes.warnings.append(
            f"{said}: whether the bridge '{bridge}' exists cannot be seen from here. Look: "
            f"{facts.commands.there('ip', 'link', 'show', bridge)}"
        )


def _check_macs(wishes: tuple[InterfaceChanges, ...], facts: HostFacts, notes: PlanIssues) -> None:
    seen: set[str] = set()
    for number, wish in enumerate(wishes):
        if not wish.mac:
            continue
        said = f"'networks' item {number + 1}: MAC address {wish.mac}"
        if int(wish.mac[:2], 16) & 1:
            notes.conflicts.append(
                f"{said} is a multicast address. Take one that begins with 52:54:00."
            )
        elif wish.mac == "00:00:00:00:00:00":
            notes.conflicts.append(
                f"{said} is not a usable MAC address. Take one that begins with 52:54:00."
            )
        if wish.mac in seen:
            notes.conflicts.append(f"{said} occurs twice in the request.")
        if wish.mac in facts.macs:
            notes.conflicts.append(f"{said} belongs to '{facts.macs[wish.mac]}' already.")
        seen.add(wish.mac)


def random_mac() -> str:
    """Return a random MAC address in the range of QEMU and KVM guests (52:54:00)."""
    return "52:54:00:" + ":".join(f"{random.SystemRandom().randrange(256):02x}" for _ in range(3))
