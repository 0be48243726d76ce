"""
The clone's network interfaces: which the profile replaces, and the MAC address of each.

Pure. Without a wish every interface of the base stays where it is connected and gets a
fresh MAC address; what may not be taken along is for :mod:`.rewrite` to say.
"""

from __future__ import annotations

import random
import re

from saltext.kvmclone.domain_xml import Domain
from saltext.kvmclone.facts import HostFacts
from saltext.kvmclone.request import NetworkWish, Request
from saltext.kvmclone.rewrite.interfaces import NewCard
from saltext.kvmclone.sources import Notes

#: What QEMU can emulate on x86, Arm and POWER, as libvirt names it.
MODELS = (
    "virtio", "virtio-transitional", "virtio-non-transitional", "e1000", "e1000e", "igb",
    "rtl8139", "vmxnet3", "ne2k_pci", "pcnet", "i82551", "i82557b", "i82559er", "usb-net",
    "spapr-vlan", "lan9118", "smc91c111",
)  # fmt: skip

#: Of a device of the host; libvirt keeps names shorter than 16 bytes.
_DEVICE = re.compile(r"[^\s/]{1,15}")


def decide(
    base: Domain, facts: HostFacts, request: Request, notes: Notes
) -> tuple[tuple[NewCard, ...], tuple[str, ...]]:
    """
    The clone's interfaces, in order.

    :param notes: Gets reasons to refuse, and warnings.
    :return: The interfaces, and the MAC addresses that were made up for them.
    """
    wishes = request.networks
    for number, wish in enumerate(wishes):
        _check(number, wish, facts, notes)
    _check_macs(wishes, facts, notes)
    cards: list[NewCard] = []
    generated: list[str] = []
    taken = {card.mac for card in base.interfaces} | {wish.mac for wish in wishes} | set(facts.macs)
    teams: dict[str, str] = {}
    for number in range(max(len(base.interfaces), len(wishes))):
        wish = wishes[number] if number < len(wishes) else NetworkWish()
        old = base.interfaces[number] if number < len(base.interfaces) else None
        # A guest finds the two cards of a team by their one address.
        team = old.mac if old and old.teamed and not (wish.network or wish.bridge) else ""
        mac = wish.mac or teams.get(team, "")
        if not mac:
            while (mac := random_mac()) in taken:
                pass
            taken.add(mac)
            generated.append(mac)
        if team:
            teams[team] = mac
        cards.append(NewCard(mac, wish.network, wish.bridge, wish.model))
    return tuple(cards), tuple(generated)


def _check(number: int, wish: NetworkWish, facts: HostFacts, notes: Notes) -> None:
    said = f"'networks' item {number + 1}"
    if bool(wish.network) == bool(wish.bridge):
        notes.conflicts.append(
            f"{said} must name either a network or a bridge, and names "
            f"{'both' if wish.network else 'neither'}."
        )
    if wish.network and wish.network not in facts.networks:
        notes.conflicts.append(
            f"{said}: there is no network '{wish.network}'. See: virsh net-list --all"
        )
    elif wish.network and not facts.networks[wish.network]:
        notes.conflicts.append(
            f"{said}: network '{wish.network}' is not started. "
            f"Start it: virsh net-start {wish.network}"
        )
    if wish.bridge:
        _check_bridge(said, wish.bridge, facts, notes)
    if wish.model and wish.model not in MODELS:
        notes.conflicts.append(
            f"{said}: there is no network card '{wish.model}'. There are: {', '.join(MODELS)}."
        )


def _check_bridge(said: str, bridge: str, facts: HostFacts, notes: Notes) -> None:
    found = facts.bridges.get(bridge, "unknown")
    if not _DEVICE.fullmatch(bridge) or found == "missing":
        notes.conflicts.append(f"{said}: there is no bridge '{bridge}'. See: ip link")
    elif found == "other":
        notes.conflicts.append(
            f"{said}: '{bridge}' is no Linux bridge. For Open vSwitch or macvtap define a libvirt "
            "network over it, and name that with 'network:'."
        )
    elif found == "unknown":
        notes.warnings.append(
            f"{said}: whether the bridge '{bridge}' exists cannot be seen from here."
        )


def _check_macs(wishes: tuple[NetworkWish, ...], facts: HostFacts, notes: Notes) -> None:
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
            notes.conflicts.append(f"{said} is no address. Take one that begins with 52:54:00.")
        if wish.mac in seen:
            notes.conflicts.append(f"{said} stands twice in the request.")
        if wish.mac in facts.macs:
            notes.conflicts.append(f"{said} belongs to '{facts.macs[wish.mac]}' already.")
        seen.add(wish.mac)


def random_mac() -> str:
    """A MAC address in the range that belongs to QEMU and KVM guests (52:54:00)."""
    return "52:54:00:" + ":".join(f"{random.SystemRandom().randrange(256):02x}" for _ in range(3))
