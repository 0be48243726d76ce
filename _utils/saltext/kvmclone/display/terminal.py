"""
Find out whether a person reads at a terminal, what was typed there, and show the answer.
"""

from __future__ import annotations

import copy
import dataclasses
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any

import salt.utils.args

from saltext.kvmclone.display import answers
from saltext.kvmclone.display.screen import Screen
from saltext.kvmclone.model.hints import AT_HOST

#: Characters in a line at least; what is narrower breaks the lines itself.
_NARROWEST = 40

#: What Salt adds to the answers of minions where it works in batches.
_OF_A_BATCH = ("jid", "retcode")


def is_read(opts: Mapping[str, Any]) -> bool:
    """
    Return True if what is printed goes to a terminal.

    :param opts: Salt's configuration, as the command has it.
    """
    if opts.get("output_file"):
        return False
    try:
        return bool(sys.stdout.isatty())
    except (AttributeError, ValueError):  # closed, or not a file
        return False


def shown(data: Any, opts: Mapping[str, Any]) -> str | None:
    """
    Return what a person at the terminal sees of an answer.

    :param data: The answer of the runner, or answers by minion id.
    :param opts: Salt's configuration, with the command that was typed.
    :return: Text; None where Salt's own outputter is to show it.
    """
    module, _, function = str(opts.get("fun")).partition(".")
    if module not in ("kvmclone", "kvm_clone") or not isinstance(data, Mapping):
        return None
    if not is_read(opts):
        return None
    shown = _shown(data, function, opts)
    return printable(shown) if shown is not None else None


def _shown(data: Mapping[str, Any], function: str, opts: Mapping[str, Any]) -> str | None:
    words, keywords = salt.utils.args.parse_input(
        copy.deepcopy(list(opts.get("arg") or [])), condition=False
    )
    screen = Screen(
        width=max(_NARROWEST, shutil.get_terminal_size().columns),
        now=time.time(),
        function=function,
        names=tuple(map(str, words)),
        options=salt.utils.args.clean_kwargs(**keywords),
    )
    if opts.get("__cli") == "salt-run":
        return answers.of_runner(data, screen)
    if opts.get("batch"):  # Salt mixes its own keys in
        data = {minion: answer for minion, answer in data.items() if minion not in _OF_A_BATCH}
    if opts.get("__cli") == "salt-call":
        return answers.of_minions(data, lambda _: dataclasses.replace(screen, ours=AT_HOST))
    return answers.of_minions(data, lambda minion: dataclasses.replace(screen, minion=minion))


def printable(shown: str) -> str:
    """
    Return a text that does nothing to a terminal but print.

    A script's output, or what a guest says of itself, may hold escape sequences.
    """
    kept = "".join(one if one.isprintable() or one == "\n" else "?" for one in shown.expandtabs())
    encoding = sys.stdout.encoding or "utf-8"
    return kept.encode(encoding, "replace").decode(encoding)
