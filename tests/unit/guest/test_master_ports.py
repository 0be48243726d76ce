"""What a guest says of its master's ports: asked for real, by every shell and tool for it."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.guest import master_ports
from saltext.kvmclone.guest.channel import Result
from saltext.kvmclone.master import keys
from saltext.kvmclone.model.guest_minion import GuestMinion
from saltext.kvmclone.model.master_ports import PortCheck
from tests.unit.guest.conftest import Guest

HERE = "127.0.0.1"
#: The port that a master tells its minions.
TOLD = 4505

#: What may try: the first that a guest has.
TOOLS = ["python3", "bash", "nc"]


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server((HERE, 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def refusing() -> int:
    with socket.create_server((HERE, 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def mute() -> Iterator[int]:
    """A port on which nobody answers, as behind a firewall: its queue is full."""
    with socket.socket() as server, ExitStack() as waiting:
        server.bind((HERE, 0))
        server.listen(0)
        for _ in range(3):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        yield server.getsockname()[1]


@pytest.fixture(params=TOOLS)
def having(request: pytest.FixtureRequest, guest: Guest) -> Guest:
    """A guest that has this tool, and none that is better."""
    for better in TOOLS[: TOOLS.index(request.param)]:
        guest.tool(better, 127)
    if not shutil.which(request.param) or (request.param, guest.shell[0]) == ("nc", "busybox"):
        pytest.skip("not installed here; busybox takes its own nc, which cannot just look")
    return guest


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master_ports, "CONNECT_TIMEOUT_S", 1)


def configure(guest: Guest, text: str, file: str = "minion.d/zzz-kvm-clone.conf") -> None:
    guest.put(f"/etc/salt/{file}", text)


def test_each_port_is_told_with_its_fault(
    having: Guest, listening: int, refusing: int, mute: int
) -> None:
    configure(having, f"master: {HERE}\nmaster_port: {refusing}\npublish_port: {listening}\n")
    assert master_ports.ask(having, TOLD).ports == (
        PortCheck(HERE, "master_port", refusing, "ECONNREFUSED"),
        PortCheck(HERE, "publish_port", listening, ""),
    )
    configure(having, f"master: {HERE}\nmaster_port: {mute}\npublish_port: {listening}\n")
    assert [one.fault for one in master_ports.ask(having, TOLD).ports] == ["ETIMEDOUT", ""]


def test_a_name_that_nobody_knows_is_told_as_such(guest: Guest) -> None:
    configure(guest, "master: master.invalid\n")
    assert master_ports.ask(guest, TOLD).ports == (
        PortCheck("master.invalid", "master_port", 4506, "EAI"),
        PortCheck("master.invalid", "publish_port", TOLD, "EAI"),
    )


def test_a_guest_that_has_nothing_to_try_with_tells_nothing(guest: Guest, refusing: int) -> None:
    for tool in TOOLS:
        guest.tool(tool, 127)
    configure(guest, f"master: {HERE}\nmaster_port: {refusing}\n")
    assert master_ports.ask(guest, TOLD) == GuestMinion()


def test_a_tool_that_is_too_simple_tells_nothing_rather_than_something_wrong(
    guest: Guest, refusing: int
) -> None:
    for tool in TOOLS:
        guest.tool(tool, 1)
    guest.put("/.tools/nc", "#!/bin/sh\necho nc: invalid option -- z >&2\nexit 1\n", 0o755)
    configure(guest, f"master: {HERE}\nmaster_port: {refusing}\n")
    assert master_ports.ask(guest, TOLD) == GuestMinion()


def test_a_guest_that_may_not_read_its_configuration_tells_nothing_of_it(guest: Guest) -> None:
    class Forbidden(Guest):
        def run(self, command: str, **options: Any) -> Result:
            return Result(1, "kvm-clone: file\npassword: secret\n", "sudo: no")

    guest.__class__ = Forbidden
    assert master_ports.ask(guest, TOLD) == GuestMinion()


def read(guest: Guest) -> list[tuple[str, str, int]]:
    told = guest.run(master_ports.READ_CONFIG, timeout=5).output
    _minion_id, _key, config = master_ports.configuration(told)
    found = master_ports.ports(config, TOLD) if config is not None else []
    return [(one.master, one.key, one.port) for one in found]


def test_what_the_minion_goes_by_is_what_it_reads_last(guest: Guest) -> None:
    assert read(guest) == [], "it may be kept elsewhere"
    configure(guest, "# nothing\n", "minion")
    assert read(guest) == [("salt", "master_port", 4506), ("salt", "publish_port", TOLD)]
    configure(guest, "master: of-the-base\nmaster_port: 14506", "minion")
    configure(guest, "# nothing\n", "minion.d/a.conf")
    configure(guest, "master: '192.0.2.1'\npublish_port: '14505'\n")
    configure(guest, "master: [is, this, yaml\n", "minion.d/zzzz.conf")
    assert read(guest) == [
        ("192.0.2.1", "master_port", 14506),
        ("192.0.2.1", "publish_port", 14505),
    ]


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("192.0.2.1:4600", [("192.0.2.1", 4600)]),
        ("'[2001:db8::1]:4600'", [("2001:db8::1", 4600)]),
        ("2001:db8::1", [("2001:db8::1", 4506)]),
        ("[one, two]", [("one", 4506), ("two", 4506)]),
        ("[a, b, c, d, e]", [("a", 4506), ("b", 4506), ("c", 4506)]),
        ("'$(reboot)'", []),
        ("{a: b}", []),
        ("x\nmaster_port: many", []),
        ("x\nmaster_port: 65536", []),
    ],
)
def test_every_way_to_name_a_master_is_understood_or_left_alone(
    guest: Guest, written: str, found: list[tuple[str, int]]
) -> None:
    configure(guest, f"master: {written}\n")
    assert [(name, port) for name, key, port in read(guest) if key == "master_port"] == found


@pytest.mark.parametrize("kind", ["func", "disable"])
def test_a_minion_that_has_no_master_by_its_configuration_tells_nothing(
    guest: Guest, kind: str
) -> None:
    configure(guest, f"master: {HERE}\nmaster_type: {kind}\nid: web1\n")
    assert master_ports.ask(guest, TOLD) == GuestMinion()


# --- its id and its key -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "remembered", "found"),
    [
        ("id: web1\n", "base1\n", "web1"),
        ("# nothing\n", "base1\n", "base1"),
        ("# nothing\n", "", ""),
        ("# nothing\n", "not an id\nbase1\n", ""),
        ("# nothing\n", "kvm-clone: file\n", ""),
        ("id: [1]\n", "", ""),
        ("id: 7\n", "", "7"),
        ("append_domain: example.com\n", "base1\n", "base1.example.com"),
        ("append_domain: example.com\nid: web1.example.com\n", "", "web1.example.com"),
        ("id_function: {test.echo: {text: x}}\n", "base1\n", ""),
    ],
)
def test_the_id_is_the_one_that_the_minion_goes_by(
    guest: Guest, config: str, remembered: str, found: str
) -> None:
    configure(guest, config, "minion")
    if remembered:
        configure(guest, remembered, "minion_id")
    assert master_ports.ask(guest, TOLD).minion_id == found


KEY = keys.generate(2048).public


@pytest.mark.parametrize(
    ("config", "folder"),
    [("# nothing\n", "/etc/salt/pki/minion"), ("pki_dir: /srv/the keys\n", "/srv/the keys")],
)
def test_the_key_is_the_one_that_the_minion_has(guest: Guest, config: str, folder: str) -> None:
    configure(guest, config, "minion")
    assert master_ports.ask(guest, TOLD).public_key == ""
    guest.put(f"{folder}/minion.pub", KEY)
    assert master_ports.ask(guest, TOLD).public_key == KEY.strip()


@pytest.mark.parametrize("text", ["", "x" * 9000, KEY.replace("\n", "\x1b[2J\n"), KEY + KEY])
def test_what_is_no_key_is_not_taken_for_one(guest: Guest, text: str) -> None:
    configure(guest, "pki_dir: relative\n", "minion")
    assert master_ports.ask(guest, TOLD).public_key == ""
    configure(guest, "# nothing\n", "minion")
    guest.put("/etc/salt/pki/minion/minion.pub", text)
    assert master_ports.ask(guest, TOLD).public_key == ""
    if text:
        with pytest.raises(ValueError, match="none"):
            GuestMinion(public_key=text)
    with pytest.raises(ValueError, match="none"):
        GuestMinion(minion_id="web1\x1b[2J")


def test_what_a_hostile_guest_says_is_not_repeated() -> None:
    wanted = [PortCheck("a", "master_port", 1, ""), PortCheck("a", "publish_port", 2, "")]
    said = "kvm-clone: port a/1 \x1b[2J\nkvm-clone: port b/9 reached\nkvm-clone: port a/2 EIEIO\n"
    assert master_ports.heard(said, wanted) == []
    for fields in ({"fault": "\x1b"}, {"key": "password"}, {"master": "\x1b[2J"}):
        with pytest.raises(ValueError, match=r"none|not known"):
            PortCheck(**{"master": "a", "key": "master_port", "port": 1, "fault": "", **fields})


def test_nothing_of_it_stays_in_the_guest(having: Guest, refusing: int, tmp_path: Path) -> None:
    configure(having, f"master: {HERE}\nmaster_port: {refusing}\n")
    before = sorted(os.listdir(tmp_path))
    assert master_ports.ask(having, TOLD).ports
    assert [name for name in sorted(os.listdir(tmp_path)) if name != ".called"] == before
