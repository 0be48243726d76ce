"""Show what minions asked for by event, and what came of it, to a person. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saltext.kvmclone.display import text
from saltext.kvmclone.display.screen import Screen
from saltext.kvmclone.display.text import Column
from saltext.kvmclone.model import units

_ASKED = (
    Column("ASKED", 16), Column("BY", 6, names=True), Column("NAME", 10, names=True),
    Column("PROFILE", 7), Column("STATE", 7), Column("ADDRESS", 15),
)  # fmt: skip
_OWN = (
    Column("ASKED", 16), Column("FOR", 9), Column("NAME", 10, names=True), Column("PROFILE", 7),
    Column("ANSWER", 7), Column("ADDRESS", 15),
)  # fmt: skip

#: What is waited for by event, in words.
_BELLS = {"request": "a machine", "release": "its end"}


def on_master(answer: Mapping[str, Any], screen: Screen) -> list[str]:
    """
    Show the requests that the master knows, and what still waits to be looked at.

    :param answer: ``{"requests": […], "bells": […], "working": bool}``.
    """
    rows = [
        (
            units.short_moment(item["asked"]),
            item["minion_id"],
            item["name"],
            item["profile"],
            item["state"],
            item["address"],
        )
        for item in answer["requests"]
    ]
    lines = _with_reasons(_ASKED, rows, [item["reason"] for item in answer["requests"]], screen)
    for bell in answer["bells"]:
        tries = f", tried {text.counted(bell['tries'], 'time')}" if bell["tries"] else ""
        lines.append(f"Not looked at yet: {bell['bell']} of {bell['who']}{tries}")
    if answer["working"]:
        lines.append("A worker is running.")
    elif answer["bells"] or any(item["state"] == "queued" for item in answer["requests"]):
        lines += text.hint(f"No worker is running. Start one: {screen.command('work_off')}", "")
    return lines


def on_minion(found: Sequence[Mapping[str, Any]], screen: Screen) -> list[str]:
    """
    Show what this minion asked for.

    :param found: Its requests, with ``answer`` once the master spoke.
    """
    answers = [item.get("answer") or {} for item in found]
    rows = [
        (
            units.short_moment(item["at"]),
            _BELLS.get(item["bell"], item["bell"]),
            answer.get("name") or item["name"],
            item.get("profile", ""),
            answer.get("verdict", "waiting"),
            answer.get("address", ""),
        )
        for item, answer in zip(found, answers, strict=True)
    ]
    return _with_reasons(_OWN, rows, [answer.get("reason", "") for answer in answers], screen)


def _with_reasons(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    reasons: Sequence[str],
    screen: Screen,
) -> list[str]:
    """Return a table with the reason for each row below it, whole."""
    if not rows:
        return ["Nothing was asked for."]
    heading, *shown = text.table(columns, rows, screen.width)
    lines = [heading]
    for row, reason in zip(shown, reasons, strict=True):
        lines += [row, *text.wrapped(reason, screen.width, "  ")]
    return lines


def noted(token: str, screen: Screen) -> list[str]:
    """
    Show what happens next with a request that was just made.

    :param token: The token of the request.
    """
    name = screen.names[0] if screen.names else screen.options.get("name", "")
    name = name or screen.options.get("profile", "")  # any spare of it
    what = "a machine" if screen.function == "ask" else "to destroy it"
    return [
        f"{name}: the master was asked for {what} (request {token[:8]}). It fetches the request,",
        "checks it against its policy, and answers here.",
        *text.hint(f"See what came of it: {screen.command('asked')}", ""),
    ]
