"""A command about many machines is about those that are meant, and about them only after a yes."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from saltext.kvmclone.config.placement_keys import FleetSettings
from saltext.kvmclone.errors import ConfigError, HostUnreachable
from saltext.kvmclone.hosts.outcome import Outcome
from saltext.kvmclone.master import many
from saltext.kvmclone.master.bundled_calls import BundledCalls
from saltext.kvmclone.master.clone_list import Selection
from saltext.kvmclone.model.names import check

TYPED = {"__cli": "salt-run"}
TEN = [f"web{number}" for number in range(10)]
ELEVEN = [*TEN, "web10"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Somebody at a terminal who types this."""

    def typing(answer: str) -> Terminal:
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        shown = Terminal()
        monkeypatch.setattr(sys, "stderr", shown)
        return shown

    return typing


@pytest.mark.parametrize("answer", ["y\n", "yes\n", " YES \n"])
def test_eleven_machines_are_asked_about_once(terminal: Any, answer: str) -> None:
    shown = terminal(answer)
    many.require_yes(TYPED, "destroy", ELEVEN, yes=False)
    assert shown.getvalue() == (
        "Destroy 11 machines (web0, web1, web2, web3, web4, web5 and 5 more)? [y/N] "
    )


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "force\n", "yesterday\n"])
def test_anything_but_a_yes_leaves_them_alone(terminal: Any, answer: str) -> None:
    terminal(answer)
    with pytest.raises(ConfigError, match="Nothing was done") as refused:
        many.require_yes(TYPED, "stop", ELEVEN, yes=False)
    assert "yes=True" in refused.value.hint


@pytest.mark.parametrize("names", [[], ["web1"], TEN])
def test_ten_machines_are_not_asked_about(names: list[str]) -> None:
    many.require_yes({}, "destroy", names, yes=False)


def test_an_answer_beforehand_is_an_answer(terminal: Any) -> None:
    shown = terminal("n\n")
    many.require_yes(TYPED, "destroy", ELEVEN, yes=True)
    assert shown.getvalue() == ""


@pytest.mark.parametrize(
    "opts", [{"__cli": "salt-master"}, {"__cli": "salt-run", "async": True}, {}]
)
def test_where_nobody_typed_it_nobody_is_asked(terminal: Any, opts: dict[str, Any]) -> None:
    shown = terminal("y\n")
    with pytest.raises(ConfigError, match=r"stop of 11 machines.*nobody can be asked") as refused:
        many.require_yes(opts, "stop", ELEVEN, yes=False)
    assert "yes=True" in refused.value.hint
    assert shown.getvalue() == ""


@pytest.mark.parametrize("which", ["stdin", "stderr"])
def test_a_pipe_cannot_be_asked(terminal: Any, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    terminal("y\n")
    monkeypatch.setattr(sys, which, io.StringIO("y\n"))
    with pytest.raises(ConfigError, match="nobody can be asked"):
        many.require_yes(TYPED, "stop", ELEVEN, yes=False)
    monkeypatch.setattr(sys, which, None)
    with pytest.raises(ConfigError, match="nobody can be asked"):
        many.require_yes(TYPED, "stop", ELEVEN, yes=False)


# --- which machines -------------------------------------------------------------------


def fleet(unreachable: dict[str, Any] | None = None) -> tuple[Any, list[Selection]]:
    """A fleet with two clones, of which one stands on two hosts."""
    asked: list[Selection] = []

    def listing(wanted: Selection) -> dict[str, Any]:
        asked.append(wanted)
        clones = {"web1": "web1", "web2": "web2", "web2 (kvm02)": "web2"}
        found = {"clones": {key: {"name": name} for key, name in clones.items()}, "retcode": 0}
        return found | ({"unreachable": unreachable} if unreachable else {})

    return SimpleNamespace(everywhere=SimpleNamespace(listing=listing)), asked


NOBODY = dict.fromkeys(("tag", "host", "profile", "base"))


def test_names_are_taken_as_they_are_and_no_host_is_asked() -> None:
    one, asked = fleet()
    assert many.choose(one, ["a", 7], NOBODY).names == ["a", 7]
    assert asked == []


def test_a_selection_stands_for_each_name_once() -> None:
    one, asked = fleet()
    assert many.choose(one, [], {**NOBODY, "tag": "web", "host": "kvm01"}).names == ("web1", "web2")
    assert asked == [Selection(tag="web", host="kvm01")]


def test_a_host_that_did_not_say_what_it_has_is_named_in_the_answer() -> None:
    down = {"kvm03": HostUnreachable("down").as_dict()}
    one, _asked = fleet(down)
    chosen = many.choose(one, [], {**NOBODY, "tag": "web"})
    assert chosen.completed({"clones": {}, "retcode": 0}) == {
        "clones": {}, "unreachable": down, "retcode": 1,
    }  # fmt: skip
    assert many.Chosen(["a"]).completed({"clones": {}, "retcode": 0})["retcode"] == 0


def test_names_and_a_selection_together_are_refused() -> None:
    one, asked = fleet()
    with pytest.raises(ConfigError, match=r"names \(web1\) and a selection \(tag=x\)"):
        many.choose(one, ["web1"], {**NOBODY, "tag": "x"})
    with pytest.raises(ConfigError, match="tag= is empty"):
        many.choose(one, [], {**NOBODY, "tag": ""})
    assert asked == []


# --- and what becomes of them ---------------------------------------------------------


def test_each_machine_is_worked_on_in_its_own_right_and_order_is_kept() -> None:
    def work(name: Any) -> Outcome:
        return Outcome(check(name), "ready")

    placing = SimpleNamespace(settings=FleetSettings())
    some: Any = SimpleNamespace(placing=placing, calls=BundledCalls({}))
    assert [one.name for one in many.each(some, work, ELEVEN)] == ELEVEN
    assert [one.name for one in many.each(some, work, ["web1"])] == ["web1"]
    assert many.each(some, work, []) == []
