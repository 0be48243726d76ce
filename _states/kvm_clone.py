"""
Declare KVM clones
==================

States for the KVM host itself: ``salt kvm01 state.apply``, or
masterless with ``salt-call --local``. A clone is complete at
``addressed``; enrolling it as a minion needs the master and is the
runner's work.

.. code-block:: yaml

    web1:
      kvm_clone.present:
        - base_domain: debian12
        - clone_strategy: quick
        - running: true
"""

from __future__ import annotations

import salt.utils.args
from salt.exceptions import CommandExecutionError

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone.display.changes import short

__virtualname__ = "kvm_clone"

_GENERATED = "<generated>"

#: Changes of a running clone that its next start brings.
_AT_START = ("cpus", "cpus maximum", "memory", "memory maximum")

#: The daemon that is looked at before and after.
_HERE = "qemu:///system"


def __virtual__():
    if "kvm_clone.create" not in __salt__:
        return (
            False,
            "The execution module kvm_clone is not loaded here. Ask it why: "
            "salt-call --local sys.list_functions kvm_clone",
        )
    return __virtualname__


def present(name, profile=None, running=True, **keys):
    """
    Make sure that a clone exists, and runs or not.

    name
        Name of the clone.
    profile
        Name of a profile in this host's cloud files or pillar.
    running
        False wants it shut off.
    keys
        Any profile key; overrides the profile's.

    CLI Example:

    .. code-block:: bash

        salt kvm01 state.single kvm_clone.present web1 profile=web
    """
    keys = salt.utils.args.clean_kwargs(**keys)
    if not isinstance(running, bool):
        return _answer(
            name,
            False,
            f"running: {running!r} is neither true nor false. Hint: Write it without quotes.",
        )
    if keys.get("url", _HERE) != _HERE:
        return _answer(
            name,
            False,
            f"A state acts on the host's own {_HERE}, not on 'url: {keys['url']}'. "
            f"Hint: Let the master make it: salt-run kvmclone.create {profile or 'PROFILE'} {name}",
        )
    try:
        if __salt__["kvm_clone.exists"](name):
            return _kept(name, profile, running, keys)
        if __opts__["test"]:
            plan = __salt__["kvm_clone.plan"](name, profile=profile, **keys)
            if plan["conflicts"]:
                return _answer(name, False, " ".join(plan["conflicts"]))
            words = " ".join([f"'{name}' would be cloned.", *plan["warnings"]])
            clone = _expected(plan, profile, running)
            return _answer(name, None, words, {"clone": _delta(None, clone)})
        clone = __salt__["kvm_clone.create"](name, profile=profile, start=running, **keys)
    except CommandExecutionError as error:
        return _answer(name, False, str(error))
    words = " ".join([f"'{name}' was cloned.", *clone["warnings"]])
    return _answer(name, True, words, {"clone": _delta(None, clone)})


def _kept(name, profile, running, keys):
    """Correct what differs from the request on a clone that is there, and its power."""
    if not profile:  # a state that names no base could not make it again: that is an error, too
        keys = {"base_domain": None, **keys}
    found = __salt__["kvm_clone.adjust"](name, profile=profile, test=__opts__["test"], **keys)
    if found["refused"]:
        return _answer(name, False, f"'{name}' exists. " + " ".join(found["refused"]))
    answer = _powered(name, "running", "start") if running else stopped(name)
    # A clone that was stopped just now has nothing that waits for that.
    notes = [] if answer["changes"] and not running else found["notes"]
    if not found["changes"]:
        return {**answer, "comment": " ".join([answer["comment"], *notes])}
    would = "would be" if __opts__["test"] else "was"
    words = [f"'{name}' {would} adjusted.", *notes, answer["comment"]]
    result = answer["result"]
    if result is True and __opts__["test"]:
        result = None
    return _answer(name, result, " ".join(words), {**found["changes"], **answer["changes"]})


def _expected(plan, profile, running):
    """Return what a create would report, ``<generated>`` where only making it tells."""
    return {
        "name": plan["name"],
        "uuid": _GENERATED,
        "host": __opts__["id"],
        "base": plan["base"],
        "profile": profile or "",
        "strategy": plan["strategy"],
        "state": "running" if running else "shutoff",
        "stage": "addressed" if running else "cloned",
        "address": _GENERATED if running else "",
        "disks": [
            {
                "target": disk["target"],
                "path": disk["destination"],
                "format": disk["format"],
                "strategy": disk["action"],
            }
            for disk in plan["disks"]
            if disk["destination"]
        ],
    }


def absent(name, force=False):
    """
    Make sure that there is no such clone. A domain that is not one of
    our clones is left alone and makes the state fail.

    name
        Name of the clone.
    force
        Remove a foreign domain's definition too; its disks stay.

    CLI Example:

    .. code-block:: bash

        salt kvm01 state.single kvm_clone.absent web1
    """
    dry = __opts__["test"]
    try:
        if not __salt__["kvm_clone.exists"](name):
            return _answer(name, True, f"'{name}' does not exist.")
        clone = __salt__["kvm_clone.destroy"](name, force=force, test=True)
        if not dry:
            __salt__["kvm_clone.destroy"](name, force=force)
    except CommandExecutionError as error:
        return _answer(name, False, str(error))
    changes = {"clone": _delta(clone, None)}
    if dry:
        return _answer(name, None, f"'{name}' would be destroyed.", changes)
    words = " ".join([f"'{name}' was destroyed.", *clone["warnings"]])
    return _answer(name, True, words, changes)


def running_(name):
    """
    Make sure that a clone runs. At its first start it waits for the
    address, and tells it. Changes that wait for its next start are
    told, and brought where ``watch`` or ``listen`` says so.

    CLI Example:

    .. code-block:: bash

        salt kvm01 state.single kvm_clone.running web1
    """
    return _powered(name, "running", "start", tells=True)


def stopped(name):
    """
    Make sure that a clone is shut off.

    CLI Example:

    .. code-block:: bash

        salt kvm01 state.single kvm_clone.stopped web1
    """
    return _powered(name, "shutoff", "stop")


def mod_watch(name, sfun=None, running=True, **_keys):
    """
    Reboot the clone of a ``running``, or of a ``present`` that wants it
    running. Salt calls it for ``watch`` and ``listen``. Where changes
    wait for the clone's next start, which a reboot is not, it is shut
    down and started instead.

    CLI Example:

    .. code-block:: bash

        salt kvm01 state.single kvm_clone.mod_watch web1 sfun=running
    """
    if sfun not in ("running", "present") or not running:
        return _answer(name, True, f"'{name}' is left as it is.")
    try:
        waiting = _waiting(name)
        done = "restarted" if waiting else "rebooted"
        words = f"{done}, which brings {', '.join(waiting)}" if waiting else done
        changes = {done: _delta(False, True), **waiting}
        if __opts__["test"]:
            return _answer(name, None, f"'{name}' would be {words}.", changes)
        for action in ("stop", "start") if waiting else ("reboot",):
            __salt__[f"kvm_clone.{action}"](name)
    except CommandExecutionError as error:
        return _answer(name, False, str(error))
    return _answer(name, True, f"'{name}' was {words}.", changes)


__func_alias__ = {"running_": "running"}


def _powered(name, wanted, action, tells=False):
    dry = __opts__["test"]
    try:
        planned = _planned(name) if dry and not __salt__["kvm_clone.exists"](name) else None
        clone = planned or __salt__["kvm_clone.show"](name)
        if clone["state"] == wanted:
            words = f"'{name}' is {wanted}."
            if tells and not planned:
                words = f"{words} {__salt__['kvm_clone.pending_changes'](name)['note']}".strip()
            return _answer(name, True, words)
        changes = {"state": _delta(clone["state"], wanted)}
        if action == "start" and clone["stage"] == "cloned":
            changes["address"] = _delta("", _GENERATED)
        if dry:
            return _answer(name, None, f"'{name}' would be {wanted}.", changes)
        clone = __salt__[f"kvm_clone.{action}"](name)
    except CommandExecutionError as error:
        return _answer(name, False, str(error))
    changes["state"]["new"] = clone["state"]
    if "address" in changes:
        changes["address"]["new"] = clone["address"]
    right = clone["state"] == wanted
    return _answer(name, right, f"'{name}' is {clone['state']}.", changes)


def _waiting(name):
    """
    Return what the next start of a running clone changes; in a dry run also what an earlier state
    of this run would have changed.
    """
    if not __salt__["kvm_clone.exists"](name):
        return {}
    waiting = dict(__salt__["kvm_clone.pending_changes"](name)["changes"])
    for told in _told_of(name) if __opts__["test"] else ():
        if "state" not in told:  # else it starts with them
            waiting.update({key: told[key] for key in _AT_START if key in told})
    return waiting


def _told_of(name):
    """Return the changes of earlier states of this run that are ours and about that clone."""
    told = (globals().get("__running__") or {}).items()
    ours = [answer for tag, answer in told if tag.startswith("kvm_clone_|-")]
    mine = [one for one in ours if (one.get("name"), one.get("result")) == (name, None)]
    return [one.get("changes") or {} for one in mine]


def _planned(name):
    """Return what an earlier state of this dry run would have made; None for nothing."""
    for told in _told_of(name):
        if (told.get("clone") or {}).get("new"):
            return told["clone"]["new"]
    return None


def _delta(old, new):
    return {"old": old, "new": new}


def _answer(name, result, comment, changes=None):
    return {"name": name, "result": result, "comment": comment, "changes": short(changes or {})}
