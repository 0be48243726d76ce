"""A KVM host does what a master of its own version asks, and nothing for another."""

from __future__ import annotations

from typing import Any

import pytest

from saltext.kvmclone import errors
from saltext.kvmclone.errors import HostUnreachable
from saltext.kvmclone.hosts import remote_server
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hosts.operations import OPERATIONS, VERSION

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
