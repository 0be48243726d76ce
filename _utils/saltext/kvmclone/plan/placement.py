"""
Choose the host of a clone, by what each host has promised.

Pure. First every host is held against what the clone needs, and gets a reason; then those that fit
are put into the order that the profile wants. The host itself checks its room again with
:func:`room_fault` before it begins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from saltext.kvmclone.errors import BaseDiffers, BaseMissing, NoHostFits
from saltext.kvmclone.model.placement import (
    FEWEST,
    FIRST,
    PACK,
    ROUND_ROBIN,
    Decision,
    HostLimits,
    HostOffer,
    Need,
    Placement,
    Reserved,
    Verdict,
)
from saltext.kvmclone.model.units import size

#: A host that was asked: what it offers, or why it cannot be chosen, in words.
Asked = HostOffer | str

_DEFAULT = HostLimits()


def choose(
    asked: Mapping[str, Asked],
    limits: Mapping[str, HostLimits],
    wish: Placement,
    reserved: Sequence[Reserved] = (),
    seed: str = "",
    last: str = "",
    base: str = "",
) -> Decision:
    """
    Decide about every host, and put those that fit into order.

    :param asked: What each host offers, in the order in which the profile names them.
    :param limits: How much each may promise; the default for one that is not among them.
    :param reserved: Creates under way on these hosts.
    :param seed: Decides between hosts that are equal; the same one always in the same way.
    :param last: The host that ``round-robin`` took last; empty for none.
    :param base: Name of the base, for the commands in the reasons.
    :raises BaseDiffers: The base is not the same on the hosts that have it.
    """
    _require_one_base(asked, limits)
    having = _having(asked, limits)
    unknown = [host for host, offer in having.items() if len(having) > 1 and not offer.digest]
    unread = False
    verdicts = []
    for host, offer in asked.items():
        mine = [one for one in reserved if one.host == host and not _is_known(one, offer)]
        verdict = _judge(host, offer, limits.get(host, _DEFAULT), wish, mine, base)
        if verdict.fits and host in unknown:
            unread = True
            others = ", ".join(one for one in having if one != host)
            text = f"it is not known whether its base is that of {others}: {_read_it(base)}"
            verdict = Verdict(host, False, text)
        verdicts.append(verdict)
    fitting = [one.host for one in verdicts if one.fits]
    order = _ordered(fitting, asked, limits, wish, reserved, seed, last)
    return Decision(tuple(verdicts), tuple(order), unread)


def require_host(decision: Decision, asked: Mapping[str, Asked], base: str, name: str) -> str:
    """
    Return the host that was chosen.

    :param base: Name of the base, ``name`` that of the clone, for the message.
    :raises BaseMissing: No host has the base.
    :raises NoHostFits: None can take the clone; every host stands there with its reason.
    """
    if decision.chosen:
        return decision.chosen
    offers = [offer for offer in asked.values() if isinstance(offer, HostOffer)]
    listed = "; ".join(f"{one.host}: {one.reason}" for one in decision.verdicts)
    nowhere = not any(one.has_base or is_to_come(one) or one.conflicts for one in offers)
    if offers and len(offers) == len(asked) and nowhere:
        raise BaseMissing(
            f"'{name}' cannot be placed: the base '{base}' is on none of its hosts "
            f"({', '.join(asked)}).",
            f"Copy it there: salt-run kvmclone.push {base} {next(iter(asked))}   Or name the host "
            "that has it in 'hosts'.",
        )
    if decision.unread:
        raise NoHostFits(
            f"No host fits '{name}'. {listed}.", f"Have the bases compared: {_read_it(base)}"
        )
    raise NoHostFits(
        f"No host fits '{name}'. {listed}.",
        "Make room, or change 'kvm_clone: hosts:' of the master. What each host has: "
        "salt-run kvmclone.hosts",
    )


# --- one host -------------------------------------------------------------------------


def _judge(
    host: str,
    offer: Asked,
    limits: HostLimits,
    wish: Placement,
    reserved: Sequence[Reserved],
    base: str,
) -> Verdict:
    """Return what speaks for or against a host; the first reason against it counts."""
    if isinstance(offer, str):
        return Verdict(host, False, offer)
    if limits.maintenance:
        return Verdict(host, False, "in maintenance")
    if offer.conflicts:
        return Verdict(host, False, " ".join(offer.conflicts).rstrip("."))
    if not (offer.has_base or is_to_come(offer)):
        push = f"salt-run kvmclone.push {base} {host}"
        return Verdict(host, False, f"the base is missing: {push}")
    if fault := apart_fault(offer, wish.apart if wish.required else "", reserved):
        return Verdict(host, False, fault)
    needs = [one.need for one in reserved]
    if fault := room_fault(offer, offer.need, limits, needs):
        return Verdict(host, False, fault)
    taken = offer.promised.memory + sum(need.memory for need in needs)
    first = "" if offer.has_base else "the base is copied there first; "
    share = f"{size(taken)} of {size(_memory(offer, limits))} memory are promised"
    return Verdict(host, True, f"{first}{share}")


def _is_known(reserved: Reserved, offer: Asked) -> bool:
    """Return whether a host counts a create under way itself, since its domain is defined."""
    return isinstance(offer, HostOffer) and reserved.name in offer.there


def _memory(offer: HostOffer, limits: HostLimits) -> int:
    """Return how many bytes of memory a host may promise."""
    return max(0, int(offer.memory * limits.memory_ratio) - limits.reserve_memory)


def room_fault(
    offer: HostOffer, need: Need, limits: HostLimits, reserved: Iterable[Need] = ()
) -> str:
    """
    Say why a host has no room for a clone; empty where it has.

    :param need: What the clone takes.
    :param reserved: What creates under way will take that the host does not count yet.
    """
    others = list(reserved)
    memory = _memory(offer, limits)
    taken = offer.promised.memory + sum(one.memory for one in others)
    if taken + need.memory > memory:
        return (
            f"memory: {size(taken)} of {size(memory)} are promised, and it takes "
            f"{size(need.memory)}"
        )
    cpus = int(offer.cpus * limits.cpu_ratio)
    virtual = offer.promised.cpus + sum(one.cpus for one in others)
    if virtual + need.cpus > cpus:
        return f"CPUs: {virtual} of {cpus} are promised, and it takes {need.cpus}"
    return next(
        filter(None, (_disk_fault(p, offer, need, limits, others) for p in need.growth)), ""
    )


def excess(offer: HostOffer, limits: HostLimits) -> str:
    """Say which of its limits a host's promises are beyond; empty for none."""
    memory, cpus = _memory(offer, limits), int(offer.cpus * limits.cpu_ratio)
    promised = offer.promised
    told = []
    if promised.memory > memory:
        told.append(f"{size(promised.memory)} of memory, and may promise {size(memory)}")
    if promised.cpus > cpus:
        told.append(f"{promised.cpus} CPUs, and may promise {cpus}")
    return "; ".join(told)


def _disk_fault(
    pool: str, offer: HostOffer, need: Need, limits: HostLimits, others: Sequence[Need]
) -> str:
    """Say why a pool has no room; pools on one file system share it."""
    if pool not in offer.pools:
        return f"the storage pool '{pool}' is not active"
    place = offer.pools[pool].filesystem or pool
    beside = [name for name, one in offer.pools.items() if (one.filesystem or name) == place]
    free = max(0, min(offer.pools[name].available for name in beside) - limits.reserve_disk)
    needs = [need, *others]
    copies = sum(one.copies.get(name, 0) for one in needs for name in beside)
    if copies > free:
        return f"pool '{pool}': {size(free)} are free, and copies take {size(copies)}"
    growth = sum(offer.pools[name].growth for name in beside)
    growth += sum(one.growth.get(name, 0) for one in needs for name in beside)
    most = int(free * limits.disk_ratio)
    if growth > most:
        return (
            f"pool '{pool}': with this one, volumes may still grow by {size(growth)}, and at most "
            f"{size(most)} are allowed ({size(free)} free, disk_ratio {limits.disk_ratio:g})"
        )
    return ""


def apart_fault(offer: HostOffer, tag: str, reserved: Iterable[Reserved] = ()) -> str:
    """
    Say why a clone may not be beside those that a host has; empty where it may.

    :param tag: It is to be apart from clones with this one; empty for none.
    """
    if tag and _tagged(offer, tag, reserved):
        return f"has a clone with the tag '{tag}' already"
    return ""


def _tagged(offer: HostOffer, tag: str, reserved: Iterable[Reserved]) -> int:
    """Return how many clones with a tag a host has, those under way among them."""
    return offer.tags.get(tag, 0) + sum(tag in one.tags for one in reserved)


# --- the base -------------------------------------------------------------------------


def _require_one_base(asked: Mapping[str, Asked], limits: Mapping[str, HostLimits]) -> None:
    """
    Refuse a base that is not one and the same on all hosts that have it.

    :raises BaseDiffers: It is not.
    """
    having = _having(asked, limits)
    for told in (_shape, _digest):
        groups: dict[str, list[str]] = {}
        for host, offer in having.items():
            if told(offer):
                groups.setdefault(told(offer), []).append(host)
        if len(groups) > 1:
            listed = "; ".join(f"{', '.join(hosts)}: {what}" for what, hosts in groups.items())
            raise BaseDiffers(
                f"The base is not the same on every host, nor would a clone be. {listed}",
                "Name only hosts with the right one in 'hosts', or put the others into "
                "maintenance (kvm_clone: hosts: of the master), until theirs is replaced.",
            )


def unread(asked: Mapping[str, Asked]) -> tuple[str, ...]:
    """Return the hosts that have the base with a content that is not known."""
    return tuple(
        host
        for host, offer in asked.items()
        if isinstance(offer, HostOffer) and offer.has_base and not offer.digest
    )


def sources(asked: Mapping[str, Asked]) -> tuple[str, ...]:
    """
    Return the hosts that the base can be copied from, also those in maintenance.

    They are one host, or have the same base for certain; otherwise none.
    """
    having = {
        host: offer
        for host, offer in asked.items()
        if isinstance(offer, HostOffer) and offer.has_base
    }
    read = tuple(host for host, offer in having.items() if offer.digest)
    if len({having[host].digest for host in read}) > 1:
        return ()
    return read or (tuple(having) if len(having) == 1 else ())


def with_base(asked: Mapping[str, Asked], source: HostOffer) -> dict[str, Asked]:
    """
    Return what each host offers where the base may be copied to those that lack it.

    :param source: What the host offers that has it: how much a clone takes is known there alone.
    """
    need, taken = source.need, source.base_disks
    both = Need(need.memory, need.cpus, _sum(need.copies, taken), _sum(need.growth, taken))
    return {
        host: replace(offer, need=both, base_disks=taken)
        if isinstance(offer, HostOffer) and not offer.has_base
        else offer
        for host, offer in asked.items()
    }


def without_base(offer: HostOffer) -> HostOffer:
    """Return the same where the copy of the base is another clone's already."""
    need, taken = offer.need, {pool: -size for pool, size in offer.base_disks.items()}
    alone = Need(need.memory, need.cpus, _sum(need.copies, taken), _sum(need.growth, taken))
    return replace(offer, need=alone, base_disks={})


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {pool: one.get(pool, 0) + other.get(pool, 0) for pool in (*one, *other)}


def is_to_come(offer: HostOffer) -> bool:
    """Return whether a base that is missing is copied to a host if that is chosen."""
    return not offer.has_base and offer.need != Need()


def _having(asked: Mapping[str, Asked], limits: Mapping[str, HostLimits]) -> dict[str, HostOffer]:
    """Return the offers of the hosts that have the base and may get a clone at all."""
    return {
        host: offer
        for host, offer in asked.items()
        if isinstance(offer, HostOffer)
        and offer.has_base
        and not limits.get(host, _DEFAULT).maintenance
    }


def _read_it(base: str) -> str:
    return f"salt-run kvmclone.bases {base} hash=True"


def _shape(offer: HostOffer) -> str:
    return offer.base


def _digest(offer: HostOffer) -> str:
    return offer.digest


# --- the order ------------------------------------------------------------------------


def _ordered(
    fitting: Sequence[str],
    asked: Mapping[str, Asked],
    limits: Mapping[str, HostLimits],
    wish: Placement,
    reserved: Sequence[Reserved],
    seed: str,
    last: str,
) -> list[str]:
    """Return the hosts that fit, the best first."""
    offers = {h: offer for h in fitting if isinstance(offer := asked[h], HostOffer)}
    mine = {
        host: [one for one in reserved if one.host == host and not _is_known(one, offer)]
        for host, offer in offers.items()
    }

    def share(host: str) -> float:
        taken = offers[host].promised.memory + sum(one.need.memory for one in mine[host])
        return taken / (_memory(offers[host], limits.get(host, _DEFAULT)) or 1)

    def clones(host: str) -> float:
        return offers[host].clones + len(mine[host])

    turn = sorted(asked)
    turn = turn[turn.index(last) + 1 :] + turn if last in turn else turn
    keys: dict[str, Callable[[str], float]] = {
        PACK: lambda host: -share(host),
        FEWEST: clones,
        ROUND_ROBIN: turn.index,
        FIRST: list(asked).index,
    }
    key = keys.get(wish.order, share)

    def rank(host: str) -> tuple[float, float, float, bool, str]:
        apart = _tagged(offers[host], wish.apart, mine[host]) if wish.apart else 0
        beside = clones(host) if key is share else 0
        return apart, key(host), beside, not offers[host].has_base, _lot(seed, host)

    return sorted(offers, key=rank)


def _lot(seed: str, host: str) -> str:
    """Return a word that puts equal hosts into an order of its own for each seed."""
    return hashlib.sha256(f"{seed} {host}".encode()).hexdigest()
