"""
Make bases from the master.
"""

from __future__ import annotations

from typing import Any

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import Interrupted, KvmCloneError, NotFound
from saltext.kvmclone.master import at_once, progress
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.names import check

DESTROYED = "destroyed"


def promote(fleet: Fleet, name: Any, base: Any) -> dict[str, Any]:
    """
    Make a base of a clone, then remove the clone's key: exactly the one on its record.

    :param name: Name of the clone.
    :param base: Name of the base.
    :return: ``{"bases": {BASE: …}, "retcode"}``; a failure is the ``error`` of that base.
    """
    try:
        check(base)
        # With a signal, the host takes back what it has made; the key goes only after its answer.
        with interrupts.work(base, "the making"):
            host, clone = fleet.find(name)
            made = host.promote(name, base)
            with interrupts.shield():
                fleet.keys.take_back(clone.minion.id or name, clone.minion.fingerprint)
                told = {"name": name, "host": clone.host, "profile": clone.profile}
                told |= {"stage": DESTROYED, "elapsed": 0.0}
                progress.fire(fleet.opts, f"{name}/{DESTROYED}", told)
    except interrupts.Interrupt:
        return _failed(base, at_once.half_done(name))
    except NotFound as error:
        error.hint += f"   If it was promoted, its key may be left: {_destroy(name)}"
        return _failed(base, error)
    except KvmCloneError as error:
        return _failed(base, error)
    return {"bases": {base: made}, "retcode": 0}


def _failed(base: Any, error: KvmCloneError) -> dict[str, Any]:
    told = {"name": str(base), "error": error.as_dict()}
    code = interrupts.EXIT_CODE if isinstance(error, Interrupted) else 1
    return {"bases": {str(base): told}, "retcode": code}


def _destroy(name: Any) -> str:
    return Commands().clone("destroy", str(name))
