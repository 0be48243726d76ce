"""
Decide what is to be done about the spares of all profiles. Pure.

What is there is counted on the hosts' own records, finished or not, so that a master that was
killed in the middle makes none twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.record import DESTROYING

#: The stage at which a spare is complete.
READY = "ready"

#: What a spare counts as.
IN_STOCK, MAKING, FAILED, CLAIMED, UNUSABLE, LEAVING = (
    "stock", "making", "failed", "claimed", "unusable", "leaving",
)  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """
    The spares that a profile wants now.

    :param number: How many.
    :param digest: Digest of what the profile asks; see :meth:`.Secrets.profile_digest_of`.
    """

    number: int
    digest: str


@dataclass(frozen=True)
class Removal:
    """A spare that is to be destroyed, and why, as the end of a sentence."""

    clone: Clone
    reason: str


@dataclass(frozen=True)
class Steps:
    """
    What is to be done.

    :param make: How many spares are to be made, by profile.
    :param remove: The spares that are to be destroyed.
    """

    make: Mapping[str, int] = field(default_factory=dict)
    remove: tuple[Removal, ...] = ()


@dataclass(frozen=True)
class Doing:
    """
    What is known beyond the records of the clones.

    :param making: The spares that this process makes at this moment: profile by name.
    :param leaving: Names of those that it destroys, or failed to destroy.
    :param dead: Names of unfinished clones whose worker is gone.
    :param silent: Names of those whose minion does not answer.
    :param draining: Names of those on a host in maintenance.
    :param unread: Profiles that cannot be read at this moment, so that nothing is known of them.
    """

    making: Mapping[str, str] = field(default_factory=dict)
    leaving: Collection[str] = ()
    dead: Collection[str] = ()
    silent: Collection[str] = ()
    draining: Collection[str] = ()
    unread: Collection[str] = ()


def why_unusable(clone: Clone, digest: str) -> str:
    """
    Return why a finished spare is not handed out, as the end of a sentence; empty if it is.

    :param digest: Of what its profile asks now.
    """
    if clone.spare != digest:
        return "its profile asks for something else now"
    if clone.drift:
        return f"its base '{clone.base}' changed since it was made"
    if clone.state != "running":
        return f"it is {clone.state or 'gone'}"
    return ""


def kind_of(clone: Clone, digest: str) -> str:
    """
    Return what a spare counts as: :data:`IN_STOCK`, :data:`MAKING` …

    :param digest: Of what its profile asks now.
    """
    if clone.claim.at:
        return CLAIMED
    if clone.stage == DESTROYING:
        return LEAVING
    if clone.failed:
        return FAILED
    if clone.stage != READY:
        return MAKING
    return UNUSABLE if why_unusable(clone, digest) else IN_STOCK


def steps(
    wishes: Mapping[str, Wish], clones: Iterable[Clone], now: float, doing: Doing = Doing()
) -> Steps:
    """
    Return what is to be made and destroyed, so that each profile has the spares that it wants.

    A claimed spare is destroyed only when its time is over. One that failed and was kept takes a
    place until somebody has looked at it: a profile that can make none must not fill its hosts.

    :param wishes: What each profile wants.
    :param clones: Every clone of every host that answers.
    :param now: Seconds since the epoch.
    """
    spares = [one for one in clones if one.spare and one.name not in doing.leaving]
    remove = [Removal(one, "its time is over") for one in spares if _is_over(one, now, doing)]
    waiting = [one for one in spares if one.in_stock and one.profile not in doing.unread]
    make = {}
    for profile in sorted({*wishes, *(one.profile for one in waiting)}):
        wish = wishes.get(profile, Wish(0, ""))
        there = [one for one in waiting if one.profile == profile]
        kept, gone = _sorted_out(wish, there, doing)
        under_way = {name for name, made_by in doing.making.items() if made_by == profile}
        count = len(kept | under_way)
        usable = [one for one in there if one.name in kept and one.stage == READY]
        usable.sort(key=lambda one: one.created)  # the newest stay
        surplus = usable[: max(0, count - wish.number)]
        remove += gone
        remove += [Removal(one, "its profile wants fewer spares now") for one in surplus]
        if count < wish.number:
            make[profile] = wish.number - count
    return Steps(make, tuple(remove))


def silent_spares(asked: Collection[Clone], silent: Collection[str]) -> tuple[set[str], list[str]]:
    """
    Return the names of the spares that do not answer, and where that says nothing about them.

    Where none of several answers, on one host or at all, it is the network or the master that does
    not work, and no machine is the worse for it.

    :param silent: Minion ids of those that did not answer.
    """
    hosts = sorted({clone.host for clone in asked})
    groups = {f"on '{host}'": [one for one in asked if one.host == host] for host in hosts}
    groups["of any host"] = list(asked)
    doubtful = {
        where: there
        for where, there in groups.items()
        if len(there) > 1 and all(one.minion.id in silent for one in there)
    }
    doubted = {one.name for there in doubtful.values() for one in there}
    return {one.name for one in asked if one.minion.id in silent} - doubted, list(doubtful)


def _sorted_out(wish: Wish, there: Iterable[Clone], doing: Doing) -> tuple[set[str], list[Removal]]:
    """Return the names of those spares of a profile that count, and those to be destroyed."""
    kept, gone = set(), []
    for clone in there:
        kind = kind_of(clone, wish.digest)
        unfinished = kind in (MAKING, LEAVING)
        if unfinished and clone.name in doing.dead:
            gone.append(Removal(clone, "whatever made it was killed"))
        elif kind == UNUSABLE and not wish.digest:
            gone.append(Removal(clone, "its profile wants no spares any more"))
        elif kind == UNUSABLE:
            gone.append(Removal(clone, why_unusable(clone, wish.digest)))
        elif kind == IN_STOCK and clone.name in doing.silent:
            gone.append(Removal(clone, "its minion does not answer"))
        elif kind == IN_STOCK and clone.name in doing.draining:
            gone.append(Removal(clone, "its host is in maintenance"))
        elif kind != LEAVING:
            kept.add(clone.name)
    return kept, gone


def _is_over(clone: Clone, now: float, doing: Doing) -> bool:
    """Return whether a claimed spare is to go; one that somebody still makes or destroys is not."""
    if not clone.claim.at or not clone.expires or clone.expires > now:
        return False
    return clone.stage == READY or bool(clone.failed) or clone.name in doing.dead
