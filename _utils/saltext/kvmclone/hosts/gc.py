"""
Remove what interrupted work left behind on a host.

Only where nobody can still be at work: the worker's process is gone, which can be told on the
machine that it ran on, or an operator says so by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from saltext.kvmclone.errors import ConfigError, CreateInProgress, KvmCloneError, NotFound, Renamed
from saltext.kvmclone.hosts.interfaces import KvmHost, commands_of
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.leftovers import KEPT, Leftover, Unfinished
from saltext.kvmclone.model.plain import from_plain
from saltext.kvmclone.model.record import DEAD, DESTROYING, ELSEWHERE, Minion, Work
from saltext.kvmclone.system import processes

#: Removes a minion's key from the master, and returns whether one was there.
KeyRemover = Callable[[Minion], bool]

#: Why a clone stays whose minion may have come up unseen by its create, or that somebody started.
_IN_USE = "somebody may use it, so it is removed only by name"


def owner_state_of(work: Work) -> str:
    """
    Return whether the worker of a piece of work lives: ``ALIVE``, ``DEAD`` or ``ELSEWHERE``.

    Where the KVM host cannot tell, this machine is asked: a runner's process lives on the master.
    """
    return processes.owner_state(work.worker) if work.life == ELSEWHERE else work.life


def collect(
    host: KvmHost,
    name: str = "",
    apply: bool = False,
    force: bool = False,
    remove_key: KeyRemover | None = None,
) -> list[Leftover]:
    """
    List, or remove, what dead workers left on a host.

    Everything that is listed will be removed, except for rows of the kind ``kept``, which say why
    something stays.

    :param name: Only this clone; empty for all.
    :param apply: Remove it, and return what was really removed; False only lists.
    :param force: With ``name``: also where the worker ran on another machine, so that nobody here
        can tell whether it lives.
    :param remove_key: Removes the key of a minion whose create was never finished from the
        master.
    :raises ConfigError: ``force`` without a name.
    :raises CreateInProgress: The clone of that name has a worker that lives, or may live.
    """
    forced = commands_of(host).clone("gc", name or "NAME", "apply=True", "force=True")
    if force and not name:
        raise ConfigError("force needs the name of one clone.", forced)
    found: list[Leftover] = []
    for item in host.unfinished(name):
        if item.failed and item.work.stage != DESTROYING:
            continue  # kept because on_failure said so: destroy or resume it
        life = owner_state_of(item.work)
        if life == DEAD or (life == ELSEWHERE and force):
            if stays := _why_it_stays(item, name, force):
                found += [piece.stays(f"{piece.reason}; {stays}") for piece in item.pieces]
            elif apply:
                found += _remove(host, item, remove_key, force)
            else:
                found += _listed(item, remove_key)
        elif name:
            piece = item.pieces[0]
            raise CreateInProgress(
                f"'{name}' is not a leftover: {piece.reason}.",
                f"If nothing runs there any more: {forced}"
                if life == ELSEWHERE
                else f"Wait for it, or end it: {_kill(host, item.work)}",
            )
    return found


def _why_it_stays(item: Unfinished, name: str, force: bool) -> str:
    """Return why a leftover is not removed; empty if it is."""
    if item.refused and not (force and item.yields):
        return item.refused
    # At these stages the create itself has not started the guest.
    started_by_hand = item.running and item.work.stage in ("planned", "cloned")
    if item.repairs:
        return ""  # the clone stays
    may_be_used = (item.work.stage == "enrolled" or started_by_hand) and not name
    return _IN_USE if may_be_used else ""


def _kill(host: KvmHost, work: Work) -> str:
    """Return the command that ends a worker, on the machine that can tell that it lives."""
    commands = commands_of(host)
    commands = commands.near if work.life == ELSEWHERE else commands
    return commands.beside("kill", str(work.worker.pid))


def _listed(item: Unfinished, remove_key: KeyRemover | None) -> list[Leftover]:
    pieces = list(item.pieces)
    if remove_key is not None and item.minion.fingerprint:
        pieces.append(Leftover(item.name, "key", item.minion.id, item.pieces[0].reason))
    return pieces


def _remove(
    host: KvmHost, item: Unfinished, remove_key: KeyRemover | None, force: bool
) -> list[Leftover]:
    reason = item.pieces[0].reason
    try:
        rows = host.clear(item.name, item.work.worker.token, force)
    except NotFound:
        rows = []  # somebody else removed it first
    except KvmCloneError as error:
        return [
            piece.stays(f"{piece.reason}; not removed: {error.message} {error.hint}")
            for piece in item.pieces
        ]
    removed = [row if row.kind == KEPT else dataclasses.replace(row, reason=reason) for row in rows]
    if remove_key is not None and item.minion.fingerprint and remove_key(item.minion):
        removed.append(Leftover(item.name, "key", item.minion.id, reason, True))
    return removed


def destroy(host: KvmHost, name: str, force: bool = False) -> Clone:
    """
    Destroy a clone, also one whose create died on this machine, where the host cannot tell.

    :raises KvmCloneError: What the host raised.
    """
    try:
        return host.destroy(name, force)
    except CreateInProgress as busy:
        work = from_plain(Work, busy.work) if busy.work else None
        if work is None or owner_state_of(work) != DEAD:
            raise
        return host.destroy(name, force, work.worker.token)


def require_not_renamed(name: str, ids: Iterable[str], clones: Iterable[Iterable[Clone]]) -> None:
    """
    Refuse a name that belongs to a clone which was renamed with virsh.

    Its key must not be taken for one that was left behind.

    :param ids: The minion ids that belong to the name, besides itself.
    :param clones: The clones of every host.
    :raises Renamed: A clone of another name is the minion of this one.
    """
    for clone in (clone for some in clones for clone in some):
        if clone.minion.id in {name, *ids}:
            raise Renamed(
                f"There is no clone '{name}': '{clone.name}' is the minion '{clone.minion.id}'.",
                f"Look at it: {Commands().clone('show', clone.name)}",
            )
