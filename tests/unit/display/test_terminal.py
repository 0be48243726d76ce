"""What is printed at a terminal only prints, and programs get the data."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import pytest

from saltext.kvmclone.display import terminal
from tests.unit.display.examples import clone

Person = Callable[[], None]


class Terminal(io.StringIO):
    """A stream of one encoding that leads to a person."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Person:
    """Let a person read what is printed from now on; pytest itself takes stdout in between."""

    def sit_down() -> None:
        monkeypatch.setattr(sys, "stdout", Terminal())
        monkeypatch.setenv("COLUMNS", "80")

    return sit_down


def opts(fun: str, *arguments: Any, cli: str = "salt-run", **more: Any) -> dict[str, Any]:
    return {"__cli": cli, "fun": fun, "arg": list(arguments), **more}


def test_an_escape_sequence_does_nothing_to_the_terminal(person: Person) -> None:
    person()
    evil = clone(warnings=["\x1b[2J\x1b]0;x\x07gone"], profile="a\tb")
    shown = terminal.shown({"clones": {"web1": evil}}, opts("kvmclone.show", "web1"))
    assert shown is not None
    assert "\x1b" not in shown and "\x07" not in shown
    assert "?[2J?]0;x?gone" in shown


def test_a_terminal_of_another_encoding_shows_what_it_can(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    person()
    monkeypatch.setattr(Terminal, "encoding", "latin-1")
    tree = {"bases": {"b": {"clones": {"x": {}}, "disks": [], "drift": False}}}
    assert terminal.shown(tree, opts("kvmclone.tree")) == "b\n?? x"


def test_the_narrowest_terminal_shows_something(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    person()
    monkeypatch.setenv("COLUMNS", "5")
    assert terminal.shown({"clones": {"web1": clone()}}, opts("kvmclone.show", "web1"))


def test_the_runner_is_known_by_either_name(person: Person) -> None:
    person()
    for fun in ("kvmclone.list", "kvm_clone.list"):
        assert terminal.shown({"clones": {}}, opts(fun)) == "No clones"


def test_in_a_batch_each_answer_is_shown_without_what_salt_adds(person: Person) -> None:
    person()
    data = {"kvm01": [], "jid": "20261129", "retcode": 0}
    told = opts("kvm_clone.doctor", cli="salt", batch="1")
    assert terminal.shown(data, told) == "kvm01:\n  No problems were found."


def test_a_pipe_a_file_and_other_functions_are_left_to_salt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = {"clones": {"web1": clone()}}
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert terminal.shown(data, opts("kvmclone.show")) is None
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert terminal.shown(data, opts("kvmclone.show")) is not None
    assert terminal.shown(data, opts("kvmclone.show", output_file="/tmp/x")) is None
    assert terminal.shown(data, opts("jobs.lookup_jid")) is None
    assert terminal.shown(data, opts(["kvm_clone.show", "test.ping"], cli="salt")) is None
