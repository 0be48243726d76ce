"""Show on the page every clone, what to sort them by, and whose ttl ends soon. Pure."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone.display.clones import STATES
from saltext.kvmclone.display.page.picture import Picture
from saltext.kvmclone.display.text import visible
from saltext.kvmclone.model import units
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.hints import Commands

#: Seconds before its end from which a ttl counts as one that ends soon.
_SOON_S = 3 * 86400.0

#: As many digits at once as Python reads in any case.
_NUMBER = re.compile(r"(\d{1,999})")


@dataclass(frozen=True)
class _Column:
    """
    One column of the table.

    :param value: Its text, of a clone, at a time in seconds since the epoch.
    :param key: What it is sorted by; None where it is empty, which comes last.
    :param style: Its class in the page.
    """

    title: str
    value: Callable[[Clone, float], str]
    key: Callable[[Clone], Any]
    style: str = ""


def _natural(text: str) -> Any:
    """Return what a text is sorted by, so that ``web2`` comes before ``web10``."""
    if not text:
        return None
    parts = _NUMBER.split(text.lower())
    return [(0, int(part), "") if n % 2 else (1, 0, part) for n, part in enumerate(parts)]


def _text(title: str, field: str, style: str = "") -> _Column:
    def value(clone: Clone, _now: float = 0.0) -> str:
        return str(getattr(clone, field))

    return _Column(title, value, lambda clone: _natural(value(clone)), style)


def _state(clone: Clone) -> str:
    return STATES.get(clone.state, clone.state)


def _age(clone: Clone, now: float) -> str:
    return units.span(now - clone.created) if clone.created else ""


def _left(clone: Clone, now: float) -> str:
    if not clone.expires:
        return ""
    return "over" if clone.expires <= now else units.span(clone.expires - now)


def remarks(clone: Clone) -> list[str]:
    """Return what should be known of a clone; the end of its ttl has its own place."""
    said = [f"Its create failed: {clone.failed}"] if clone.failed else []
    said += ["Its base changed since it was made."] if clone.drift else []
    return said + [one for one in clone.warnings if not one.startswith("Its ttl end")]


def _mark(clone: Clone, _now: float = 0.0) -> str:
    if clone.failed:
        return "failed"
    return "base changed" if clone.drift else "remark" if remarks(clone) else ""


#: The columns after the name.
_COLUMNS = (
    _text("Host", "host", "wide"),
    _Column("State", lambda clone, _now: _state(clone), lambda clone: _state(clone) or None),
    _text("Stage", "stage", "wide"),
    _Column(
        "Address",
        lambda clone, _now: clone.address,
        lambda clone: units.address_key(clone.address) if clone.address else None,
        "mono",
    ),
    _text("Base", "base", "wide"),
    _text("Copy", "strategy", "wide"),
    _Column("Age", _age, lambda clone: -clone.created if clone.created else None, "wide"),
    _Column("Ends in", _left, lambda clone: clone.expires or None, "wide"),
    _Column("Look", _mark, lambda clone: _mark(clone) or None),
)

#: The titles and classes of all columns, the name first.
TITLES = (("Name", ""), *((column.title, column.style) for column in _COLUMNS))


@dataclass(frozen=True)
class CloneRow:
    """
    One clone.

    :param cells: The text and class of each column after the name.
    """

    name: str
    cells: tuple[tuple[str, str], ...]


def rows(picture: Picture) -> list[CloneRow]:
    """Return every clone, by name."""
    return [
        CloneRow(
            key, tuple((one.value(clone, picture.made), _style(one, clone)) for one in _COLUMNS)
        )
        for key, clone in _by_name(picture.clones)
    ]


def _style(column: _Column, clone: Clone) -> str:
    if column.title == "State":
        return f"state {'on' if clone.state == 'running' else 'off'}"
    return column.style


def _by_name(clones: Mapping[str, Clone]) -> list[tuple[str, Clone]]:
    return sorted(clones.items(), key=lambda pair: _natural(pair[0]) or [])


def data(picture: Picture) -> dict[str, Any]:
    """
    Return what the page's script needs.

    :return: ``made``, and for each clone in the order of :func:`rows` its ``ranks``, one for each
        column, by which it is sorted (None for an empty cell), and what is shown of it on demand.
    """
    found = _by_name(picture.clones)
    clones = [clone for _key, clone in found]
    ranks = [_ranks(range(len(found)))]
    ranks += [_ranks(column.key(clone) for clone in clones) for column in _COLUMNS]
    shown = [
        {"ranks": list(places), "more": _more(clone)}
        for places, clone in zip(zip(*ranks, strict=True), clones, strict=True)
    ]
    return {"made": picture.made, "clones": shown}


def _ranks(keys: Iterable[Any]) -> list[int | None]:
    """Return the place of each key in their order; equal ones share theirs."""
    keys = list(keys)
    order = sorted(key for key in keys if key is not None)
    return [None if key is None else bisect.bisect_left(order, key) for key in keys]


def _more(clone: Clone) -> list[tuple[str, str]]:
    """Return the rest of a clone, as pairs of words; what is empty is left out."""
    addresses = (f"{one.address} ({one.interface or one.mac})" for one in clone.addresses)
    disks = (f"{one.target}: {one.path} ({one.format}, {one.strategy})" for one in clone.disks)
    minion, claim = clone.minion, clone.claim
    pairs = [
        ("Remarks", "\n".join(remarks(clone))),
        ("Addresses", "\n".join(addresses)),
        ("Disks", "\n".join(disks)),
        ("Minion", f"{minion.id}, Salt {minion.version}" if minion.version else minion.id),
        ("Host", clone.host),
        ("Stage", clone.stage),
        ("Base", f"{clone.base} ({clone.strategy})" if clone.strategy else clone.base),
        ("Profile", clone.profile),
        ("Spare", "in stock" if clone.in_stock else ""),
        ("Claimed", f"by {claim.by}, {units.moment(claim.at)}" if claim.at else ""),
        ("Tags", ", ".join(clone.tags)),
        ("Made", units.moment(clone.created) if clone.created else ""),
        ("Ends", units.moment(clone.expires) if clone.expires else ""),
        ("Uuid", clone.uuid),
    ]
    return [(words, visible(text)) for words, text in pairs if text]


@dataclass(frozen=True)
class Ending:
    """
    A clone whose ttl is over, or ends soon.

    :param when: The end as people write it, ``left`` what is left until then.
    :param command: What removes the clone.
    """

    name: str
    host: str
    when: str
    left: str
    command: str


def endings(picture: Picture) -> tuple[list[Ending], int]:
    """Return the clones whose ttl is over or ends soon, the first one first; and how many later."""
    timed = sorted(
        ((key, clone) for key, clone in picture.clones.items() if clone.expires),
        key=lambda pair: (pair[1].expires, pair[0]),
    )
    soon = [
        Ending(
            key,
            clone.host,
            units.short_moment(clone.expires),
            _left(clone, picture.made),
            Commands().clone("destroy", clone.name),
        )
        for key, clone in timed
        if clone.expires <= picture.made + _SOON_S
    ]
    return soon, len(timed) - len(soon)
