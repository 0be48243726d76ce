"""
The reactor's end of the bell: note who rang, see to it that somebody is at work, and return.

It runs in a worker thread of Salt's reactor, of which there are few, so nothing here waits for
a minion or a guest. What came with the event was forged until shown otherwise; only *who is
said to have rung* comes in, and what that leads to is :mod:`.worker`'s to find out.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import salt.cache
import salt.config

from saltext.kvmclone.errors import ConfigError, KvmCloneError, named
from saltext.kvmclone.master import keys, progress
from saltext.kvmclone.master.keys import MinionKeys
from saltext.kvmclone.reactor import policy
from saltext.kvmclone.reactor.highstates import Highstates
from saltext.kvmclone.reactor.policy import (
    DESTROYED,
    EXPIRED,
    RELEASE,
    REQUEST,
    START,
    Policy,
    Refused,
)
from saltext.kvmclone.reactor.request_store import Ledger

log = logging.getLogger(__name__)

#: Names the inherited lock to the worker.
LOCK = "KVMCLONE_WORKER_LOCK"

_SWITCHES = {
    REQUEST: "allow",
    RELEASE: "allow",
    EXPIRED: "expire",
    START: "finish",
    DESTROYED: "clean_keys",
}


def read_policy(opts: Mapping[str, Any]) -> Policy:
    """
    The policy of this master.

    :raises ConfigError: It is wrong.
    """
    section = opts.get("kvm_clone") or {}
    return policy.read(section.get("reactor") if isinstance(section, Mapping) else section)


#: What :func:`written_section` answers where a file of the master is broken.
UNREADABLE = object()


def written_section(path: str) -> Any:
    """``kvm_clone:`` as the master's files say it now; :data:`UNREADABLE` where one is broken."""
    try:
        # Else a broken included file is one that says nothing: no policy, and all is refused.
        return salt.config.master_config(path, exit_on_config_errors=True).get("kvm_clone")
    except (SystemExit, Exception) as error:  # Salt's reader lets much of its own fly
        log.debug("%s: %r", path, error)
        return UNREADABLE


def written_policy(opts: Mapping[str, Any]) -> Policy | None:
    """Return the policy as the master's files say it now; None where it cannot be told."""
    section = written_section(str(opts["conf_file"]))
    try:
        return None if section is UNREADABLE else read_policy({"kvm_clone": section})
    except ConfigError:
        return None


def expect_highstate(opts: Mapping[str, Any], minion_id: str, uuid: str) -> None:
    """
    Note that a clone becomes ``ready`` now, so that it gets its highstate where ``finish`` is on.

    Its bell is rung from here as well: the minion may have started long ago, before the create
    was resumed. Whatever goes wrong with this is logged; the clone is none the worse for it.
    """
    try:
        book = Ledger(opts)
        awaited = Highstates(book)
        rules = written_policy(opts)
        if rules is not None:  # one that cannot be read for a while is not "off"
            awaited.turn(rules.finish)
        if awaited.expect(uuid) and book.ring(START, minion_id):
            start_worker(opts)
    except Exception as error:  # else the whole create would be taken back for it
        log.warning("kvm_clone reactor: '%s' will get no highstate: %s", minion_id, named(error))


def _heed_finish(opts: Mapping[str, Any], on: bool) -> None:
    """
    Note that ``finish`` was turned on or off, once the files say the same as the running master.

    Off forgets who still waits for a highstate: turned on again, it is for clones made since.
    """
    awaited = Highstates(Ledger(opts))
    if awaited.is_on != on:
        rules = written_policy(opts)
        if rules is not None and rules.finish == on:
            awaited.turn(on)


def answer(opts: Mapping[str, Any], bell: Any, who: Any) -> dict[str, Any]:
    """
    Note a bell. Never raises one of our errors; a refusal is logged and told on the bus.

    :param bell: One of :data:`.policy.BELLS`.
    :param who: The minion that is said to have rung; for ``destroyed`` the clone's name.
    """
    try:
        worth = _check(opts, bell, who)
        if worth and not Ledger(opts).ring(bell, who):
            raise Refused("Too many bells wait for an answer already.", "salt-run kvmclone.asked")
    except KvmCloneError as error:
        refuse(opts, error, bell=policy.shortened(bell), who=policy.shortened(who))
        return {"refused": error.as_dict(), "retcode": 1}
    if worth:
        start_worker(opts)
    return {"noted": worth, "retcode": 0}


def _check(opts: Mapping[str, Any], bell: Any, who: Any) -> bool:
    """
    Whether a bell is worth an answer.

    :return: False where nothing is to be done and nobody did wrong: the minion that started is no
        clone of ours, or we never accepted a key for the clone that is gone.
    :raises Refused: It is not allowed.
    """
    rules = read_policy(opts)
    if bell not in policy.BELLS:
        raise Refused(f"There is no bell {policy.shortened(bell)}.", policy.HINT)
    about = policy.minion_id(who)
    if bell == START:
        _heed_finish(opts, rules.finish)
    if not rules.answers(bell):
        raise Refused(
            f"The policy has no '{_SWITCHES[bell]}:', so '{bell}' is not obeyed.", policy.HINT
        )
    if bell == START:
        return bool(MinionKeys(opts).remembered(about))
    if bell == DESTROYED:
        return bool(remembered_for(opts, about))
    if bell in (REQUEST, RELEASE) and not rules.rules_for(about):
        raise Refused(f"No rule lets '{about}' have machines made.", policy.HINT)
    if not MinionKeys(opts).accepted(about):
        raise Refused(f"'{about}' is no minion of this master.", policy.HINT)
    return True


def remembered_for(opts: Mapping[str, Any], name: str) -> list[str]:
    """Minion ids that a clone of this name may have had, and whose key we once accepted."""
    known = salt.cache.Cache(opts).list(keys.BANK) or []
    return sorted(str(one) for one in known if one == name or str(one).startswith(f"{name}."))


def refuse(opts: Mapping[str, Any], error: KvmCloneError, **about: Any) -> None:
    """Log a refusal and tell it on the master's bus."""
    log.warning("kvm_clone reactor, %s: %s", about, error)
    progress.fire(opts, "refused", {**about, "error": error.as_dict()})


def start_worker(opts: Mapping[str, Any]) -> bool:
    """
    Start the one worker, unless it is at work; it looks at every bell before it ends.

    It is a program of its own, which inherits the lock: so it is never started twice, and
    outlives the thread, and the master, that started it.

    :return: Whether one was started.
    """
    lock = Ledger(opts).hire()
    if lock is None:
        return False
    try:
        subprocess.Popen(
            [*_salt_run(), "-c", os.path.dirname(str(opts["conf_file"])), "-l", "quiet"]
            + ["kvmclone.work_off"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={**os.environ, LOCK: str(lock)},
            pass_fds=(lock,),
            start_new_session=True,
        )
    finally:
        os.close(lock)
    return True


def _salt_run() -> list[str]:
    """``salt-run`` of the very Salt that we run in."""
    program = os.path.join(os.path.dirname(sys.executable), "salt-run")
    if os.path.exists(program):
        return [sys.executable, program]
    return [
        sys.executable,
        "-c",
        "import sys; from salt.scripts import salt_run; sys.exit(salt_run())",
    ]
