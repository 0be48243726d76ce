"""A KVM host whose answers have another form is a host that does not answer, and no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from saltext.kvmclone.errors import HostUnreachable, NotFound
from saltext.kvmclone.master import signed_call
from saltext.kvmclone.master.remote import RemoteHost
from saltext.kvmclone.reactor import queries

HOST = RemoteHost({}, "kvm01", "qemu:///system")

STRANGE: list[Any] = [None, 7, "x", {"x": 1}, [7], [{"name": 1}], [None]]


@pytest.mark.parametrize("answer", STRANGE)
@pytest.mark.parametrize(
    "ask",
    [
        lambda: HOST.show("web1"),
        lambda: HOST.list_clones(),
        lambda: HOST.unfinished(),
        lambda: HOST.clear("web1", "token"),
        lambda: queries.witness(HOST),
    ],
    ids=["show", "list", "unfinished", "clear", "witness"],
)
def test_an_answer_of_another_form_is_none(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[], Any], answer: Any
) -> None:
    monkeypatch.setattr(signed_call, "ask", lambda *_, **__: {"answer": answer})
    with pytest.raises(HostUnreachable):
        ask()


@pytest.mark.parametrize("domains", [None, 7, "web1", {"web1": 1}])
@pytest.mark.parametrize("clones", [[], None, 7])
def test_what_a_host_witnesses_is_two_lists(
    monkeypatch: pytest.MonkeyPatch, domains: Any, clones: Any
) -> None:
    told = {"answer": {"domains": domains, "clones": clones}}
    monkeypatch.setattr(signed_call, "ask", lambda *_, **__: told)
    with pytest.raises(HostUnreachable):
        queries.witness(HOST)


@pytest.mark.parametrize("error", [None, 7, "NotFound", ["NotFound"]])
def test_an_error_of_another_form_is_no_not_found(
    monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    monkeypatch.setattr(signed_call, "ask", lambda *_, **__: {"error": error})
    with pytest.raises(HostUnreachable):
        HOST.show("web1")
    told = {"error": {"type": "NotFound", "message": "gone"}}
    monkeypatch.setattr(signed_call, "ask", lambda *_, **__: told)
    with pytest.raises(NotFound):
        HOST.show("web1")
