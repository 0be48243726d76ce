"""A key for a copy leads through the master to one place, and is gone whatever happens."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.errors import CopyFailed
from saltext.kvmclone.master.base_relay import Relays
from saltext.kvmclone.model.base_copy import BaseOffer, CopyKey, Relay
from saltext.kvmclone.system import fetching, processes, ssh_server
from saltext.kvmclone.system.ssh_server import NoAccess, Server
from tests.support import hints
from tests.support.base_hosts import Host
from tests.support.hints import hint, tries

COPY = "0123456789abcdef"
OFFER = BaseOffer(COPY, "gold", "d" * 64, (), addresses=("10.0.0.1",))
KEY = CopyKey("ssh-ed25519 AAAA", ("10.0.0.2",))
OWN = ("10.0.0.9",)


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The master's file of keys, with one of somebody else."""
    path = tmp_path / "ssh/authorized_keys"
    path.parent.mkdir()
    path.write_text("ssh-rsa A me")
    server = Server("salt", 2222, str(path), ("ssh-ed25519 MASTER",), True)
    monkeypatch.setattr(ssh_server, "look_as_relay", lambda: server)
    monkeypatch.setattr(ssh_server, "addresses", lambda: OWN)
    monkeypatch.setattr(fetching, "reached", lambda addresses, _port, _own: tuple(addresses))
    return path


@pytest.fixture
def relays(tmp_path: Path) -> Relays:
    return Relays({"cachedir": str(tmp_path / "cache")})


def lead(relays: Relays, target: Host | None = None, **changed: Any) -> Any:
    offer = replace(OFFER, **changed)
    host: Any = target or Host("kvm02")
    return relays.lead(offer, KEY, "kvm01", "kvm02", host)


def test_both_hosts_see_the_way_and_the_key_leads_there_alone(keys: Path, relays: Relays) -> None:
    with lead(relays) as (offer, key):
        assert offer.relay == Relay("salt", 2222, OWN, ("ssh-ed25519 MASTER",))
        assert (offer.addresses, key) == (("10.0.0.1",), CopyKey(KEY.public, OWN))
        line, other = keys.read_text().splitlines()
        assert 'permitopen="10.0.0.1:22"' in line and 'from="10.0.0.2"' in line
        assert other == "ssh-rsa A me"
        assert relays.left("", apply=True) == [], "it is at work"
    assert keys.read_text() == "ssh-rsa A me"
    assert os.listdir(relays.folder) == []


def test_the_key_goes_whatever_happens(keys: Path, relays: Relays) -> None:
    with pytest.raises(KeyboardInterrupt), lead(relays):
        raise KeyboardInterrupt
    assert keys.read_text() == "ssh-rsa A me"
    assert os.listdir(relays.folder) == []


def test_what_a_killed_runner_left_is_found_and_removed(
    keys: Path, relays: Relays, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = lead(relays)
    killed.__enter__()
    monkeypatch.setattr(processes, "owner_state", lambda _owner: "dead")
    assert relays.left("other", apply=True) == []
    (row,) = relays.left("gold", apply=False)
    assert (row.name, row.kind, row.path, row.removed) == ("gold", "ssh key", str(keys), False)
    assert keys.read_text().startswith("restrict,")
    (row,) = relays.left("", apply=True)
    assert row.removed and keys.read_text() == "ssh-rsa A me"
    assert relays.left("", apply=True) == []


def test_where_there_is_no_way_the_error_names_both(
    keys: Path, relays: Relays, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(word: str, target: Host | None = None) -> None:
        with pytest.raises(CopyFailed, match=word) as told, lead(relays, target):
            pass
        assert "through the firewalls; or have an ssh server on this master" in told.value.hint
        assert keys.read_text() == "ssh-rsa A me"

    walled = Host("kvm02")
    walled.walled = set(OWN)
    refused("'kvm02' does not reach this master's ssh server", walled)
    with monkeypatch.context() as patched:
        patched.setattr(fetching, "reached", lambda *_words: ())
        refused("this master does not reach that either")
    with monkeypatch.context() as patched:
        patched.setattr(ssh_server, "look_as_relay", _no_server)
        refused("on this master no ssh server is installed")


def _no_server() -> Server:
    raise NoAccess("no ssh server is installed")


@pytest.mark.parametrize(
    "changed",
    [
        {"addresses": ('10.0.0.1" x',)},
        {"addresses": ("127.0.0.1",)},
        {"addresses": ("::ffff:127.0.0.1",)},
        {"addresses": ("0.0.0.0",)},
        {"copy": "../../etc"},
        {"port": 0},
    ],
)
def test_what_a_source_offers_is_not_trusted(
    keys: Path, relays: Relays, changed: dict[str, Any]
) -> None:
    with pytest.raises(CopyFailed, match="is refused"), lead(relays, **changed):
        pass
    assert keys.read_text() == "ssh-rsa A me"


def test_a_key_that_is_none_is_refused_and_leaves_nothing(keys: Path, relays: Relays) -> None:
    way = relays.lead(OFFER, replace(KEY, public="command=x"), "kvm01", "kvm02", _host())
    with pytest.raises(CopyFailed, match="is refused"), way:
        pass
    assert os.listdir(relays.folder) == []


def _host() -> Any:
    return Host("kvm02")


@tries("base_relay.Relays._let_in")
def test_a_file_of_keys_that_cannot_be_written(
    keys: Path, relays: Relays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_words: Any) -> None:
        raise OSError(28, "No space left on device", str(keys))

    monkeypatch.setattr(ssh_server, "let_in", full)
    enter: Callable[[], Any] = lead(relays).__enter__
    told = hint(CopyFailed, enter, "No space left")
    assert str(keys.parent) in hints.typist(tmp_path / "shell")(told)
    assert os.listdir(relays.folder) == []


def test_a_key_that_cannot_be_taken_out_stays_on_record(
    keys: Path, relays: Relays, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_words: Any) -> None:
        raise OSError(28, "No space left on device")

    with lead(relays):
        monkeypatch.setattr(ssh_server, "shut_out", full)
    assert "salt-run kvmclone.gc" in caplog.text
    assert os.listdir(relays.folder) == [f"{COPY}.json"]


def test_gc_says_that_a_key_stays(
    keys: Path, relays: Relays, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_words: Any) -> None:
        raise OSError(28, "No space left on device")

    killed = lead(relays)
    killed.__enter__()
    monkeypatch.setattr(processes, "owner_state", lambda _owner: "dead")
    monkeypatch.setattr(ssh_server, "shut_out", full)
    (row,) = relays.left("", apply=True)
    assert not row.removed and keys.read_text().startswith("restrict,")
