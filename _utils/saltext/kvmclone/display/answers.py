"""
Choose how an answer is shown to a person, by the command that was typed. Pure.

Whatever is not known here, or has another shape, is left to Salt's own outputter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from saltext.kvmclone.display import (
    base_copies,
    bases,
    care,
    clones,
    hosts,
    plans,
    requests,
    snapshots,
    spares,
    text,
    tree,
)
from saltext.kvmclone.display.failures import failure, unreachable
from saltext.kvmclone.display.screen import Screen

#: Shows an answer as lines.
Show = Callable[[Any, Screen], list[str]]

#: Shows one clone, by its name in the answer, as lines.
ShowOne = Callable[[str, Mapping[str, Any], Screen], list[str]]


def _each(one: ShowOne, apart: bool = False) -> Show:
    """Show every clone of ``{"clones": {NAME: CLONE}}``, or of ``{"plans": …}``."""

    def show(answer: Any, screen: Screen) -> list[str]:
        lines: list[str] = []
        for name, item in (answer.get("clones") or answer.get("plans") or {}).items():
            lines += [""] if apart and lines else []
            lines += one(name, item, screen)
        lines += failure("", answer["error"], screen) if answer.get("error") else []
        lines += unreachable(answer.get("unreachable") or {}, screen)
        return lines or ["Nothing to do."]

    return show


def _bare(one: ShowOne) -> Show:
    """Show the one clone, or plan, that a host answers with."""
    return lambda answer, screen: one(answer["name"], answer, screen)


def _snapshots(answer: Any, screen: Screen) -> list[str]:
    """Show ``{"snapshots": {NAME: [SNAPSHOT]}}``."""
    found = answer["snapshots"].items()
    return [line for name, some in found for line in snapshots.listing(name, some, screen)]


def _list_clones(answer: Any, screen: Screen) -> list[str]:
    return clones.listing({"clones": {clone["name"]: clone for clone in answer}}, screen)


def _addresses(answer: Any, _screen: Screen) -> list[str]:
    rows = [f"{item['address']}  {item['source']}, {item['interface']}" for item in answer]
    return rows or ["no address is known"]


#: How the answers of ``salt-run kvmclone.…`` are shown.
RUNNER: dict[str, Show] = {
    "create": _each(clones.made),
    "map": _each(clones.made),
    "resume": _each(clones.made),
    "start": _each(clones.powered),
    "stop": _each(clones.powered),
    "reboot": _each(clones.powered),
    "destroy": _each(clones.destroyed),
    "show": _each(clones.shown, apart=True),
    "list": clones.listing,
    "plan": _each(plans.plan, apart=True),
    "promote": bases.made,
    "warm": bases.warmed,
    "unwarm": bases.warmed,
    "profiles": hosts.profiles,
    "hosts": hosts.hosts,
    "tree": tree.tree,
    "bases": base_copies.bases,
    "push": base_copies.bases,
    "remove_base": base_copies.removed,
    "gc": lambda answer, screen: care.leftovers(
        answer["leftovers"], answer.get("errors") or {}, screen
    ),
    "doctor": lambda answer, screen: care.findings(
        answer["findings"], answer.get("unreachable") or {}, screen, answer.get("loaded")
    ),
    "report": care.report,
    "base_from": bases.made,
    "asked": requests.on_master,
    "claim": _each(spares.claimed),
    "release": _each(clones.destroyed),
    "spares": spares.overview,
    "snapshot": _each(snapshots.taken),
    "rollback": _each(snapshots.rolled_back),
    "snapshots": _snapshots,
    "delete_snapshot": _each(snapshots.deleted),
}

#: How the answers of ``salt HOST kvm_clone.…`` are shown.
MODULE: dict[str, Show] = {
    "create": _bare(clones.made),
    "resume": _bare(clones.made),
    "start": _bare(clones.powered),
    "stop": _bare(clones.powered),
    "reboot": _bare(clones.powered),
    "bootstrap": _bare(clones.powered),
    "adopt": _bare(clones.powered),
    "destroy": _bare(clones.destroyed),
    "show": _bare(clones.shown),
    "list_clones": _list_clones,
    "addresses": _addresses,
    "plan": _bare(plans.plan),
    "promote": _bare(bases.one),
    "warm": bases.one_warmed,
    "unwarm": bases.one_warmed,
    "adjust": plans.adjusted,
    "pending_changes": plans.adjusted,
    "tree": tree.tree,
    "gc": lambda answer, screen: care.leftovers(answer, {}, screen),
    "doctor": lambda answer, screen: care.findings(answer, {}, screen),
    "base_from": _bare(bases.one),
    "ask": requests.noted,
    "release": requests.noted,
    "asked": requests.on_minion,
    "snapshot": _bare(snapshots.taken),
    "rollback": _bare(snapshots.rolled_back),
    "snapshots": lambda answer, screen: snapshots.listing(
        answer[0]["name"] if answer else "", answer, screen
    ),
    "delete_snapshot": _bare(snapshots.deleted),
}


def of_runner(answer: Mapping[str, Any], screen: Screen) -> str | None:
    """
    Return what a person sees of an answer of the runner.

    :return: Text; None where Salt is to show it.
    """
    if set(answer) <= {"error", "retcode"} and answer.get("error"):
        return "\n".join(failure("", answer["error"], screen))
    show = RUNNER.get(screen.function)
    return "\n".join(show(answer, screen)) if show else None


def of_minions(answers: Mapping[str, Any], screen_of: Callable[[str], Screen]) -> str | None:
    """
    Return what a person sees of the answers of some minions.

    :param answers: What each answered, by its id.
    :param screen_of: Returns the screen for the answer of a minion.
    :return: Text; None where Salt is to show it, such as the text of an error.
    """
    parts = []
    for minion, answer in answers.items():
        screen = screen_of(minion)
        show = MODULE.get(screen.function)
        wanted = str if screen.function in ("ask", "release") else (dict, list)
        if show is None or not (isinstance(answer, wanted) or len(answers) > 1):
            return None
        if not isinstance(answer, wanted):  # an error, which Salt has as text
            parts.append("\n".join([f"{minion}:", *text.wrapped(str(answer), screen.width, "  ")]))
            continue
        heading = bool(screen.minion) and "host" not in answer  # CLONE says where it is
        lines = show(answer, dataclasses.replace(screen, width=screen.width - 2 * heading))
        if heading:
            lines = [f"{minion}:", *(f"  {line}".rstrip() for line in lines)]
        parts.append("\n".join(lines))
    return "\n".join(parts)
