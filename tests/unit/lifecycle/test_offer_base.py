"""What is made for a copy is taken back, whatever happens to the base or the push meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.errors import CopyFailed, PlanRefused
from saltext.kvmclone.lifecycle import offer_base
from saltext.kvmclone.model.base_copy import CopyKey, Offered
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.system import copy_folder, ssh_server
from saltext.kvmclone.system.ssh_server import Server

COPY = "0123456789abcdef"
KEY = CopyKey("ssh-ed25519 AAAA", ("10.0.0.2",))


class Base:
    """A domain, with nothing but the metadata of copies."""

    def __init__(self, uuid: str = "u1") -> None:
        self.name, self.uuid, self.raw = "base", uuid, self
        self.text = ""

    def metadata(self, *_words: Any) -> str:
        return self.text

    def setMetadata(self, _kind: int, text: str | None, *_words: Any) -> None:
        self.text = text or ""


class Host:
    local, commands = True, Commands()

    def __init__(self, base: Base) -> None:
        self.domains = [base]

    def call(self, call: Callable[..., Any], *words: Any) -> Any:
        return call(*words)

    def each_domain(self, look: Callable[[Base], Any]) -> list[Any]:
        return [look(one) for one in self.domains]


@pytest.fixture
def base() -> Any:
    return Base()


@pytest.fixture
def host(base: Any) -> Any:
    return Host(base)


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ssh/authorized_keys"
    monkeypatch.setattr(ssh_server, "look", lambda: Server("root", 22, str(path), ("a b",)))
    monkeypatch.setattr(copy_folder, "ROOT", str(tmp_path / "copies"))
    return path


@pytest.fixture
def staged(host: Any, base: Any, tmp_path: Path) -> Path:
    """It was offered, with one file that was made for that."""
    copy_folder.make(COPY, base.name)
    offer_base._record(host, base, Offered(COPY))
    path = tmp_path / f".kvm_clone-{COPY}-vda.qcow2"
    offer_base._note(host, base, COPY, staged=(str(path),))
    path.write_text("x")
    return path


def test_the_time_of_the_copy_is_that_of_its_key(
    host: Any, base: Any, staged: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_folder.note_lasts(COPY, 7200)
    asked: list[float] = []
    real = ssh_server.let_in
    monkeypatch.setattr(
        ssh_server, "let_in", lambda *words: (asked.append(words[-1]), real(*words))
    )
    assert offer_base.admit(host, base, COPY, KEY) == str(keys)
    assert asked == [7200]
    now = copy_folder.time.time()
    monkeypatch.setattr(copy_folder.time, "time", lambda: now + 7000)
    assert offer_base.end_dead(host, "", apply=True) == []
    assert COPY in keys.read_text()


@pytest.mark.parametrize("becomes", ["undefined", "defined anew", "without its metadata"])
@pytest.mark.parametrize("way", ["gc", "end"])
def test_a_base_that_is_gone_leaves_nothing(
    host: Any, base: Any, staged: Path, keys: Path, becomes: str, way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    offer_base.admit(host, base, COPY, KEY)
    if becomes == "without its metadata":
        base.text = base.text.replace(str(keys), "").replace(str(staged), "")
    else:
        host.domains = [Base("u2")] if becomes == "defined anew" else []
    if way == "end":
        rows = offer_base.end(host, COPY)
    else:
        monkeypatch.setattr(copy_folder.time, "time", lambda: 4e9)
        listed = offer_base.end_dead(host, "base", apply=False)
        assert [row.kind for row in listed] == ["ssh key", "volume", "copy"]
        rows = offer_base.end_dead(host, "base", apply=True)
    assert [(row.kind, row.removed) for row in rows] == [
        ("ssh key", True),
        ("volume", True),
        ("copy", True),
    ]
    assert (keys.exists(), staged.exists(), copy_folder.all_copies()) == (False, False, [])


@pytest.mark.parametrize("when", ["before it is noted", "before it is let in", "after that"])
def test_a_push_that_ends_while_its_key_is_let_in_leaves_none(
    host: Any, base: Any, staged: Path, keys: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it looked at the record before the key was noted there."""
    seen = Offered(COPY)
    place: Any = offer_base if when == "before it is noted" else ssh_server
    step = "_note" if when == "before it is noted" else "let_in"
    real = getattr(place, step)

    def ended(*words: Any, **more: Any) -> None:
        if when == "after that":
            real(*words, **more)
        offer_base._removed(host, base, seen)
        if when != "after that":
            real(*words, **more)

    monkeypatch.setattr(place, step, ended)
    with pytest.raises(PlanRefused, match="under way"):
        offer_base.admit(host, base, COPY, KEY)
    assert not keys.exists()
    assert base.text == ""


def test_a_key_whose_waiting_cannot_be_noted_is_taken_out(
    host: Any, base: Any, staged: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_words: Any) -> None:
        raise OSError(28, "No space left on device", "/run/x")

    monkeypatch.setattr(copy_folder, "wait_for_other", full)
    with pytest.raises(CopyFailed, match="No space left"):
        offer_base.admit(host, base, COPY, KEY)
    assert not keys.exists()


def test_what_is_no_key_is_refused(host: Any, base: Any, staged: Path, keys: Path) -> None:
    key = CopyKey("ssh-ed25519 AAAA", ('10.0.0.1"\nssh-rsa EVIL x#',))
    with pytest.raises(PlanRefused, match="is refused"):
        offer_base.admit(host, base, COPY, key)
    assert not os.path.lexists(keys)
