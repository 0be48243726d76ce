"""
Work on the snapshots of a clone from the master, on whichever host the clone is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from saltext.kvmclone import interrupts
from saltext.kvmclone.display import screen
from saltext.kvmclone.errors import Interrupted, KvmCloneError
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.master import at_once
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.snapshots import check_label


def take(fleet: Fleet, name: Any, label: Any) -> dict[str, Any]:
    """
    Take a snapshot of a clone.

    :param label: None for one that is made of the time.
    :return: ``{"clones": {NAME: SNAPSHOT}, "retcode"}``.
    """

    def work(host: KvmHost, clone: Clone) -> dict[str, Any]:
        wanted = "" if label is None else check_label(label)
        return host.snapshot(clone.name, wanted).as_dict()

    return _answer(fleet, name, work)


def roll_back(fleet: Fleet, name: Any, label: Any) -> dict[str, Any]:
    """
    Bring a clone back to one of its snapshots.

    :return: ``{"clones": {NAME: CLONE}, "retcode"}``.
    """

    def work(host: KvmHost, clone: Clone) -> dict[str, Any]:
        back = host.rollback(clone.name, check_label(label))
        screen.note(back.name, back, clone.state)
        return back.as_dict()

    return _answer(fleet, name, work)


def listed(fleet: Fleet, name: Any) -> dict[str, Any]:
    """
    Return the snapshots of a clone.

    :return: ``{"snapshots": {NAME: [SNAPSHOT]}, "retcode"}``.
    :raises KvmCloneError: There is no such clone, or its host does not answer.
    """
    host, clone = fleet.find(name)
    found = [one.as_dict() for one in host.snapshots(clone.name)]
    return {"snapshots": {clone.name: found}, "retcode": 0}


def delete(fleet: Fleet, name: Any, label: Any) -> dict[str, Any]:
    """
    Delete one snapshot of a clone.

    :return: ``{"clones": {NAME: SNAPSHOT}, "retcode"}``.
    """

    def work(host: KvmHost, clone: Clone) -> dict[str, Any]:
        return host.delete_snapshot(clone.name, check_label(label)).as_dict()

    return _answer(fleet, name, work)


def _answer(
    fleet: Fleet, name: Any, work: Callable[[KvmHost, Clone], dict[str, Any]]
) -> dict[str, Any]:
    """
    Return the answer about one clone; on a failure with its error, and the stage that it has.

    :param work: What is done, on its host.
    """
    stage = ""
    try:
        host, clone = fleet.find(name)
        stage = clone.stage
        return {"clones": {clone.name: work(host, clone)}, "retcode": 0}
    except interrupts.Interrupt:
        error: KvmCloneError = at_once.half_done(name)
    except KvmCloneError as raised:
        error = raised
    failed = {"name": str(name), "stage": stage, "error": error.as_dict()}
    code = interrupts.EXIT_CODE if isinstance(error, Interrupted) else 1
    return {"clones": {str(name): failed}, "retcode": code}
