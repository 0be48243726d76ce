"""
Turn the library's answers and errors into Salt's, for all Salt entry points.

Each public function of an entry point takes its arguments, makes one call into the library and
returns the answer. A decorator of this module turns whatever goes wrong into what its caller
understands: :func:`runner_function` for ``salt-run``, :func:`module_function` for the execution
module; and the block :func:`cloud_call` for ``salt-cloud``.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import salt.utils.args
from salt.defaults.exitcodes import EX_GENERIC
from salt.exceptions import CommandExecutionError, SaltCloudSystemExit

from saltext.kvmclone import interrupts
from saltext.kvmclone.config.usage import Command
from saltext.kvmclone.display import terminal
from saltext.kvmclone.display.screen import OUTPUTTER
from saltext.kvmclone.errors import (
    ConfigError,
    HostError,
    Interrupted,
    KvmCloneError,
    MissingPackage,
    named,
)
from saltext.kvmclone.model import name_ranges
from saltext.kvmclone.model.hints import AT_HOST, AT_MASTER

if TYPE_CHECKING:  # an entry point must load, and say so, where a package is missing
    from saltext.kvmclone.hosts.outcome import Outcome

log = logging.getLogger(__name__)

Answer = dict[str, Any]
Function = Callable[..., Any]

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
            f"The library of kvm_clone is incomplete here ({error}). Sync all of it: "
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
                f"Type {name}=True or {name}=False, without quotes. If it is one more name: name "
                "one clone at a time.",
            )


def names_given(several: Iterable[Any], names: Any = None, name: Any = None) -> list[Any]:
    """
    Return every name that a command was given, by position or by keyword, unchecked.

    :param several: By position; ranges stand for their names, see :mod:`.name_ranges`.
    :param names: As the keyword ``names=``: a list, or a lone one; None for none.
    :param name: As the keyword ``name=``; None for none.
    :raises KvmCloneError: What :func:`.name_ranges.expand` raises.
    """
    listed = names if isinstance(names, (list, tuple)) else [names]
    return name_ranges.expand([*several, *(one for one in (*listed, name) if one is not None)])


def clone(outcome: Outcome) -> Answer:
    """
    Return CLONE of a create.

    :raises KvmCloneError: The create failed.
    """
    if outcome.error is not None:
        raise outcome.error
    return outcome.as_dict()


def clones(outcomes: Iterable[Outcome]) -> Answer:
    """Return ``{"clones": {NAME: CLONE}, "retcode"}``; see docs/answers.md."""
    outcomes = list(outcomes)
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    interrupted = any(isinstance(error, Interrupted) for error in failed)
    return {
        "clones": {outcome.name: outcome.as_dict() for outcome in outcomes},
        "retcode": interrupts.EXIT_CODE if interrupted else int(bool(failed)),
    }


def each_clone(names: Iterable[Any], name: Any, work: Callable[[Any], Outcome]) -> Answer:
    """
    Return what became of each clone that a command names, as :func:`clones` does.

    :param names: By position.
    :param name: As the keyword ``name=``; None for none.
    :param work: What is done with each of them.
    """
    return clones(map(work, names_given(names, name=name)))


# --- the runner ------------------------------------------------------------------------


def runner_function(function: Callable[..., Answer], guarded: bool = True) -> Callable[..., Answer]:
    """
    Wrap a public runner function so that every failure is answered with an exit code.

    Whatever goes wrong becomes ``{"error": {"type", "message", "hint"}, "retcode": 1}``, which
    ``salt-run`` shows as a failure only if the runner's ``__context__`` has the ``retcode`` too. A
    stray ``TypeError`` would be shown as "Passed invalid arguments" with exit code 0, so arguments
    that the function does not take are an error of ours, with the right ones named. The runner's
    ``MISSING`` says what it cannot load; it is offered all the same, since Salt would answer an
    absent runner with exit code 0.

    :param guarded: A signal ends it with an answer that says so, see :mod:`.interrupts`.
    """
    command = Command.of(AT_MASTER + function.__name__.rstrip("_"), function)
    guard = functools.partial(interrupts.guard, interrupts.AT_MASTER)
    protection = guard if guarded else contextlib.nullcontext

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Answer:
        kwargs = salt.utils.args.clean_kwargs(**kwargs)
        try:
            with protection():
                _require_packages(function)
                command.require(args, kwargs)
                answer = function(*args, **kwargs)
        except interrupts.Interrupt:
            answer = _interrupted(command.name)
        except KvmCloneError as error:
            answer = {"error": error.as_dict(), "retcode": 1}
        except Exception as error:
            # Salt would show anything that is not caught here with exit code 0.
            answer = _fault(command.name, error)
        if answer.get("retcode"):
            function.__globals__["__context__"]["retcode"] = answer["retcode"]
        return _for_person(answer, command.name, function.__globals__["__opts__"])

    # Salt would follow __wrapped__ to the inner signature and answer a mistyped keyword with null.
    del wrapper.__wrapped__
    return wrapper


def _for_person(answer: Answer, name: str, opts: Mapping[str, Any]) -> Answer:
    """
    Return the answer as it is, or with our outputter where a person typed this very command.

    :param name: The function, with its module.
    """
    function = str(opts.get("fun")).partition(".")[2]
    typed = opts.get("__cli") == "salt-run" and f"kvmclone.{function}" == name
    if typed and not opts.get("output") and not opts.get("async") and terminal.is_read(opts):
        return {"data": answer, "outputter": OUTPUTTER}
    return answer


def _require_packages(function: Function) -> None:
    if missing := function.__globals__.get("MISSING"):
        raise MissingPackage(missing)


def _interrupted(name: str) -> Answer:
    stopped = Interrupted(
        f"{name} was interrupted before it finished.",
        "Repeat it. List what it left unfinished: salt-run kvmclone.gc",
    )
    return {"error": stopped.as_dict(), "retcode": interrupts.EXIT_CODE}


def _fault(name: str, error: Exception) -> Answer:
    log.exception("%s", name)
    fault = HostError(
        f"An unexpected fault in {name}: {named(error)}",
        "The traceback is in the master's log. Please report it.",
    )
    return {"error": fault.as_dict(), "retcode": 1}


# --- the execution module --------------------------------------------------------------


def module_function(function: Function, guarded: bool = False) -> Function:
    """
    Wrap a public function of the execution module so that a refusal or failure fails the job.

    What its file cannot load (``MISSING``) fails it as well, before all else. Salt is told that it
    takes any keyword, since it would answer one that is mistyped in words that name no other.

    :param guarded: A signal does not end it in the middle, see :mod:`.interrupts`.
    :raises CommandExecutionError: Of the wrapped function: what the library raised.
    """
    command = Command.of(f"{AT_HOST}{function.__name__}", function)
    guard = functools.partial(interrupts.guard, interrupts.AT_HOST)
    protection = guard if guarded else contextlib.nullcontext

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        kwargs = salt.utils.args.clean_kwargs(**kwargs)
        try:
            _require_packages(function)
            command.require(args, kwargs)
            with protection():
                return function(*args, **kwargs)
        except interrupts.Interrupt:
            name = next(iter(args), kwargs.get("name"))
            words = f"The command for '{name}' was interrupted; it may be half done."
            _fail(function, Interrupted(words, "Repeat the command."))
        except KvmCloneError as error:
            _fail(function, error)

    # Salt would follow __wrapped__ to the inner signature.
    del wrapper.__wrapped__
    wrapper.__signature__ = _open_signature(function)  # type: ignore[attr-defined]
    wrapper.__outputter__ = OUTPUTTER  # type: ignore[attr-defined]
    return wrapper


def _open_signature(function: Function) -> inspect.Signature:
    """Return the signature of a function, with any keyword besides."""
    signature = inspect.signature(function)
    kept = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    rest = inspect.Parameter("keywords", inspect.Parameter.VAR_KEYWORD)
    return signature.replace(parameters=[*kept, rest])


def _fail(function: Function, error: KvmCloneError) -> NoReturn:
    """End the job with an error; an interrupted command ends with the exit code for that."""
    options = function.__globals__["__opts__"]
    if isinstance(error, Interrupted) and options.get("__cli") == "salt-call":
        # Salt itself would make it exit code 1.
        sys.stderr.write(f"{error}\n")
        sys.exit(interrupts.EXIT_CODE)
    raise CommandExecutionError(str(error)) from error


# --- the salt-cloud driver -------------------------------------------------------------


@contextlib.contextmanager
def cloud_call(
    name: str,
    call: str | None = None,
    called: str = "",
    kwargs: Mapping[str, Any] | None = None,
    *,
    typed: str = "",
    ours: bool = False,
) -> Iterator[None]:
    """
    Turn a refusal within the block into an error of salt-cloud.

    It is no decorator, since salt-cloud's core puts the name of the active provider into the
    globals of the function that it calls, which must be those of the driver.

    :param name: Name of the driver's function.
    :param call: How it was called, as the core says it.
    :param called: How it may be called, as a ``function`` or an ``action``; empty for either.
    :param kwargs: What was typed after the name of an action, none of which takes anything.
    :param typed: The command that is right, where that is not ``-a`` or ``-f``.
    :param ours: An error stays ours.
    :raises SaltCloudSystemExit: What the library raised, or it was called the other way.
    """
    _require_call(name, call, called, kwargs, typed)
    try:
        yield
    except KvmCloneError as error:
        if ours:
            raise
        code = interrupts.EXIT_CODE if isinstance(error, Interrupted) else EX_GENERIC
        raise SaltCloudSystemExit(str(error), code) from error


def _require_call(
    name: str, call: str | None, called: str, kwargs: Mapping[str, Any] | None, typed: str
) -> None:
    """Refuse a function that is called as an action, or an action that is given arguments."""
    if (call, called) == ("action", "function"):
        right = typed or f"salt-cloud -f {name} PROVIDER"
        raise SaltCloudSystemExit(f"{name} is a function: {right}")
    if (call, called) == ("function", "action"):
        right = typed or f"salt-cloud -a {name} NAME"
        raise SaltCloudSystemExit(f"{name} is an action: {right}")
    if called == "action" and kwargs:
        raise SaltCloudSystemExit(f"{name} takes no arguments: {', '.join(sorted(kwargs))}")
