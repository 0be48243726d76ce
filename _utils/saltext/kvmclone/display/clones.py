"""Show clones to a person: a table, one of them in full, and a line for what was done. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone.display import text
from saltext.kvmclone.display.failures import failure, unreachable
from saltext.kvmclone.display.screen import Screen, noted
from saltext.kvmclone.display.text import Column
from saltext.kvmclone.model import units

#: One clone: what it is called in the answer, and CLONE.
Row = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class _Field:
    """
    One column of ``list``.

    :param value: Its text, of a row, at a time in seconds since the epoch.
    :param key: What rows are sorted by; None for the text.
    """

    column: Column
    value: Callable[[Row, float], str]
    key: Callable[[Row], Any] | None = None


def _plain(key: str) -> Callable[[Row, float], str]:
    return lambda row, _now: str(row[1].get(key) or "")


def _minion(key: str) -> Callable[[Row, float], str]:
    return lambda row, _now: str((row[1].get("minion") or {}).get(key) or "")


def _created(row: Row) -> float:
    note = noted(row[0])
    return note.clone.created if note else 0.0


def _expires(row: Row) -> float:
    note = noted(row[0])
    return note.clone.expires if note else 0.0


def _tags(row: Row, _now: float) -> str:
    note = noted(row[0])
    return ",".join(note.clone.tags) if note else ""


def _claimed(row: Row, _now: float) -> str:
    claimed = row[1].get("claimed")
    return "in stock" if row[1].get("spare") else f"by {claimed['by']}" if claimed else ""


def _age(row: Row, now: float) -> str:
    return units.span(now - _created(row)) if _created(row) else ""


def _ttl(row: Row, now: float) -> str:
    left = _expires(row) - now
    return "" if not _expires(row) else "over" if left <= 0 else units.span(left)


def _marks(row: Row, _now: float) -> str:
    """Return why one should look at a clone: failed, drift, or another warning."""
    note = noted(row[0])
    words = ["failed"] if note and note.clone.failed else []
    words += ["drift"] if row[1].get("drift") else []
    count = len(row[1].get("warnings") or ()) - bool(_expires(row))  # the ttl has its column
    return ",".join(words) or ("warn" if count > 0 else "")


#: Every column of ``list`` by the name that ``columns=`` and ``sort=`` know it by.
COLUMNS = {
    "name": _Field(Column("NAME", 24, names=True), lambda row, _now: row[0]),
    "host": _Field(Column("HOST", 12, names=True), _plain("host")),
    "state": _Field(Column("STATE", 7), _plain("state")),
    "stage": _Field(Column("STAGE", 9), _plain("stage")),
    "address": _Field(
        Column("ADDRESS", 15), _plain("address"), lambda row: units.address_key(row[1]["address"])
    ),
    "base": _Field(Column("BASE", 6, names=True), _plain("base")),
    "age": _Field(Column("AGE", 6), _age, lambda row: -_created(row)),
    "ttl": _Field(Column("TTL", 6), _ttl, lambda row: (not _expires(row), _expires(row))),
    "claimed": _Field(Column("CLAIMED", 8), _claimed),
    "!": _Field(Column("!", 5), _marks),
    "profile": _Field(Column("PROFILE", 7, names=True), _plain("profile")),
    "strategy": _Field(Column("STRATEGY", 5), _plain("strategy")),
    "minion": _Field(Column("MINION", 10, names=True), _minion("id")),
    "version": _Field(Column("VERSION", 6), _minion("version")),
    "tags": _Field(Column("TAGS", 6), _tags),
    "uuid": _Field(Column("UUID", 36), _plain("uuid")),
}

#: The columns that are shown by default, those of them that are only where one says something, and
#: those that are where there is room, too.
_USUAL = ("name", "host", "state", "stage", "address", "base", "age", "ttl", "claimed", "!")
_WHERE_SAID = ("age", "ttl", "claimed", "!")
_WHERE_ROOM = ("profile", "version", "tags")


def column_names(given: Any) -> tuple[str, ...]:
    """
    Return the columns that were asked for.

    :param given: Names as a list, or as a text with commas; None for the usual ones.
    """
    listed = given if isinstance(given, (list, tuple)) else str(given).split(",")
    if given is None:
        return ()
    return tuple(str(name).strip().lower() for name in listed)


def sort_key(column: str) -> Callable[[Row], Any]:
    """Return what rows are sorted by for a column of :data:`COLUMNS`."""
    field = COLUMNS[column]
    return field.key or (lambda row: field.value(row, 0.0))


def listing(answer: Mapping[str, Any], screen: Screen) -> list[str]:
    """
    Show a table of clones, how many there are, and which hosts did not answer.

    :param answer: ``{"clones": {NAME: CLONE}}``, sometimes with ``unreachable``.
    """
    rows: list[Row] = list(answer["clones"].items())
    lines = _table(rows, column_names(screen.options.get("columns")), screen) if rows else []
    narrowed = set(screen.options) & {"host", "base", "profile", "tag", "state"}
    hosts = {clone["host"] for _name, clone in rows}
    count = text.counted(len(rows), "clone") if rows else "No clones"
    for key, word in (("spare", "in stock"), ("claimed", "claimed")):
        if (wanted := screen.options.get(key)) is not None:
            count += f" {word}" if wanted else f" not {word}"
    if narrowed:
        count += f" with {', '.join(f'{key} {screen.options[key]}' for key in sorted(narrowed))}"
    if len(hosts) > 1:
        count += f" on {len(hosts)} hosts"
    return [*lines, count, *unreachable(answer.get("unreachable") or {}, screen)]


def _table(rows: Sequence[Row], wanted: Sequence[str], screen: Screen) -> list[str]:
    chosen = list(wanted or _shown_by_default(rows, screen))
    cells = [[COLUMNS[name].value(row, screen.now) for name in chosen] for row in rows]
    return text.table([COLUMNS[name].column for name in chosen], cells, screen.width)


def _shown_by_default(rows: Sequence[Row], screen: Screen) -> list[str]:
    chosen = [name for name in _USUAL if name not in _WHERE_SAID or _says(name, rows)]
    for name in _WHERE_ROOM:
        more = [*chosen, name]
        cells = [[COLUMNS[one].value(row, screen.now) for one in more] for row in rows]
        wide = text.natural_width([COLUMNS[one].column for one in more], cells)
        if _says(name, rows) and wide <= screen.width:
            chosen = more
    return chosen


def _says(name: str, rows: Iterable[Row]) -> bool:
    """Return whether a column has anything in it; what is not known takes no room."""
    return any(COLUMNS[name].value(row, 0.0) for row in rows)


# --- one clone -----------------------------------------------------------------------

#: Characters that the keys take, with what stands around them.
_KEYS = 13


def shown(name: str, clone: Mapping[str, Any], screen: Screen) -> list[str]:
    """Show one clone: key and value, a line each."""
    if "error" in clone:
        return failure(name, clone["error"], screen)
    minion = clone["minion"]
    addresses = [
        f"{item['address']}  {item['source']}, {item['interface'] or item['mac']}"
        for item in clone["addresses"]
    ]
    room = screen.width - _KEYS
    drift = "changed since this clone was made" if clone["drift"] else ""
    rows: list[tuple[str, Sequence[str]]] = [
        ("state", [", ".join(word for word in (clone["state"], clone["stage"]) if word)]),
        ("address", [clone["address"]] if len(addresses) < 2 else []),
        ("addresses", addresses if len(addresses) > 1 else []),
        ("host", [clone["host"]]),
        ("base", [_joined(clone["base"], clone["strategy"], drift)]),
        ("profile", [clone["profile"]]),
        ("spare", ["in stock"] if clone.get("spare") else []),
        ("claimed", _claim(clone.get("claimed"), screen.now)),
        ("minion", [_joined(minion["id"], _version(minion), _proof(minion))]),
        ("disks", [_disk(disk, room) for disk in clone["disks"]]),
        *_life(name, screen),
        ("took", text.wrapped(_timings(clone["timings"]), room)),
        ("uuid", [clone["uuid"]]),
    ]
    return [name, *text.pairs(rows), *text.warnings(clone["warnings"], screen.width)]


def _life(name: str, screen: Screen) -> list[tuple[str, Sequence[str]]]:
    note = noted(name)
    if note is None or not note.clone.created:
        return []
    made, over = note.clone.created, note.clone.expires
    left = f"in {units.span(over - screen.now)}" if over > screen.now else "over"
    return [
        ("tags", [", ".join(note.clone.tags)]),
        ("created", [f"{units.moment(made)}  {units.span(screen.now - made)} ago"]),
        ("ttl ends", [f"{units.moment(over)}  {left}"] if over else []),
    ]


def _claim(claimed: Mapping[str, Any] | None, now: float) -> list[str]:
    if not claimed:
        return []
    since = f"{units.moment(claimed['at'])}  {units.span(now - claimed['at'])} ago"
    return [f"by {claimed['by']}, {since}"]


def _joined(first: str, *more: str) -> str:
    said = ", ".join(word for word in more if word)
    return f"{first}  {said}".strip() if first else said


def _version(minion: Mapping[str, Any]) -> str:
    return f"Salt {minion['version']}" if minion["version"] else ""


def _proof(minion: Mapping[str, Any]) -> str:
    return f"verified by its {minion['verified_by']}" if minion["verified_by"] else ""


def _disk(disk: Mapping[str, Any], room: int) -> str:
    words = f"{disk['format']}, {disk['strategy']}"
    path = text.cut_path(disk["path"], room - len(words) - len(disk["target"]) - 4)
    return f"{disk['target']}  {path}  {words}"


def _timings(timings: Mapping[str, float]) -> str:
    if not timings:
        return ""
    parts = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in timings.items())
    return f"{units.took(sum(timings.values()))}: {parts}"


# --- what was done -------------------------------------------------------------------


def made(name: str, clone: Mapping[str, Any], screen: Screen) -> list[str]:
    """Show what became of a create: address, time and version, or the error."""
    if "error" in clone:
        return failure(name, clone["error"], screen, clone["stage"])
    note = noted(name)
    if note and note.before:  # a map names it, and it was there
        return [f"{name}  {clone['address'] or clone['state']}  {clone['stage']} already"]
    total = units.took(sum(clone["timings"].values()))
    where = f" on {clone['host']}" if clone["host"] else ""
    line = f"{name}  {clone['address'] or clone['state']}  {clone['stage']} in {total}{where}"
    line = _joined(line, _version(clone["minion"]))
    return [line, *text.warnings(clone["warnings"], screen.width)]


#: What a command did, and what it says where that was so already.
_DONE = {
    "start": ("was started", "running", "was running already"),
    "stop": ("was shut down", "shutoff", "was shut off already"),
    "reboot": ("was rebooted", "running", ""),
    "bootstrap": ("has a minion now; its key waits on the master", "", ""),
    "adopt": ("is a clone of ours now", "", ""),
}
STATES = {"shutoff": "shut off", "pmsuspended": "suspended"}


def powered(name: str, clone: Mapping[str, Any], screen: Screen) -> list[str]:
    """Show what a command did to a clone, or that it was so already."""
    if "error" in clone:
        return failure(name, clone["error"], screen)
    note = noted(name)
    state, address = clone["state"], clone["address"]
    did, goal, already = _DONE[screen.function]
    if note is None and goal:
        words = f"is {STATES.get(state, state)}"
    elif note is not None and note.before == goal and already:
        words = already
    elif note is not None and screen.function == "reboot" and note.before == "shutoff":
        words = "was shut off, so it was started"
    else:
        words = did
    at = f" at {address}" if address and state == "running" else ""
    return [f"{name} {words}{at}.", *text.warnings(clone["warnings"], screen.width)]


def destroyed(name: str, clone: Mapping[str, Any], screen: Screen) -> list[str]:
    """Show that a clone is gone, and what of it stays."""
    if "error" in clone:
        return failure(name, clone["error"], screen)
    dry = screen.options.get("test") is True
    said = [f"{name} {'would be' if dry else 'was'} destroyed."]
    # Of a machine that was gone already, the warnings say what was found instead.
    return [*(said if clone["uuid"] else []), *text.warnings(clone["warnings"], screen.width)]
