"""A KVM host is asked by one job, in the version of this master, or it is named and left alone."""

from __future__ import annotations

from typing import Any

import pytest

from saltext.kvmclone import errors
from saltext.kvmclone.errors import HostUnreachable, NeverConnected, OtherVersion
from saltext.kvmclone.hosts import remote_server
from saltext.kvmclone.hosts.operations import OPERATIONS, VERSION
from saltext.kvmclone.hosts.rollback import REFUSALS
from saltext.kvmclone.master import signed_call
from saltext.kvmclone.master.remote import RemoteHost
from saltext.kvmclone.model.hints import AT_HOST, Commands
from saltext.kvmclone.model.request import Request

REQUEST = Request("web1", "base")

#: What the first version served; it had no version in its names and answers.
FIRST = {"plan", "clone", "boot", "destroy", "list_clones", "show", "unfinished", "report_domains"}


class Host(RemoteHost):
    """A host whose job is done by this function; it notes what was published."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, serve: Any) -> None:
        super().__init__({}, "kvm01", "test:///default")
        self.published: list[str] = []

        def ask(_opts: Any, minion_id: str, _function: str, asked: Any, patient: bool) -> Any:
            assert (minion_id, patient) == ("kvm01", True)
            self.published.append(asked["operation"])
            return serve(**asked)

        monkeypatch.setattr(signed_call, "ask", ask)
        monkeypatch.setattr(signed_call, "accepted_key", lambda *_: "")


def the_first_version(operation: str, arguments: Any, url: str) -> dict[str, Any]:
    if operation in FIRST:
        return {"answer": {"done": operation}}
    return {"error": HostUnreachable(f"This host does not know '{operation}'.").as_dict()}


def this_version(operation: str, arguments: Any, url: str) -> dict[str, Any]:
    return remote_server.serve({"id": "kvm01"}, operation, arguments, url)


def the_next_version(operation: str, arguments: Any, url: str) -> dict[str, Any]:
    error = HostUnreachable("'kvm01' speaks another version.")
    return {"version": VERSION + 1, "error": error.as_dict(), "more": 1}


ASKS: dict[str, Any] = {
    "clone": lambda host: host.clone(REQUEST),
    "plan": lambda host: host.plan(REQUEST),
    "destroy": lambda host: host.destroy("web1"),
    "list": lambda host: host.list_clones(),
    "show": lambda host: host.show("web1"),
    "report_domains": lambda host: host.report_domains([], []),
}


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize(
    ("serve", "age", "hints"),
    [
        (the_first_version, "older", ["salt kvm01 saltutil.sync_all"]),
        (
            the_next_version,
            "newer",
            ["salt-run saltutil.sync_all", "salt kvm01 saltutil.sync_all"],
        ),
    ],
)
def test_a_host_of_another_version_is_named_with_the_line_that_mends_it(
    monkeypatch: pytest.MonkeyPatch, ask: str, serve: Any, age: str, hints: list[str]
) -> None:
    host = Host(monkeypatch, serve)
    with pytest.raises(OtherVersion) as caught:
        ASKS[ask](host)
    assert f"'kvm01' has an {age}".replace("an newer", "a newer") in caught.value.message
    assert all(line in caught.value.hint for line in hints)
    assert caught.value.type == "HostUnreachable"
    assert isinstance(caught.value, (HostUnreachable, *REFUSALS)), "nothing needs undoing"
    assert issubclass(OtherVersion, NeverConnected)
    assert FIRST.isdisjoint(host.published), "the first version does nothing for us"


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_operation_is_known_to_a_host_of_the_first_version(name: str) -> None:
    assert OPERATIONS[name].wire_name not in FIRST
    assert "error" in the_first_version(OPERATIONS[name].wire_name, {}, "")


def test_a_host_of_this_version_answers_with_what_its_operations_return(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host(monkeypatch, this_version)
    assert host.list_clones() == []
    assert host.unfinished() == []
    assert host.daemon().driver == "TEST"
    assert host.report_domains(["test"], []).domains == ("test",)
    assert [base["name"] for base in host.bases()] == ["test"]
    with pytest.raises(errors.NotFound):
        host.show("web1")
    with pytest.raises(errors.ForeignDomain):
        host.boot("test")


def test_a_remote_host_has_the_operations_of_a_host_and_nothing_else() -> None:
    host = RemoteHost({}, "kvm01", "qemu:///system")
    assert all(callable(getattr(host, name)) for name in OPERATIONS)
    with pytest.raises(AttributeError, match="ours"):
        _ = host.ours
    with pytest.raises(TypeError):
        host.boot()


@pytest.mark.parametrize(
    ("commands", "line"),
    [
        (Commands("x:///", minion="kvm01"), "salt kvm01 saltutil.sync_all"),
        (Commands("x:///", minion="kvm 1"), "salt 'kvm 1' saltutil.sync_all"),
        (Commands("x:///"), "salt-run saltutil.sync_all"),
        (Commands("x:///", AT_HOST, "kvm01"), "salt-call saltutil.sync_all"),
    ],
)
def test_our_modules_are_synced_to_whoever_lacks_them(commands: Commands, line: str) -> None:
    assert commands.sync() == line
