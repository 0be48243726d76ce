"""
Refuse a source of addresses that cannot know the clone's, before anybody waits for it.

Pure. Only what is certain is refused: a guest that is slow, or whose network is somebody else's
business, is waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from saltext.kvmclone.model.domain_xml import AGENT_CHANNEL, Domain, Interface
from saltext.kvmclone.model.facts import NetworkFacts, Subnet
from saltext.kvmclone.model.request import AddressPick, Request
from saltext.kvmclone.plan import reservation

_CHANNEL = f"qemu-guest-agent and its channel ({AGENT_CHANNEL})"


@dataclass(frozen=True)
class _Reason:
    """
    Why an interface gets no lease.

    :param reserves: Its network hands out addresses that are reserved, and no others.
    """

    text: str
    reserves: bool = False


def against(clone: Domain, networks: Mapping[str, NetworkFacts], request: Request) -> list[str]:
    """
    Return why the clone's address can never be known by its ``ip_source``; mostly nothing.

    :param clone: The clone's own definition.
    :param networks: Facts of the libvirt networks that it is on, by name.
    """
    if request.ip_source == "qemu-agent" and not clone.has_agent_channel:
        return [
            "'ip_source: qemu-agent' asks the agent in the guest, and the clone's definition has "
            f"no channel for one. Write 'ip_source: auto' instead, or put {_CHANNEL} into the base."
        ]
    if request.ip_source != "ip-learning":
        return []
    found = [_no_lease(card, networks, request.pick) for card in _wanted(clone, request.pick)]
    reasons = tuple(dict.fromkeys(one for one in found if one is not None))
    if None in found:
        return []
    listed = "; ".join(one.text for one in reasons) or "it has no network interface"
    return [
        "'ip_source: ip-learning' knows what libvirt's networks hand out, and the clone gets no "
        f"address from them: {listed}. {_instead(clone, networks, reasons)}"
    ]


def _wanted(clone: Domain, pick: AddressPick) -> tuple[Interface, ...]:
    """Return the interfaces whose address may count; a name of the guest's own says nothing yet."""
    wanted, cards = pick.interface.lower(), clone.interfaces
    named = tuple(one for one in cards if wanted in (one.source.lower(), one.mac))
    return named if wanted and named else cards


def _no_lease(
    card: Interface, networks: Mapping[str, NetworkFacts], pick: AddressPick
) -> _Reason | None:
    """Return why an interface gets no lease that counts; None where it may get one."""
    facts = reservation.network_of(card, networks)
    if facts is None:
        if card.kind == "network":
            return None  # it is not there, or not yet
        source = f" '{card.source}'" if card.source else ""
        return _Reason(f"its interface is on {card.kind}{source}, which is no network of libvirt's")
    named = f"network '{facts.name}'"
    if not facts.serves:
        mode = f" (forward mode '{facts.forward}')" if facts.forward else " (it has no <dhcp>)"
        return _Reason(f"{named} hands out none{mode}")
    fitting = [subnet for subnet in facts.subnets if subnet.dhcp and _counts(subnet, pick)]
    if not fitting:
        return _Reason(f"{named} hands out none that 'pick' asks for")
    listed = any(entry.mac == card.mac for entry in facts.entries)
    if all(reservation.family(one) == "ipv4" and not one.ranges for one in fitting) and not listed:
        return _Reason(f"{named} hands out only what it reserves (it has no <range>)", True)
    return None


def _counts(subnet: Subnet, pick: AddressPick) -> bool:
    if pick.family and pick.family != reservation.family(subnet):
        return False
    return not pick.cidr or reservation.meets([subnet], pick.cidr)


def _instead(
    clone: Domain, networks: Mapping[str, NetworkFacts], reasons: tuple[_Reason, ...]
) -> str:
    """Return what to write instead, by what the clone has."""
    if not clone.interfaces:
        return "Give it one: 'networks: [{network: default}]'."
    if any(one.reserves for one in reasons):
        return "Write 'ip_source: reserve' instead, with an 'address:' of the network."
    if clone.has_agent_channel:
        return "Write 'ip_source: qemu-agent' instead."
    agent = f"put {_CHANNEL} into the base, and write 'ip_source: qemu-agent'."
    facts = {card: reservation.network_of(card, networks) for card in clone.interfaces}
    if any(card.kind == "bridge" or (one and one.bridge) for card, one in facts.items()):
        return (
            "Write 'ip_source: arp' instead, which works where the guest talks with its host. Or "
            + agent
        )
    return agent[0].upper() + agent[1:]
