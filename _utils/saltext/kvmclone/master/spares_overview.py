"""
Say which spares there are, who has the claimed ones, and whether anything refills the stock.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from saltext.kvmclone.config import meant
from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.inventory.findings import Finding
from saltext.kvmclone.master import spares_make, spares_notes
from saltext.kvmclone.master.all_hosts import with_failures
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.master.spares_notes import Notes
from saltext.kvmclone.master.spares_stock import (
    CLAIMED,
    FAILED,
    IN_STOCK,
    MAKING,
    Wish,
    kind_of,
    why_unusable,
)
from saltext.kvmclone.model import units
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.hints import Commands

#: Seconds since the last look at the hosts after which nothing seems to refill the stock: the
#: schedule that the documentation names is due three times in that.
SILENCE_S = 900.0

#: What refills the stock.
_REFILL = Commands().clone("work_off")


def overview(fleet: Fleet, profile: str = "") -> dict[str, Any]:
    """
    Return the spares of all profiles.

    :param profile: Only of this one; empty for all that want spares or have some.
    :return: See ``spares`` in docs/answers.md.
    :raises ConfigError: There is no such profile.
    """
    if profile:
        meant.require_at_master(fleet.catalogue, "spares", profile, [], {})
        spares_make.of_profile(fleet, profile)
    told, failed = fleet.everywhere.look(lambda host: host.list_clones(spares=True))
    clones = [clone for _label, clone in fleet.everywhere.each_once(told)]
    wishes, _unread = spares_make.wishes(fleet, sorted({one.profile for one in clones}))
    notes = spares_notes.read(fleet.opts)
    names = [profile] if profile else sorted({*wishes, *(one.profile for one in clones)})
    shown = {
        name: _of_profile(wishes.get(name), [c for c in clones if c.profile == name])
        | _failure(notes, name)
        for name in names
    }
    answer: dict[str, Any] = {
        "spares": shown,
        "clones": {clone.name: clone.as_dict() for clone in clones if clone.profile in names},
        "refilled": notes.looked,
        "retcode": 0,
    }
    if any(wish.number for wish in wishes.values()) and (text := why_not_refilled(notes)):
        answer["warnings"] = [text]
    return with_failures(answer, failed)


def _of_profile(wish: Wish | None, clones: Iterable[Clone]) -> dict[str, Any]:
    digest = wish.digest if wish else ""
    shown: dict[str, Any] = {"wanted": wish.number if wish else 0}
    shown |= {kind: {} for kind in (IN_STOCK, MAKING, CLAIMED, FAILED, "unusable")}
    for clone in sorted(clones, key=lambda one: one.name):
        kind = kind_of(clone, digest)
        row: dict[str, Any] = {"host": clone.host, "stage": clone.stage, "since": clone.created}
        if kind == CLAIMED:
            row |= {"by": clone.claim.by, "since": clone.claim.at, "until": clone.expires}
        elif kind == FAILED:
            row["reason"] = clone.failed
        elif kind not in (IN_STOCK, MAKING):
            kind, row["reason"] = "unusable", why_unusable(clone, digest) or "it is being destroyed"
        shown[kind][clone.name] = row
    return shown


def _failure(notes: Notes, profile: str) -> dict[str, Any]:
    """Return what stands in the way of more spares of a profile; empty for nothing."""
    failure = notes.failures.get(profile)
    return {"error": failure.error, "again": failure.until} if failure else {}


def why_not_refilled(notes: Notes) -> str:
    """Return why it seems that nothing refills the stock; empty where something does."""
    if time.time() - notes.looked < SILENCE_S:
        return ""
    since = f"since {units.short_moment(notes.looked)}" if notes.looked else "so far"
    return (
        f"Nothing has refilled the stock of spares {since}. Once: {_REFILL}   Regularly: the "
        "'schedule:' of docs/spares.md, in the master's configuration."
    )


def findings(opts: Mapping[str, Any], catalogue: Catalogue) -> list[Finding]:
    """Return what ``doctor`` finds there, and the profiles of which no spare can be made."""
    notes = spares_notes.read(opts)
    wanted = [name for name, number in spares_make.numbers(catalogue).items() if number]
    found = [
        Finding(
            "spares-failed",
            name,
            f"No spare of '{name}' can be made; failures in a row: {failure.count}. The last: "
            f"{failure.error}",
            Commands().clone("spares", name),
        )
        for name, failure in sorted(notes.failures.items())
        if name in wanted
    ]
    if wanted and time.time() - notes.looked >= SILENCE_S:
        text = why_not_refilled(notes).partition(" Once:")[0]
        found.append(Finding("spares-not-refilled", ", ".join(wanted), text, _REFILL))
    return found
