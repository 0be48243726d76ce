"""
Note a notification for the reactor, make sure that a worker runs, and return.

This runs in a worker thread of Salt's reactor, of which there are few, so nothing here waits for
a minion or a guest. The content of an event may be forged; only *which minion is said to have
sent it* is used, and :mod:`.worker` finds out what that leads to. The kind of a notification is
called ``bell`` in the events.
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

import saltext.kvmclone
from saltext.kvmclone.errors import ConfigError, KvmCloneError, named
from saltext.kvmclone.inventory.findings import Finding
from saltext.kvmclone.master import keys, progress
from saltext.kvmclone.master.keys import MinionKeys
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.reactor import policy, policy_section
from saltext.kvmclone.reactor.highstates import Highstates
from saltext.kvmclone.reactor.policy import (
    DESTROYED,
    EXPIRED,
    RELEASE,
    REQUEST,
    START,
    STOCK,
    Policy,
    Refused,
)
from saltext.kvmclone.reactor.request_store import MAX_NOTIFICATIONS, RequestStore

log = logging.getLogger(__name__)

#: The environment variable that passes the inherited lock's file descriptor to the worker.
LOCK_VARIABLE = "KVMCLONE_WORKER_LOCK"

_SWITCHES = {
    REQUEST: "allow",
    RELEASE: "allow",
    EXPIRED: "expire",
    START: "finish",
    DESTROYED: "clean_keys",
}

#: The files of the library that this process works with.
_LOADED = saltext.kvmclone.loaded


def is_outdated() -> bool:
    """Return True if this process works with another library than there is now."""
    return saltext.kvmclone.has_changed(_LOADED)


def read_policy(opts: Mapping[str, Any]) -> Policy:
    """
    Return the policy of this master.

    :raises ConfigError: It is wrong.
    """
    section = opts.get("kvm_clone") or {}
    return policy_section.read(section.get("reactor") if isinstance(section, Mapping) else section)


def findings(opts: Mapping[str, Any]) -> list[Finding]:
    """Return what ``doctor`` finds in the policy of this master."""
    try:
        read_policy(opts)
    except ConfigError as error:
        again = Commands().clone("work_off")
        return [Finding("configuration", "kvm_clone: reactor", error.message, again)]
    return []


#: The answer of :func:`written_section` where a file of the master is broken.
UNREADABLE = object()


def written_section(path: str) -> Any:
    """
    Return ``kvm_clone:`` as the master's files say it now; :data:`UNREADABLE` for a broken file.

    :param path: Path of the master's configuration.
    """
    try:
        # By default Salt takes a broken included file for an empty one: no policy, so everything
        # would be refused.
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
    Note that a clone becomes ``ready`` now, so that it gets its highstate if ``finish`` is on.

    Its ``start`` notification is noted here as well: the minion may have started long ago, before
    the create was resumed. Whatever goes wrong with this is only logged; the clone is not
    affected.
    """
    try:
        store = RequestStore(opts)
        awaited = Highstates(store)
        rules = written_policy(opts)
        if rules is not None:  # a policy that cannot be read for a while does not count as "off"
            awaited.switch(rules.finish)
        if awaited.expect(uuid) and store.note(START, minion_id):
            start_worker(opts)
    except Exception as error:  # else the whole create would be taken back for it
        log.warning("kvm_clone reactor: '%s' will get no highstate: %s", minion_id, named(error))


def _heed_finish(opts: Mapping[str, Any], on: bool) -> None:
    """
    Note that ``finish`` was turned on or off, once the files agree with the running master.

    Turning it off forgets the clones that still wait for a highstate: turned on again, it is for
    clones made since.

    :param on: What the running master's policy says.
    """
    awaited = Highstates(RequestStore(opts))
    if awaited.is_on != on:
        rules = written_policy(opts)
        if rules is not None and rules.finish == on:
            awaited.switch(on)


def answer(opts: Mapping[str, Any], bell: Any, who: Any) -> dict[str, Any]:
    """
    Note a notification. Never raise one of our errors; log a refusal and fire it on the bus.

    :param bell: The kind of notification, one of :data:`.policy.BELLS`.
    :param who: The minion that is said to have sent it; for ``destroyed`` the clone's name.
    :return: ``noted``: whether it is worth an answer; or ``refused`` with the error.
    """
    try:
        worth = _check(opts, bell, who)
        if worth and not RequestStore(opts).note(bell, who):
            raise Refused(
                f"At most {MAX_NOTIFICATIONS} notifications may wait, and so many do.",
                "See them: salt-run kvmclone.asked",
            )
        if worth:
            start_worker(opts)
    except KvmCloneError as error:
        refuse(opts, error, bell=policy.shortened(bell), who=policy.shortened(who))
        return {"refused": error.as_dict(), "retcode": 1}
    return {"noted": worth, "retcode": 0}


def _check(opts: Mapping[str, Any], bell: Any, who: Any) -> bool:
    """
    Check that a notification is allowed and worth an answer.

    :return: False where nothing is to be done and nobody did wrong: the minion that started is
        not a clone of ours; or the clone that is gone was made for no request, and we never
        accepted a key for it.
    :raises Refused: It is not allowed.
    """
    rules = read_policy(opts)
    if bell not in policy.BELLS:
        raise Refused(f"There is no notification called {policy.shortened(bell)}.", policy.HINT)
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
        key = rules.clean_keys and bool(remembered_for(opts, about))
        return key or RequestStore(opts).has_made({about})
    if bell in (REQUEST, RELEASE) and not rules.rules_for(about):
        raise Refused(f"No rule lets '{about}' have machines made.", policy.HINT)
    if not MinionKeys(opts).accepted(about):
        raise Refused(f"'{about}' is not a minion of this master.", policy.HINT)
    return True


def remembered_for(opts: Mapping[str, Any], name: str) -> list[str]:
    """Return the minion ids that a clone of this name may have had, if we accepted their key."""
    known = salt.cache.Cache(opts).list(keys.BANK) or []
    return sorted(str(one) for one in known if one == name or str(one).startswith(f"{name}."))


def refuse(opts: Mapping[str, Any], error: KvmCloneError, **about: Any) -> None:
    """
    Log a refusal and fire it on the master's bus.

    :param about: What the event says besides the error.
    """
    log.warning("kvm_clone reactor, %s: %s", about, error)
    progress.fire(opts, "refused", {**about, "error": error.as_dict()})


def refill(opts: Mapping[str, Any], profile: str) -> None:
    """
    Have the stock of spares looked at soon.

    Whatever goes wrong with this is only logged; the claim is not affected.
    """
    try:
        RequestStore(opts).note(STOCK, profile)
        start_worker(opts)
    except Exception as error:  # else a claimed machine would not be handed out for it
        log.warning("kvm_clone spares: nothing was told to refill '%s': %s", profile, named(error))


def start_worker(opts: Mapping[str, Any]) -> bool:
    """
    Start the one worker, unless it runs; it looks at every notification before it ends.

    It is a program of its own, which inherits the lock: so it is never started twice, and
    outlives the thread, and the master, that started it.

    :return: Whether one was started.
    """
    lock = RequestStore(opts).lock_worker()
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
            env={**os.environ, LOCK_VARIABLE: str(lock)},
            pass_fds=(lock,),
            start_new_session=True,
        )
    finally:
        os.close(lock)
    return True


def _salt_run() -> list[str]:
    """Return the command line of ``salt-run`` of the very Salt that we run in."""
    program = os.path.join(os.path.dirname(sys.executable), "salt-run")
    if os.path.exists(program):
        return [sys.executable, program]
    return [
        sys.executable,
        "-c",
        "import sys; from salt.scripts import salt_run; sys.exit(salt_run())",
    ]
