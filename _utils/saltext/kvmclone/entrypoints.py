"""
Turn the library's answers and errors into Salt's, for all Salt entry points.

``salt-run`` shows a failure correctly only when the answer carries ``retcode`` *and* the
runner's ``__context__`` does. A stray ``TypeError`` would be shown as "Passed invalid
arguments" with exit code 0. :func:`runner_function` takes care of both.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import shlex
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import salt.utils.args

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    ConfigError,
    HostError,
    Interrupted,
    KvmCloneError,
    MissingPackage,
    named,
)

if TYPE_CHECKING:  # an entry point must load, and say so, where a package is missing
    from saltext.kvmclone.hosts.outcome import Outcome

log = logging.getLogger(__name__)

Answer = dict[str, Any]


#: What to install for a module, where that is not just its name.
_PACKAGES = {
    "libvirt": "libvirt-python",
    "yaml": "PyYAML",
    "jinja2": "Jinja2",
    "paramiko": "paramiko>=3.2",
}


def missing(error: ImportError) -> str:
    """Return what ``__virtual__`` says when the library cannot be imported."""
    module = (error.name or str(error)).partition(".")[0]
    if module == "saltext":
        return (
            f"The library of kvm_clone is not complete here ({error}). Bring all of it: "
            "salt-run saltutil.sync_all   and on a minion: salt-call saltutil.sync_all"
        )
    return missing_package(_PACKAGES.get(module, module))


def missing_package(package: str) -> str:
    """Return a sentence that names a missing Python package and the command that installs it."""
    return (
        f"kvm_clone needs the Python package '{package}', which is not installed here. "
        f"Install it: salt-pip install {shlex.quote(package)}"
    )


def switches(**given: Any) -> None:
    """
    Refuse switches (``force``, ``apply`` …) that are not booleans.

    To Python every text is true: a second name, or ``'false'`` in quotes, would be a ``force``.

    :raises ConfigError: One is neither true nor false.
    """
    for name, value in given.items():
        if not isinstance(value, bool):
            raise ConfigError(
                f"{name}: {value!r} is neither true nor false.",
                f"Write {name}=True or {name}=False, without quotes. Where it was meant as one "
                "more name: name one clone at a time.",
            )


def names_given(several: Iterable[Any], names: Any = None, name: Any = None) -> list[Any]:
    """
    Return every name that a command was given, by position or by keyword, unchecked.

    :param several: By position.
    :param names: As the keyword ``names=``: a list, or a lone one; None for none.
    :param name: As the keyword ``name=``; None for none.
    """
    listed = names if isinstance(names, (list, tuple)) else [names]
    return [*several, *(one for one in (*listed, name) if one is not None)]


def clones(outcomes: Iterable[Outcome]) -> Answer:
    """Return ``{"clones": {NAME: CLONE}, "retcode"}``; see docs/answers.md."""
    outcomes = list(outcomes)
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    interrupted = any(isinstance(error, Interrupted) for error in failed)
    return {
        "clones": {outcome.name: outcome.as_dict() for outcome in outcomes},
        "retcode": interrupts.EXIT_CODE if interrupted else int(bool(failed)),
    }


def runner_function(function: Callable[..., Answer], guarded: bool = True) -> Callable[..., Answer]:
    """
    Wrap a public runner function so that every failure is answered with an exit code.

    Whatever goes wrong becomes ``{"error": {"type", "message", "hint"}, "retcode": 1}``,
    and the exit code of ``salt-run`` follows. Arguments that the function does not take
    are an error of ours too, with the right ones named. The runner's ``MISSING`` says what
    it cannot load; it is offered all the same, since Salt would answer an absent runner
    with exit code 0.

    :param guarded: A signal ends it with an answer that says so, see :mod:`.interrupts`.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Answer:
        kwargs = salt.utils.args.clean_kwargs(**kwargs)
        try:
            with interrupts.guard(interrupts.AT_MASTER) if guarded else contextlib.nullcontext():
                answer = honest(*args, **kwargs)
        except interrupts.Interrupt:
            stopped = Interrupted(
                f"kvmclone.{_public(function)} was interrupted before it came to its end.",
                "Repeat it. What was begun and is not whole: salt-run kvmclone.gc",
            )
            answer = {"error": stopped.as_dict(), "retcode": interrupts.EXIT_CODE}
        if answer.get("retcode"):
            function.__globals__["__context__"]["retcode"] = answer["retcode"]
        return answer

    def honest(*args: Any, **kwargs: Any) -> Answer:
        try:
            if function.__globals__["MISSING"]:
                raise MissingPackage(function.__globals__["MISSING"])
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise ConfigError(
                    f"kvmclone.{_public(function)}: {error}.",
                    f"See what it takes: salt-run -d kvmclone.{_public(function)}",
                ) from error
            return function(*args, **kwargs)
        except KvmCloneError as error:
            return {"error": error.as_dict(), "retcode": 1}
        except Exception as error:
            # Salt would show anything that is not caught here with exit code 0.
            log.exception("kvmclone.%s", _public(function))
            fault = HostError(
                f"An unexpected fault in kvmclone.{_public(function)}: {named(error)}",
                "The traceback is in the master's log. Please report it.",
            )
            return {"error": fault.as_dict(), "retcode": 1}

    # Salt would follow __wrapped__ to the inner signature and answer a mistyped keyword with null.
    del wrapper.__wrapped__
    return wrapper


def _public(function: Callable[..., Any]) -> str:
    return function.__name__.rstrip("_")
