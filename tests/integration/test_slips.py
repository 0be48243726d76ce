"""A slip at the keyboard is one clear error, with an exit code, and nothing is done by mistake."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lab.salt import SaltWorld


def error_of(answer: Any) -> dict[str, Any]:
    assert answer.retcode != 0, answer
    (told,) = answer.data["clones"].values() if "clones" in answer.data else [answer.data]
    error: dict[str, Any] = told["error"]
    return error


@pytest.mark.parametrize(
    "words",
    [
        ("kvmclone.gc", "one", "another"),
        ("kvmclone.gc", "one", "apply=True", "force=yes_please"),
        ("kvmclone.destroy", "one", "force=ja"),
    ],
)
def test_a_switch_is_true_or_false_and_never_one_more_name(
    salt: SaltWorld, words: tuple[str, ...]
) -> None:
    error = error_of(salt.run(*words))
    assert error["type"] == "ConfigError"
    assert "neither true nor false" in error["message"]


def test_a_host_that_the_master_does_not_know_is_named_at_once(salt: SaltWorld) -> None:
    began = time.monotonic()
    error = error_of(salt.run("kvmclone.create", "tiny", "web1", "host=kvm99"))
    assert time.monotonic() - began < 20
    assert error["type"] == "HostUnreachable"
    assert "kvm99" in error["message"]
    assert "salt-key -a kvm99" in error["hint"]
    assert "removed" not in error["message"], "nothing can have been made"


def test_a_selection_that_is_not_configured_is_said(salt: SaltWorld) -> None:
    assert "query.selection" in salt.cloud("-S").stderr


def test_the_hint_after_a_wrong_argument_is_a_command_that_helps(salt: SaltWorld) -> None:
    hint = error_of(salt.run("kvmclone.gc", "forse=True"))["hint"]
    program, *words = hint.partition(": ")[2].split()
    told = salt.execute(salt.command(program, *words))
    assert told.retcode == 0
    assert "force" in told.stdout
