"""Show what minions asked for by event, and what came of it, to a person. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saltext.kvmclone.display import text
from saltext.kvmclone.display.screen import Screen
from saltext.kvmclone.display.text import Column
from saltext.kvmclone.model import units

_ASKED = (
    Column("ASKED", 16), Column("BY", 6), Column("NAME", 10), Column("PROFILE", 7),
    Column("STATE", 7), Column("REASON", 12),
)  # fmt: skip
_OWN = (
    Column("ASKED", 16), Column("FOR", 7), Column("NAME", 10), Column("PROFILE", 7),
    Column("ANSWER", 6), Column("REASON", 12),
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
            item["reason"] or item["address"],
        )
        for item in answer["requests"]
    ]
    lines = text.table(_ASKED, rows, screen.width) if rows else ["Nothing was asked for."]
    for bell in answer["bells"]:
        tries = f", tried {text.counted(bell['tries'], 'time')}" if bell["tries"] else ""
        lines.append(f"Not looked at yet: {bell['bell']} of {bell['who']}{tries}")
    if answer["working"]:
        lines.append("A worker is at it now.")
    elif answer["bells"] or any(item["state"] == "queued" for item in answer["requests"]):
        lines += text.hint(f"Nobody is at it. Go on: {screen.command('work_off')}", "")
    return lines


def on_minion(found: Sequence[Mapping[str, Any]], screen: Screen) -> list[str]:
    """
    Show what this minion asked for.

    :param found: Its requests, with ``answer`` once the master spoke.
    """
    rows = []
    for item in found:
        answer = item.get("answer") or {}
        rows.append(
            (
                units.short_moment(item["at"]),
                _BELLS.get(item["bell"], item["bell"]),
                item["name"],
                item.get("profile", ""),
                answer.get("verdict", "waiting"),
                answer.get("reason") or answer.get("address", ""),
            )
        )
    return text.table(_OWN, rows, screen.width) if rows else ["Nothing was asked for."]


def noted(token: str, screen: Screen) -> list[str]:
    """
    Show what happens next with a request that was just made.

    :param token: The token of the request.
    """
    name = screen.names[0] if screen.names else screen.options.get("name", "")
    what = "a machine" if screen.function == "ask" else "to destroy it"
    return [
        f"{name}: the master was asked for {what} (request {token[:8]}). It fetches the request,",
        "holds it against its policy, and answers here.",
        *text.hint(f"See what came of it: {screen.command('asked')}", ""),
    ]
