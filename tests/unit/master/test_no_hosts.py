"""A master whose providers are away for a moment takes no clone for gone, and no key."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import salt.config
import yaml

from saltext.kvmclone.errors import ConfigError, HostUnreachable, NotFound
from saltext.kvmclone.hosts import gc, reports
from saltext.kvmclone.hosts.operations import VERSION
from saltext.kvmclone.hypervisor import host
from saltext.kvmclone.master import progress, signed_call
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.master.keys import MinionKeys, generate
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.leftovers import Leftover
from saltext.kvmclone.reactor.handlers import RequestHandlers
from saltext.kvmclone.reactor.intake import expect_highstate
from saltext.kvmclone.reactor.policy import DESTROYED, Policy
from saltext.kvmclone.reactor.request_entry import MADE, Notification, RequestEntry
from saltext.kvmclone.reactor.request_store import RequestStore

PUBLIC = generate(2048).public


@pytest.fixture
def opts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A master without a provider, with the key of one clone."""
    path = tmp_path / "master"
    folders = {"root_dir": str(tmp_path), "pki_dir": str(tmp_path / "pki")}
    path.write_text(yaml.safe_dump({**folders, "cachedir": str(tmp_path / "cache")}))
    (tmp_path / "pki/minions").mkdir(parents=True)
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(progress, "fire", lambda *_: None)
    made: dict[str, Any] = dict(salt.config.master_config(str(path)))
    MinionKeys(made).accept("web1", PUBLIC)
    return made


@pytest.mark.parametrize("force", [False, True])
def test_a_destroy_asks_for_a_host_and_leaves_the_key(opts: dict[str, Any], force: bool) -> None:
    outcome = Fleet(opts, expect_highstate).destroy("web1", force)
    assert isinstance(outcome.error, ConfigError)
    assert MinionKeys(opts).accepted("web1")


def test_a_bell_that_says_destroyed_leaves_the_key(opts: dict[str, Any]) -> None:
    store = RequestStore(opts)
    RequestHandlers(opts, Policy(clean_keys=True), store).handle(
        Notification(DESTROYED, "web1", 0.0, 0, 0.0, "stamp")
    )
    assert MinionKeys(opts).accepted("web1")


@pytest.mark.parametrize(("host", "stays"), [("kvm01", True), ("kvm02", False), ("", False)])
def test_the_word_that_counts_is_that_of_the_clone_s_own_host(
    opts: dict[str, Any], monkeypatch: pytest.MonkeyPatch, host: str, stays: bool
) -> None:
    told = {"version": VERSION, "answer": {"domains": [], "clones": []}}
    monkeypatch.setattr(signed_call, "ask", lambda *_, **__: told)
    keys = MinionKeys(opts)
    keys.accept("web1", PUBLIC, "web1", host)
    opts["kvm_clone"] = {
        "providers": {"kvm": {"driver": "libvirt", "host": "kvm02", "url": "x:///"}}
    }
    RequestHandlers(opts, Policy(clean_keys=True), RequestStore(opts)).handle(
        Notification(DESTROYED, "web1", 0.0, 0, 0.0, "stamp")
    )
    assert bool(keys.accepted("web1")) is stays


SOUND = {"driver": "libvirt", "host": "kvm02", "url": "x:///"}

#: What may keep a provider from being read, as the master's own configuration and as files.
UNREAD: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"providers": {"kvm": SOUND, "kvm-b": {**SOUND, "urll": "x"}}}, {}),
    ({"providers": {"kvm": SOUND, "kvm-b": {"drivr": "libvirt", "host": "kvm03"}}}, {}),
    ({"providers": {"kvm": SOUND}, "provider": {"kvm-b": SOUND}}, {}),
    ({"providers": {"kvm": SOUND}}, {"cloud.providers": "kvm-b: {driver: [libvirt\n"}),
    ({"providers": {"kvm": SOUND}}, {"cloud.profiles.d/x.conf": "x:\n\ty: 1\n"}),
    ({"providers": {"kvm": SOUND}}, {"cloud": "providers_config: 'x\n"}),
    ({"providers": {"kvm": SOUND}}, {"cloud.providers": "kvm: {driver: libvirt, host: kvm03}\n"}),
]


@pytest.mark.parametrize(("section", "files"), UNREAD, ids=str)
def test_while_a_provider_cannot_be_read_no_key_and_no_place_is_taken(
    opts: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    section: dict[str, Any],
    files: dict[str, str],
) -> None:
    """The one host that can be asked knows nothing of the machine: it may be on the other."""
    nothing = {"version": VERSION, "answer": {"domains": [], "clones": []}}
    monkeypatch.setattr(signed_call, "ask", lambda *_, **__: nothing)
    opts["kvm_clone"] = section
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    keys, store = MinionKeys(opts), RequestStore(opts)
    with store.requests() as requests:
        requests.put(RequestEntry("0" * 32, "ci01", "web1", "runner", state=MADE, uuid="uuid"))

    RequestHandlers(opts, Policy(clean_keys=True), store).handle(
        Notification(DESTROYED, "web1", 0.0, 0, 0.0, "stamp")
    )
    RequestHandlers(opts, Policy(), store).reconcile()
    gone = {"version": VERSION, "error": NotFound("web1").as_dict()}
    monkeypatch.setattr(signed_call, "ask", lambda *_, **__: gone)
    outcomes = [Fleet(opts, expect_highstate).destroy("web1", force) for force in (False, True)]

    assert keys.accepted("web1")
    with store.requests() as requests:
        assert [one.state for one in requests.all()] == [MADE]
    assert all(isinstance(outcome.error, ConfigError) for outcome in outcomes)


def test_a_clone_that_was_not_asked_for_under_its_new_name_keeps_its_key(
    opts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host goes away between the question for the name and the one for all clones."""
    gone = [NotFound("web1").as_dict(), HostUnreachable("down").as_dict()]
    said = lambda *_, **__: {"version": VERSION, "error": gone.pop(0)}  # noqa: E731
    monkeypatch.setattr(signed_call, "ask", said)
    opts["kvm_clone"] = {"providers": {"kvm": SOUND}}
    outcome = Fleet(opts, expect_highstate).destroy("web1")
    assert isinstance(outcome.error, HostUnreachable)
    assert MinionKeys(opts).accepted("web1")


@pytest.mark.parametrize("apply", [False, True])
def test_while_a_provider_cannot_be_read_no_leftover_is_removed(
    opts: dict[str, Any], monkeypatch: pytest.MonkeyPatch, apply: bool
) -> None:
    removed: list[bool] = []

    def left(_host: Any, _name: str, apply: bool, *_: Any) -> list[Leftover]:
        removed.append(apply)
        return [Leftover("web1", "domain", "", "its worker died")]

    monkeypatch.setattr(gc, "collect", left)
    for wrong in ({"kvm-b": {**SOUND, "urll": "x"}}, {}):
        opts["kvm_clone"] = {"providers": {"kvm": SOUND, **wrong}}
        told = Fleet(opts, expect_highstate).gc("", apply, False)
        (row,) = told["leftovers"]
        assert (row["kind"] == "kept") is bool(wrong)
        assert (any(removed), told["retcode"]) == (apply and not wrong, int(bool(wrong)))
        assert ("kvm-b" in row["reason"]) is bool(wrong)


class Damaged:
    """libvirt's object of a domain whose record somebody edited by hand."""

    def name(self) -> str:
        return "web1"

    def UUIDString(self) -> str:
        return "00112233-4455-6677-8899-aabbccddeeff"

    def metadata(self, *_: Any) -> str:
        return '<clone created="soon"/>'


def test_a_machine_whose_record_cannot_be_read_is_no_machine_that_is_gone(
    opts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Host(host.Host):
        raw: Any = SimpleNamespace(listAllDomains=lambda _flags: [Damaged()])

        def __init__(self, url: str) -> None:
            self.commands = Commands(url)

        def call(self, function: Any, *arguments: Any) -> Any:
            return function(*arguments)

    told = reports.report_domains(Host("x:///"), ["web1"])
    assert (told.domains, told.damaged) == (("web1",), ("web1",))

    keys = MinionKeys(opts)
    keys.accept("web1.example.com", PUBLIC, "web1", "kvm02")
    opts["kvm_clone"] = {
        "providers": {"kvm": {"driver": "libvirt", "host": "kvm02", "url": "x:///"}}
    }
    known = {"domains": [], "clones": [], "damaged": ["web1"]}
    monkeypatch.setattr(signed_call, "ask", lambda *_, **__: {"version": VERSION, "answer": known})
    RequestHandlers(opts, Policy(clean_keys=True), RequestStore(opts)).handle(
        Notification(DESTROYED, "web1.example.com", 0.0, 0, 0.0, "stamp")
    )
    assert keys.accepted("web1.example.com")

    with RequestStore(opts).requests() as requests:
        requests.put(RequestEntry("0" * 32, "ci01", "web1", "runner", state=MADE, uuid="uuid"))
    RequestHandlers(opts, Policy(), RequestStore(opts)).reconcile()
    with RequestStore(opts).requests() as requests:
        assert [one.state for one in requests.all()] == [MADE]


def test_the_place_of_a_machine_stays_taken(opts: dict[str, Any]) -> None:
    store = RequestStore(opts)
    with store.requests() as requests:
        requests.put(RequestEntry("0" * 32, "ci01", "web1", "runner", state=MADE, uuid="uuid"))
    RequestHandlers(opts, Policy(), store).reconcile()
    with store.requests() as requests:
        assert [one.state for one in requests.all()] == [MADE]
