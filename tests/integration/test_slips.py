"""A slip at the keyboard is one clear error, with an exit code, and nothing is done by mistake."""

from __future__ import annotations

import shlex
import time
from typing import Any

import pytest

from lab.salt import SaltWorld
from tests.support.hints import commands, tries


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


def retyped(salt: SaltWorld, hint: str) -> Any:
    """The answer to the command that a hint of the master names."""
    program, function, *words = shlex.split(hint)
    assert program == "salt-run"
    return salt.run(function, *words)


def said_by_host(salt: SaltWorld, *words: str) -> tuple[str, str]:
    """What ``salt-call`` says of a mistake, and its hint."""
    told = salt.call("kvm01", *words)
    assert told.retcode == 1
    message, _, hint = told.stderr.strip().splitlines()[-1].partition(" Hint: ")
    return message, hint


def test_the_hint_after_a_wrong_argument_is_the_right_command(salt: SaltWorld) -> None:
    error = error_of(salt.run("kvmclone.gc", "forse=False"))
    assert error["message"] == "kvmclone.gc does not take 'forse'. Did you mean 'force'?"
    assert retyped(salt, error["hint"]).data == {"leftovers": [], "retcode": 0}


@tries("meant.require_at_master.command")
@pytest.mark.parametrize("words", [("web1", "tiny"), ("tinny", "web1")])
def test_a_swapped_or_misspelt_profile_is_told_with_the_right_command(
    salt: SaltWorld, words: tuple[str, str]
) -> None:
    told = salt.run("kvmclone.plan", *words).data["plans"][words[1]]["error"]
    assert told["hint"] == "salt-run kvmclone.plan tiny web1"
    # The profile is found, and then its base is not.
    assert retyped(salt, told["hint"]).data["plans"]["web1"]["error"]["type"] == "NotFound"


@tries("meant.require_on_host", "meant._typed_on_host")
def test_who_types_the_masters_command_on_a_host_comes_to_the_right_one(salt: SaltWorld) -> None:
    message, hint = said_by_host(salt, "kvm_clone.plan", "web1", "tiny")
    assert "No profile is configured on this host" in message
    assert retyped(salt, hint).data["plans"]["web1"]["error"]["type"] == "NotFound"

    _message, hint = said_by_host(salt, "kvm_clone.plan", "web1")
    right = commands(hint)[-1].replace("BASE", "nowhere")
    message, _hint = said_by_host(salt, *shlex.split(right)[1:])
    assert "There is no domain 'nowhere'" in message


@tries("map_files._path")
def test_a_misspelt_map_is_told_with_the_right_command(salt: SaltWorld) -> None:
    salt.write_cloud("maps", "web.map", "tiny:\n\t- web1\n")
    error = error_of(salt.run("kvmclone.map", "wbe"))
    assert error["message"] == "There is no map 'wbe'. Did you mean 'web.map'?"
    tab = error_of(retyped(salt, error["hint"]))
    assert tab["message"].endswith("line 2 is indented with a tab; use spaces")


def test_a_tab_in_a_profile_is_called_a_tab(salt: SaltWorld) -> None:
    path = salt.write_cloud("profiles", "tab.conf", "web:\n\tprovider: kvm\n")
    try:
        told = error_of(salt.run("kvmclone.create", "web", "web1"))["message"]
    finally:
        path.unlink()
    assert f"{path}:2: is not valid YAML: the line is indented with a tab; use spaces" in told
