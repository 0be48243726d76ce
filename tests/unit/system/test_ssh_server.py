"""One key comes into the file of keys and goes again; all others stay as they are."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from saltext.kvmclone.system import ssh_server
from saltext.kvmclone.system.ssh_server import BadKey, NoAccess, Server

MARK, OTHER = "kvm_clone-copy-0123456789abcdef", "kvm_clone-copy-ffffffffffffffff"
KEY = "ssh-ed25519 AAAAC3"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "home/.ssh/authorized_keys"


def let_in(keys: Path, mark: str = MARK) -> None:
    server = Server("root", 22, str(keys), ())
    ssh_server.let_in(server, KEY, mark, ("10.0.0.2", "fd00::2"), "/bin/sh /run/x/serve")


def test_a_key_is_let_in_for_one_command_from_one_host(keys: Path) -> None:
    let_in(keys)
    line = keys.read_text()
    assert line.startswith('restrict,from="10.0.0.2,fd00::2",expiry-time="2')
    assert line.endswith(f'command="/bin/sh /run/x/serve" {KEY} new-file {MARK}\n')
    assert (keys.stat().st_mode & 0o777, keys.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert ssh_server.is_let_in(str(keys), MARK)
    assert not ssh_server.is_let_in(str(keys), OTHER)
    assert ssh_server.shut_out(str(keys), MARK)
    assert not keys.exists()


@pytest.mark.parametrize(
    "before", [b"ssh-rsa A me\n# \xff\r\n\n", b"ssh-rsa A without an end", b"\n", b""]
)
def test_other_keys_stay_as_they_are(keys: Path, before: bytes) -> None:
    keys.parent.mkdir(parents=True)
    keys.write_bytes(before)
    keys.chmod(0o640)
    let_in(keys)
    let_in(keys, OTHER)
    assert ssh_server.shut_out(str(keys), MARK)
    assert keys.read_bytes().endswith(before)
    assert ssh_server.is_let_in(str(keys), OTHER)
    assert ssh_server.shut_out(str(keys), OTHER)
    assert keys.read_bytes() == before
    assert keys.stat().st_mode & 0o777 == 0o640
    assert not ssh_server.shut_out(str(keys), MARK)
    assert os.listdir(keys.parent) == ["authorized_keys"]


@pytest.mark.parametrize("first", [MARK, OTHER])
def test_a_file_that_was_made_for_keys_goes_with_the_last(keys: Path, first: str) -> None:
    let_in(keys)
    let_in(keys, OTHER)
    assert ssh_server.shut_out(str(keys), first)
    assert keys.exists()
    assert ssh_server.shut_out(str(keys), OTHER if first == MARK else MARK)
    assert os.listdir(keys.parent) == []


def test_a_key_that_was_added_to_such_a_file_stays(keys: Path) -> None:
    let_in(keys)
    with keys.open("ab") as file:
        file.write(b"ssh-rsa A me")
    assert ssh_server.shut_out(str(keys), MARK)
    assert keys.read_bytes() == b"ssh-rsa A me"


@pytest.mark.parametrize(
    ("public", "address"),
    [
        (KEY, '10.0.0.1"\nssh-rsa EVIL x#'),
        (KEY, 'fe80::1%"\nssh-rsa EVIL x#'),
        (KEY, "fe80::1%eth0"),
        (KEY, "10.0.0.*"),
        (KEY, "10.0.0.0/8"),
        (KEY, "kvm02"),
        (KEY, ""),
        (f"{KEY}\nssh-rsa EVIL", "10.0.0.1"),
        (f"{KEY}\n", "10.0.0.1"),
        ("ssh-rsa AAAAB3", "10.0.0.1"),
        ("cert-authority ssh-ed25519 AAAAC3", "10.0.0.1"),
        (f"{KEY} x", "10.0.0.1"),
        ("", "10.0.0.1"),
    ],
)
def test_another_host_writes_nothing_but_a_key_and_addresses(
    keys: Path, public: str, address: str
) -> None:
    server = Server("root", 22, str(keys), ())
    with pytest.raises(BadKey):
        ssh_server.let_in(server, public, MARK, ("10.0.0.2", address), "/bin/sh /run/x/serve")
    assert not keys.exists()


@pytest.mark.parametrize(("gib", "seconds"), [(0, 1800), (100, 1800 + 20 * 1024)])
def test_a_key_is_let_in_as_long_as_large_disks_take(keys: Path, gib: int, seconds: int) -> None:
    assert ssh_server.key_lasts(gib * 2**30) == seconds
    ssh_server.let_in(Server("root", 22, str(keys), ()), KEY, MARK, ("::1",), "/bin/sh /x", seconds)
    until = keys.read_text().partition('expiry-time="')[2][:14]
    lasts = time.mktime(time.strptime(until, "%Y%m%d%H%M%S")) - time.time()
    assert abs(lasts - seconds) < 30


def test_a_key_must_come_from_somewhere(keys: Path) -> None:
    with pytest.raises(BadKey, match="no address"):
        ssh_server.let_in(Server("root", 22, str(keys), ()), KEY, MARK, (), "/bin/sh /x")
    assert not keys.exists()


def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **changed: str) -> None:
    key = tmp_path / "host_key"
    Path(f"{key}.pub").write_text("ssh-ed25519 HOST root@kvm01\n")
    told = {
        "port": "2222", "permitrootlogin": "without-password", "pubkeyauthentication": "yes",
        "authorizedkeysfile": "/etc/keys/%u .ssh/authorized_keys2", "hostkey": str(key), **changed,
    }  # fmt: skip
    monkeypatch.setattr(ssh_server, "_settings", lambda _user: {k: [v] for k, v in told.items()})


def test_the_server_is_known_as_it_is_configured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings(monkeypatch, tmp_path)
    server = ssh_server.look()
    assert (server.port, server.host_keys) == (2222, ("ssh-ed25519 HOST",))
    assert server.keys == f"/etc/keys/{server.user}"


@pytest.mark.skipif(os.geteuid() != 0, reason="it is about root")
@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"permitrootlogin": "no"}, "PermitRootLogin"),
        ({"pubkeyauthentication": "no"}, "PubkeyAuthentication"),
        ({"authorizedkeysfile": "none"}, "AuthorizedKeysFile"),
        ({"hostkey": "/nowhere"}, "host key"),
    ],
)
def test_a_server_that_lets_nobody_in_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: dict[str, str], word: str
) -> None:
    settings(monkeypatch, tmp_path, **changed)
    with pytest.raises(NoAccess, match=word):
        ssh_server.look()


@pytest.mark.parametrize(
    ("address", "limits", "options"),
    [
        ("10.0.0.1", False, 'port-forwarding,permitopen="10.0.0.1:22",'),
        ("fd00::1", True, 'port-forwarding,permitopen="[fd00::1]:22",permitlisten="localhost:1",'),
    ],
)
def test_a_key_may_lead_to_one_port_of_one_machine(
    keys: Path, address: str, limits: bool, options: str
) -> None:
    server = Server("root", 22, str(keys), (), limits)
    beyond = (address, 22)
    ssh_server.let_in(server, KEY, MARK, ("10.0.0.2",), "/bin/false", 60, beyond)
    line = keys.read_text()
    assert line.startswith(f'restrict,{options}from="10.0.0.2",expiry-time="2')
    assert f'command="/bin/false" {KEY} ' in line
    assert ssh_server.shut_out(str(keys), MARK)
    with pytest.raises(BadKey):
        ssh_server.let_in(
            server, KEY, MARK, ("10.0.0.2",), "/bin/false", 60, ('10.0.0.1",pty,x="', 22)
        )
    assert not keys.exists()


@pytest.mark.parametrize(
    "changed",
    [{"allowtcpforwarding": "no"}, {"disableforwarding": "yes"}, {"permitopen": "10.0.0.1:80"}],
)
def test_a_server_that_forwards_nothing_leads_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: dict[str, str]
) -> None:
    settings(monkeypatch, tmp_path, **changed)
    assert ssh_server.look().host_keys == ("ssh-ed25519 HOST",)
    with pytest.raises(NoAccess, match="forwards"):
        ssh_server.look_as_relay()


def test_a_server_says_what_its_users_may_have_it_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings(monkeypatch, tmp_path)
    server = ssh_server.look_as_relay()
    assert (server.limits_listening, server.makes_sockets) == (False, True)
    settings(monkeypatch, tmp_path, permitlisten="any", allowstreamlocalforwarding="local")
    server = ssh_server.look_as_relay()
    assert (server.limits_listening, server.makes_sockets) == (True, False)
