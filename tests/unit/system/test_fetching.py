"""What ssh is told of the machines of a copy, and what of its answer is told on."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from saltext.kvmclone.model.base_copy import Relay
from saltext.kvmclone.system import copy_folder, fetching
from saltext.kvmclone.system.fetching import Source

COPY = "0123456789abcdef"
RELAY = Relay("salt", 2222, ("10.0.0.9",), ("ssh-ed25519 MASTER",))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(copy_folder, "ROOT", str(tmp_path))
    (tmp_path / COPY).mkdir()
    return tmp_path / COPY


def test_each_machine_on_the_way_is_known_by_its_own_keys(folder: Path) -> None:
    fetching.know(COPY, ["ssh-ed25519 SOURCE"], RELAY)
    assert (folder / "known_hosts").read_text() == (
        "kvm_clone-source ssh-ed25519 SOURCE\nkvm_clone-relay ssh-ed25519 MASTER\n"
    )
    words = fetching._ssh(Source(COPY, "root", "10.0.0.1", 22, RELAY))
    settings = folder / "ssh_config"
    assert words[words.index("-F") + 1] == str(settings)
    assert {"-oProxyJump=kvm_clone-relay", "-oHostKeyAlias=kvm_clone-source"} <= set(words)
    lines = [line.strip() for line in settings.read_text().splitlines()]
    assert {
        "Host kvm_clone-relay", "HostName 10.0.0.9", "User salt", "Port 2222",
        "HostKeyAlias kvm_clone-relay", "StrictHostKeyChecking yes", "IdentityAgent none",
    } <= set(lines)  # fmt: skip


def test_without_a_way_round_no_settings_count() -> None:
    words = fetching._ssh(Source(COPY, "root", "10.0.0.1", 22))
    assert words[words.index("-F") + 1] == "/dev/null"
    assert not any("ProxyJump" in word for word in words)


def test_an_address_of_ones_own_is_not_another_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert fetching.reached(["127.0.0.1", "127.0.0.2"], port, []) == ("127.0.0.1",)
        assert fetching.reached(["127.0.0.1"], port, ["127.0.0.1"]) == ()
    assert fetching.reached([], port, []) == ()


def test_of_a_framed_warning_the_words_are_told() -> None:
    frame = b"@" * 59
    said = frame + b"\n@    WARNING: IT HAS CHANGED!     @\n" + frame + b"\nmore"
    assert fetching._first(said) == "WARNING: IT HAS CHANGED!"
    assert fetching._first(b"\n") == ""
