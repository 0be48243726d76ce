"""
Carry out on a KVM host what the master asks of it by a Salt job.

:class:`.master.remote.RemoteHost` is the other end; see :mod:`.operations` for what travels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import salt.utils.minion

from saltext.kvmclone.errors import HostUnreachable, KvmCloneError, named
from saltext.kvmclone.hosts import side_by_side
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hosts.operations import OPERATIONS, SEVERAL, VERSION
from saltext.kvmclone.model.plain import from_plain, to_plain
from saltext.kvmclone.system import sealing, signed_answers

log = logging.getLogger(__name__)

FUNCTION = "kvm_clone.remote"

#: Takes a tag and what some of several calls came to, before the others have ended.
Tell = Callable[[str, dict[str, Any]], object]


def answer(
    opts: Mapping[str, Any],
    operation: str,
    arguments: Mapping[str, Any],
    url: str,
    challenge: Any,
    fire: Callable[[Any, str], object],
) -> tuple[Any, bool]:
    """
    Return the signed answer of :func:`serve`, and whether anything of it failed.

    :param challenge: What the master has asked with; None where a person asks, who gets it
        unsigned.
    :param fire: Fires an event on the master, given its data and its tag.
    """

    def signed(told: Mapping[str, Any]) -> Any:
        return signed_answers.answer(opts, FUNCTION, challenge, told)

    def tell(tag: str, part: dict[str, Any]) -> None:
        fire(signed(part), tag)

    told = serve(opts, operation, arguments, url, challenge is None, tell)
    failed = any("error" in one for one in (told, *told.get("answers", {}).values()))
    return signed(told), failed


def serve(
    opts: Mapping[str, Any],
    operation: str,
    arguments: Mapping[str, Any],
    url: str,
    by_hand: bool = False,
    tell: Tell = lambda _tag, _answer: None,
) -> dict[str, Any]:
    """
    Carry out one operation of a :class:`RemoteHost` on this host, or several side by side.

    :param opts: This minion's configuration.
    :param operation: Its :attr:`.operations.Operation.wire_name`; or :data:`.operations.SEVERAL`.
    :param arguments: Its arguments, as plain data; of several ``calls``, with an ``operation`` and
        ``arguments`` each, and the word in the tag of ``parts`` of the answer.
    :param url: libvirt URI as seen from here.
    :param by_hand: A person asks, who need not give the version.
    :param tell: Fires the event of a part.
    :return: ``{"version", "answer": …}``, or ``{"version", "error": {"type", "message", "hint"}}``;
        of several ``{"version", "answers": {NUMBER: …}}`` with one such answer for each.
    """
    if operation != SEVERAL:
        return _one(opts, operation, arguments, url, by_hand)
    minion_id = str(opts.get("id", ""))

    def work(call: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return _one(opts, call["operation"], call["arguments"], url)
        except Exception as error:  # it ends no other call; alone it would end its job
            log.exception("an unexpected fault in %s", call.get("operation"))
            fault = HostUnreachable(
                f"An unexpected fault on '{minion_id}': {named(error)}.",
                "The traceback is in the log of that minion. Please report it.",
            )
            return {"version": VERSION, "error": fault.as_dict()}

    try:
        calls = from_plain(list[dict[str, Any]], arguments["calls"])
        tag = signed_answers.part_tag(minion_id, arguments["parts"])
    except (LookupError, TypeError, ValueError) as error:
        fault = HostUnreachable(f"'{minion_id}' cannot read what is asked: {error}.")
        return {"version": VERSION, "error": fault.as_dict()}
    return _answers(side_by_side.carry_out(work, calls, lambda news: tell(tag, _answers(news))))


def _answers(told: side_by_side.Told) -> dict[str, Any]:
    return {"version": VERSION, "answers": told}


def _one(
    opts: Mapping[str, Any],
    operation: str,
    arguments: Mapping[str, Any],
    url: str,
    by_hand: bool = False,
) -> dict[str, Any]:
    """Carry out one operation; see :func:`serve`."""
    minion_id = str(opts.get("id", ""))
    try:
        name, _at, version = str(operation).partition("@")
        if version != str(VERSION) and (version or not by_hand):
            raise HostUnreachable(
                f"The master has another version of kvm_clone than the KVM host '{minion_id}': "
                f"they speak {version or 1} and {VERSION}.",
                "Bring both to one version. On the master: salt-run saltutil.sync_all   "
                f"The host: salt {minion_id} saltutil.sync_all",
            )
        if name not in OPERATIONS:
            raise HostUnreachable(f"'{minion_id}' does not know the operation '{name}'.")
        try:
            given = OPERATIONS[name].from_wire(
                arguments,
                lambda token, to: sealing.unseal(sealing.own_key(opts), token, to, minion_id),
            )
        except ValueError as error:
            raise HostUnreachable(f"'{minion_id}' cannot read what is asked: {error}.") from error
        answer = getattr(LocalHost(url, label=minion_id), name)(**given)
        return {"version": VERSION, "answer": to_plain(answer)}
    except KvmCloneError as error:
        return {"version": VERSION, "error": error.as_dict()}


def working(opts: Mapping[str, Any], jid: str) -> bool:
    """
    Return True if this minion still works on a job.

    :param opts: This minion's configuration.
    :param jid: The job's number.
    """
    return any(str(job.get("jid")) == jid for job in salt.utils.minion.running(opts))
