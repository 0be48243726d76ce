"""
Make bases from the master.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from saltext.kvmclone import interrupts
from saltext.kvmclone.config import base_keys
from saltext.kvmclone.errors import (
    ConfigError,
    HostUnreachable,
    Interrupted,
    KvmCloneError,
    NeverConnected,
    NotFound,
    no_host,
)
from saltext.kvmclone.hosts import make_base, rollback
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.master import at_once, progress
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model.base_request import BaseRequest
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.made_base import MadeBase
from saltext.kvmclone.model.names import check

#: Seconds between two looks at how far a base is, where somebody reads along.
_PROGRESS_POLL_S = 3.0

DESTROYED = "destroyed"


def base_from(fleet: Fleet, source: Any, name: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """
    Make a base from an image; return ``{"bases": {NAME: …}, "retcode"}``.

    :param source: URL of an image, or its path on the KVM host.
    :param given: Keys as :func:`.base_keys.request` takes them.
    """
    try:
        request, origin = base_keys.request(fleet.catalogue, source, name, given)
        if not (given.get("profile") or given.get("provider") or given.get("url")):
            request = _placed(fleet, request)
        host = fleet.host(request.host, request.url)
        work = functools.partial(make_base.make, host, request, origin)
        made = _shown_along(host, request, work) if progress.is_read() else work()
    except KvmCloneError as error:
        return _failed(name, error)
    elsewhere = fleet.catalogue.problems.elsewhere()
    warned = dataclasses.replace(made, warnings=(*made.warnings, *elsewhere))
    return {"bases": {made.name: warned.as_dict()}, "retcode": 0}


def _placed(fleet: Fleet, request: BaseRequest) -> BaseRequest:
    """
    Return the request with the host that is meant: the named one, or the only one.

    :raises ConfigError: There are several hosts, or none, and none was named.
    """
    ways, asked = fleet.everywhere.ways, request.host
    if not ways:
        fleet.everywhere.require_all_known()
        raise no_host()
    if asked in ways or (not asked and len(ways) == 1):
        minion, url = ways[asked or next(iter(ways))]
        return dataclasses.replace(request, host=minion, url=url)
    known = ", ".join(ways)
    raise ConfigError(
        f"There is no host '{asked}' here; there is {known}."
        if asked
        else f"On which host is the base '{request.name}' to be made? There is {known}.",
        f"Name one: host={next(iter(ways))}   Or a provider: provider=NAME",
    )


def _shown_along(host: KvmHost, request: BaseRequest, work: Callable[[], MadeBase]) -> MadeBase:
    """
    Do the work, and print each step that its record says was done.

    The record is all that is seen of work on another machine; this one only looks.
    """
    seen: dict[str, float] = {}
    with interrupts.defer(), ThreadPoolExecutor(max_workers=1) as pool:
        making = pool.submit(work)
        next_look = time.monotonic() + _PROGRESS_POLL_S
        while not making.done():
            time.sleep(0.1)
            if time.monotonic() >= next_look:
                _tell(request.name, seen, _timings(host, request.name))
                next_look = time.monotonic() + _PROGRESS_POLL_S
        made: MadeBase = making.result()
    _tell(request.name, seen, made.timings)
    return made


def _timings(host: KvmHost, name: str) -> dict[str, float]:
    """Return what the steps took that are done; nothing where that cannot be seen now."""
    try:
        # A Ctrl-C is for the work, whose answer says what became of it.
        with interrupts.shield():
            return host.show(name).timings
    except KvmCloneError:
        return {}


def _tell(name: str, seen: dict[str, float], now: Mapping[str, float]) -> None:
    for step, took in now.items():
        if step not in seen:
            seen[step] = took
            progress.step(name, step, took)


def promote(fleet: Fleet, name: Any, base: Any) -> dict[str, Any]:
    """
    Make a base of a clone, then remove the clone's key: exactly the one on its record.

    :param name: Name of the clone.
    :param base: Name of the base.
    :return: ``{"bases": {BASE: …}, "retcode"}``; a failure is the ``error`` of that base.
    """
    try:
        check(base)
        # The key goes only once the clone is gone, and then also after a signal.
        with interrupts.defer():
            host, clone = fleet.find(name)
            try:
                made = make_base.promote(host, name, base)
            except NeverConnected:
                raise
            except (Interrupted, HostUnreachable) as error:
                with interrupts.shield():
                    if rollback.is_gone(host, name):
                        _remove_key(fleet, name, clone)
                        error.message += f" '{name}' is destroyed, and its key removed."
                        error.hint = f"Look at the base: {Commands().clone('tree')}"
                raise
            with interrupts.shield():
                _remove_key(fleet, name, clone)
    except interrupts.Interrupt:
        return _failed(base, at_once.half_done(name))
    except NotFound as error:
        error.hint += f"   If it was promoted, its key may be left: {_destroy(name)}"
        return _failed(base, error)
    except KvmCloneError as error:
        return _failed(base, error)
    return {"bases": {base: made}, "retcode": 0}


def _remove_key(fleet: Fleet, name: str, clone: Clone) -> None:
    """Remove the key of a clone that was promoted, and have its event fired."""
    fleet.keys.take_back(clone.minion.id or name, clone.minion.fingerprint)
    told: dict[str, Any] = {"name": name, "host": clone.host, "profile": clone.profile}
    told |= {"stage": DESTROYED, "elapsed": 0.0}
    progress.fire(fleet.opts, f"{name}/{DESTROYED}", told)


def _failed(base: Any, error: KvmCloneError) -> dict[str, Any]:
    told = {"name": str(base), "error": error.as_dict()}
    code = interrupts.EXIT_CODE if isinstance(error, Interrupted) else 1
    return {"bases": {str(base): told}, "retcode": code}


def _destroy(name: Any) -> str:
    return Commands().clone("destroy", str(name))
