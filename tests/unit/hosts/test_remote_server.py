"""A KVM host does what a master of its own version asks, and nothing for another."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from saltext.kvmclone import errors
from saltext.kvmclone.errors import HostUnreachable
from saltext.kvmclone.hosts import remote_server
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hosts.operations import OPERATIONS, SEVERAL, VERSION

OPTS = {"id": "kvm01", "pki_dir": "/nonexistent"}
URL = "test:///default"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes every operation that the host begins."""
    begun: list[str] = []
    for name in OPERATIONS:
        monkeypatch.setattr(
            LocalHost, name, lambda _self, *_, name=name, **__: begun.append(name), raising=True
        )
    return begun


def refused(operation: str, arguments: Any, by_hand: bool = False) -> errors.KvmCloneError:
    answer = remote_server.serve(OPTS, operation, arguments, URL, by_hand)
    assert set(answer) == {"version", "error"}
    assert answer["version"] == VERSION
    return errors.from_dict(answer["error"])


@pytest.mark.parametrize("version", ["", "@1", "@", f"@{VERSION + 1}", "@x", f"@{VERSION} "])
@pytest.mark.parametrize("name", ["list_clones", "boot", "clone_as_asked", "nothing"])
def test_a_master_of_another_version_is_told_so_and_nothing_is_done(
    asked: list[str], name: str, version: str
) -> None:
    error = refused(name + version, {"name": "web1"})
    assert isinstance(error, HostUnreachable), "who was not asked is not gone"
    assert "'kvm01'" in error.message
    assert "salt-run saltutil.sync_all" in error.hint
    assert "salt kvm01 saltutil.sync_all" in error.hint
    assert not asked


def test_a_person_need_not_know_the_version(asked: list[str]) -> None:
    answer = remote_server.serve(OPTS, "list_clones", {}, URL, by_hand=True)
    assert answer == {"version": VERSION, "answer": None}
    assert asked == ["list_clones"]
    assert "speak 1 and" in refused("list_clones@1", {}, by_hand=True).message


@pytest.mark.parametrize("name", ["nothing", "__init__", "_connected", "url", "exists", "adjust"])
def test_what_is_in_no_table_is_not_served(asked: list[str], name: str) -> None:
    assert "does not know" in refused(f"{name}@{VERSION}", {}).message


@pytest.mark.parametrize(
    "arguments", [None, [], "x", {}, {1: 2, "a": 3}, {"name": 7}, {"name": "web1", "force": True}]
)
def test_arguments_that_are_not_in_the_table_are_refused(asked: list[str], arguments: Any) -> None:
    assert "cannot read what is asked" in refused(f"boot@{VERSION}", arguments).message
    assert not asked


def test_what_the_host_refuses_keeps_its_type() -> None:
    error = refused(f"show@{VERSION}", {"name": "web1"})
    assert error.type == "NotFound"


# --- several calls in one job ------------------------------------------------------------


def several(*calls: Any, parts: Any = "0" * 32, told: Any = lambda *_: None) -> dict[str, Any]:
    arguments = {"calls": list(calls), "parts": parts}
    return remote_server.serve(OPTS, SEVERAL, arguments, URL, tell=told)


def call(operation: str, **arguments: Any) -> dict[str, Any]:
    return {"operation": f"{operation}@{VERSION}", "arguments": arguments}


def test_each_of_several_calls_is_answered_as_it_would_be_alone() -> None:
    calls = [call("show", name="web1"), call("list_clones"), call("show", name="test")]
    alone = [remote_server.serve(OPTS, one["operation"], one["arguments"], URL) for one in calls]
    assert several(*calls) == {
        "version": VERSION, "answers": {str(n): one for n, one in enumerate(alone)}
    }  # fmt: skip


@pytest.mark.parametrize(
    "operation", ["list_clones", "list_clones@1", f"list_clones@{VERSION + 1}", SEVERAL, ""]
)
def test_a_call_among_several_is_of_this_version_and_is_not_several(
    asked: list[str], operation: str
) -> None:
    told = several(call("tree"), {"operation": operation, "arguments": {}})["answers"]
    assert "error" in told["1"] and "answer" in told["0"]
    assert asked == ["tree"]


def test_a_call_that_breaks_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(LocalHost, "tree", broken)
    told = several(call("tree"), call("list_clones"), {"operation": "tree"})["answers"]
    assert told["1"] == {"version": VERSION, "answer": []}
    for number in ("0", "2"):
        error = errors.from_dict(told[number]["error"])
        assert isinstance(error, HostUnreachable), "nobody knows what it did"
        assert "unexpected fault on 'kvm01'" in error.message and error.hint


@pytest.mark.parametrize("parts", [None, 7, "", "x" * 32, "0" * 31, "0" * 33, "../" + "0" * 29])
def test_parts_of_the_answer_go_to_no_other_tag(asked: list[str], parts: Any) -> None:
    assert "cannot read what is asked" in str(several(call("tree"), parts=parts)["error"])
    assert not asked


@pytest.mark.parametrize("arguments", [None, [], "x", {}, {"calls": 7, "parts": "0" * 32}])
def test_several_calls_of_another_form_are_refused(asked: list[str], arguments: Any) -> None:
    assert "cannot read what is asked" in refused(SEVERAL, arguments).message
    assert not asked


def test_what_has_ended_is_told_under_the_tag_of_its_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first_told = threading.Event()
    parts: list[Any] = []
    monkeypatch.setattr(LocalHost, "tree", lambda _self: first_told.wait(10))

    def tell(tag: str, part: Any) -> None:
        parts.append((tag, part))
        first_told.set()

    whole = several(call("list_clones"), call("tree"), told=tell)
    first = {"0": {"version": VERSION, "answer": []}}
    assert parts == [
        (f"salt/minion/kvm01/kvm_clone/{'0' * 32}", {"version": VERSION, "answers": first})
    ]
    assert set(whole["answers"]) == {"0", "1"}
