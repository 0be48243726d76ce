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
    words, keywords = salt.utils.args.parse_input(
        copy.deepcopy(list(opts.get("arg") or [])), condition=False
    )
    screen = Screen(
        width=shutil.get_terminal_size().columns,
        now=time.time(),
        function=function,
        names=tuple(map(str, words)),
        options=salt.utils.args.clean_kwargs(**keywords),
    )
    if module == "kvmclone":
        return answers.of_runner(data, screen)
    if opts.get("__cli") == "salt-call":
        return answers.of_minions(data, lambda _: dataclasses.replace(screen, ours=AT_HOST))
    return answers.of_minions(data, lambda minion: dataclasses.replace(screen, minion=minion))
