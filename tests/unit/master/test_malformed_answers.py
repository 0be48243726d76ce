"""A KVM host whose answers have another form is a host that does not answer, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from saltext.kvmclone.errors import AlreadyExists, CreateInProgress, HostUnreachable, NotFound
from saltext.kvmclone.hosts.operations import VERSION
from saltext.kvmclone.master import signed_call
from saltext.kvmclone.master.remote import RemoteHost
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.host_reports import CloneReport
from saltext.kvmclone.model.plain import to_plain
from saltext.kvmclone.model.record import Owner, Work
from saltext.kvmclone.model.spares import Claim

HOST = RemoteHost({}, "kvm01", "qemu:///system")

STRANGE: list[Any] = [None, 7, "x", {"x": 1}, [7], [{"name": 1}], [None]]

UUID = "6f1c9a52-6f7e-4a53-9d43-0d1b8f1c1d11"
KNOWN = asdict(CloneReport("web1", UUID, "ready", "0123", "web1.example.com", "aa:bb", True))
CLONE = Clone("web1", UUID, "kvm01", "base", "", "quick", "running", "ready")

Told = Callable[[Any], None]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    def tell(answer: Any) -> None:
        monkeypatch.setattr(signed_call, "ask", lambda *_, **__: answer)

    return tell


@pytest.mark.parametrize("answer", STRANGE)
@pytest.mark.parametrize(
    "ask",
    [
        lambda: HOST.show("web1"),
        lambda: HOST.list_clones(),
        lambda: HOST.unfinished(),
        lambda: HOST.clear("web1", "token"),
        lambda: HOST.unprotect("base"),
        lambda: HOST.daemon(),
        lambda: HOST.report_domains([], []),
    ],
    ids=["show", "list", "unfinished", "clear", "unprotect", "daemon", "report_domains"],
)
def test_an_answer_of_another_form_is_none(told: Told, ask: Callable[[], Any], answer: Any) -> None:
    told({"version": VERSION, "answer": answer})
    with pytest.raises(HostUnreachable, match="'kvm01' gave an answer of an unknown form"):
        ask()


@pytest.mark.parametrize("answer", [None, 7, "x", [7]])
def test_what_is_shown_to_people_is_a_table_or_nothing(told: Told, answer: Any) -> None:
    for ask in (HOST.tree, HOST.bases, HOST.doctor, HOST.capacity):
        told({"version": VERSION, "answer": answer})
        with pytest.raises(HostUnreachable, match="kvm01"):
            ask()


@pytest.mark.parametrize("answer", [None, 7, "x", [], {}, {"version": VERSION}, {"version": "2"}])
def test_without_an_answer_in_it_an_answer_is_none(told: Told, answer: Any) -> None:
    told(answer)
    with pytest.raises(HostUnreachable, match="kvm01"):
        HOST.daemon()


@pytest.mark.parametrize("domains", [None, 7, "web1", {"web1": 1}, [7]])
@pytest.mark.parametrize("clones", [[], [KNOWN], None, 7])
def test_what_a_host_witnesses_is_two_lists(told: Told, domains: Any, clones: Any) -> None:
    told({"version": VERSION, "answer": {"domains": domains, "clones": clones}})
    with pytest.raises(HostUnreachable):
        HOST.report_domains([], [])


@pytest.mark.parametrize(
    "wrong", [{"minion": None}, {"uuid": "../../etc/passwd"}, {"uuid": ""}, {"expired": "no"}]
)
def test_a_clone_that_a_host_witnesses_is_whole_and_its_uuid_no_path(
    told: Told, wrong: dict[str, Any]
) -> None:
    told({"version": VERSION, "answer": {"domains": ["web1"], "clones": [KNOWN]}})
    (known,) = HOST.report_domains(["web1"], []).clones
    assert asdict(known) == KNOWN
    told({"version": VERSION, "answer": {"domains": ["web1"], "clones": [{**KNOWN, **wrong}]}})
    with pytest.raises(HostUnreachable):
        HOST.report_domains(["web1"], [])


@pytest.mark.parametrize("error", [None, 7, "NotFound", ["NotFound"]])
def test_an_error_of_another_form_is_no_not_found(told: Told, error: Any) -> None:
    told({"version": VERSION, "error": error})
    with pytest.raises(HostUnreachable):
        HOST.show("web1")
    told({"version": VERSION, "error": {"type": "NotFound", "message": "gone"}})
    with pytest.raises(NotFound):
        HOST.show("web1")


def test_what_an_error_carries_is_whole_or_the_error_does_not_count(told: Told) -> None:
    work = Work(Owner("kvm01"), "alive", "cloned", "ready", "0123")
    there = AlreadyExists("it is there", clone=CLONE.as_dict())
    spare = AlreadyExists("it is there", clone=replace(CLONE, spare="0123").as_dict())
    claimed = replace(CLONE, spare="0123", claim=Claim("alice", 5.0)).as_dict()
    busy = CreateInProgress("somebody makes it", work=to_plain(work))
    for error in (there, spare, AlreadyExists("it is there", clone=claimed), busy):
        told({"version": VERSION, "error": error.as_dict()})
        with pytest.raises(type(error)):
            HOST.show("web1")
    there.clone = replace(CLONE, stage=7).as_dict()  # type: ignore[arg-type]
    busy.work = {"worker": {"pid": "1; rm"}}
    for error in (there, busy):
        told({"version": VERSION, "error": error.as_dict()})
        with pytest.raises(HostUnreachable, match="kvm01"):
            HOST.show("web1")
