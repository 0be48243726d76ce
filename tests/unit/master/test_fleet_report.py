"""A report is one file for the master's user alone, whole or not at all, and tells no secret."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import pytest
import salt.config

from saltext.kvmclone.display.page.template import HEAD
from saltext.kvmclone.errors import ConfigError, HostError, HostUnreachable, KvmCloneError
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.master import fleet_doctor, fleet_report, keys
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model import record_xml
from saltext.kvmclone.model.record import Record
from saltext.kvmclone.reactor.intake import expect_highstate
from tests.support.canaries import Canaries, hidden_half, login_key, password

BASE_UUID, CLONE_UUID = (f"6c1e0b5c-9a3f-4c1e-8d4e-00000000000{n}" for n in (1, 2))

RECORD = Record(
    uuid=CLONE_UUID, base="debian12", base_uuid=BASE_UUID, strategy="quick", name="web1",
    profile="web", stage="addressed", created=1795936320.0, timings={"cloned": 0.4},
)  # fmt: skip


def machine(name: str, uuid: str, metadata: str, secret: str) -> str:
    """The definition of a machine, with a secret wherever there is a place for one."""
    text, attribute = escape(secret), quoteattr(secret)
    return f"""
<domain type='test'><name>{name}</name><uuid>{uuid}</uuid><title>{text}</title>
<description>{text}</description><metadata>{metadata}</metadata><memory>1048576</memory>
<vcpu>2</vcpu><os><type>hvm</type><kernel>/k</kernel><cmdline>token={text}</cmdline></os>
<devices><disk type='file'><source file='/images/{name}.img'/><target dev='vda'/></disk>
<graphics type='vnc' passwd={attribute}/></devices></domain>"""


def node(folder: Path, secret: str) -> str:
    """The url of a host of libvirt's test driver with a base and a clone."""
    record = record_xml.to_xml(RECORD).replace("<clone", f"<clone xmlns='{record_xml.NAMESPACE}'")
    machines = machine("debian12", BASE_UUID, "", secret)
    machines += machine("web1", CLONE_UUID, record, secret)
    volumes = "".join(
        f"<volume><name>{name}.img</name><key>/images/{name}.img</key><capacity>9</capacity>"
        f"<target><path>/images/{name}.img</path><format type='raw'/></target></volume>"
        for name in ("debian12", "web1")
    )
    pool = f"<pool type='dir'><name>default</name><target><path>/images</path></target>{volumes}"
    path = folder / "node.xml"
    path.write_text(f"<node>{machines}{pool}</pool></node>")
    return f"test://{path}"


@pytest.fixture
def master(tmp_path: Path) -> Callable[..., Fleet]:
    """Makes the fleet of a master with these providers and profiles."""

    def make(providers: dict[str, Any], profiles: dict[str, Any]) -> Fleet:
        folder = tmp_path / "master"
        folder.mkdir()
        config = {
            "id": "salt01",
            "root_dir": str(folder),
            "pki_dir": str(folder / "pki"),
            "cachedir": str(folder / "cache"),
            "kvm_clone": {"providers": providers, "profiles": profiles},
        }
        (folder / "master").write_text(json.dumps(config))
        (folder / "pki/minions").mkdir(parents=True)
        opts = dict(salt.config.master_config(str(folder / "master")))
        return Fleet(opts, expect_highstate)

    return make


@pytest.fixture
def fleet(master: Callable[..., Fleet], tmp_path: Path) -> Fleet:
    """A fleet of one host."""
    return master(
        {"here": {"driver": "libvirt", "url": node(tmp_path, "a-secret-of-a-machine")}},
        {"web": {"provider": "here", "base_domain": "debian12"}},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "pages"
    path.mkdir()
    return path


def test_the_report_shows_hosts_bases_and_clones(fleet: Fleet, folder: Path) -> None:
    path = folder / "fleet.html"
    assert fleet_report.write(fleet, path) == {"report": str(path), "retcode": 0}
    told = path.read_text()
    assert told.startswith(HEAD)
    assert "Cloned machines of salt01<" in told
    assert '<th scope="row" class="name">web1</th>' in told
    assert '<th scope="row">debian12</th>' in told, "the bases of the hosts"
    assert "<b>debian12</b>" in told, "the lineage"
    assert "<td>the disks are copied</td>" in told, "the times"


def test_the_masters_user_alone_may_read_it(fleet: Fleet, folder: Path) -> None:
    old = os.umask(0)
    try:
        fleet_report.write(fleet, folder / "fleet.html")
    finally:
        os.umask(old)
    assert stat.S_IMODE((folder / "fleet.html").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["fleet.html"], "no draft is left"


def test_no_secret_of_the_configuration_or_of_a_machine_stands_in_it(
    master: Callable[..., Fleet], tmp_path: Path, folder: Path
) -> None:
    private, _public = login_key(phrase := password())
    key = tmp_path / "id"
    key.write_text(private)
    key.chmod(0o600)
    secret, guest, sudo = password(), password(), password()
    canaries = Canaries(
        machine=secret, guest=guest, sudo=sudo, phrase=phrase, key=hidden_half(private)
    )
    web = {
        "provider": "here", "base_domain": "debian12", "ssh_username": "root", "password": guest,
        "sudo": True, "sudo_password": sudo, "private_key": str(key),
        "private_key_passphrase": phrase,
    }  # fmt: skip
    found = master({"here": {"driver": "libvirt", "url": node(tmp_path, secret)}}, {"web": web})
    fleet_report.write(found, folder / "fleet.html")
    told = (folder / "fleet.html").read_text()
    assert "web1" in told
    assert found.catalogue.describe()["problems"] == []
    assert canaries.heard((tmp_path / "node.xml").read_text()) == ["machine"]
    assert canaries.heard(told) == []


def test_it_is_written_again_over_itself_but_over_nothing_else(fleet: Fleet, folder: Path) -> None:
    path = folder / "fleet.html"
    fleet_report.write(fleet, path)
    path.write_text(HEAD + "an old one")
    assert fleet_report.write(fleet, path)["retcode"] == 0
    assert "an old one" not in path.read_text()
    other = folder / "notes.html"
    other.write_text("mine")
    (folder / "link.html").symlink_to(path)
    os.mkfifo(folder / "fifo.html")
    for name in ("notes.html", "link.html", "fifo.html", "."):
        with pytest.raises(ConfigError, match=r"is there, and is no report|is a folder") as info:
            fleet_report.write(fleet, folder / name)
        assert info.value.hint
    assert other.read_text() == "mine"
    assert (folder / "link.html").is_symlink()


@pytest.mark.parametrize("file", ["gone/fleet.html", "x" * 300, "notes.html/fleet.html"])
def test_where_nothing_can_be_written_no_host_is_asked(folder: Path, file: str) -> None:
    (folder / "notes.html").touch()
    with pytest.raises(ConfigError):
        fleet_report.write(None, folder / file)  # type: ignore[arg-type]  # it would fail at it
    assert [path.name for path in folder.iterdir()] == ["notes.html"]


def test_a_relative_path_is_answered_as_the_file_that_it_is(
    fleet: Fleet, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    for file in ("fleet.html", "~/fleet.html"):
        assert fleet_report.write(fleet, file)["report"] == str(folder / "fleet.html")


def test_what_does_not_answer_is_named_and_the_rest_is_shown(
    master: Callable[..., Fleet], tmp_path: Path, folder: Path
) -> None:
    here, gone = node(tmp_path, "a-secret-of-a-machine"), f"test://{tmp_path}/no-such-node.xml"
    fleet = master(
        {name: {"driver": "libvirt", "url": url} for name, url in (("a", here), ("b", gone))},
        {"web": {"provider": "a", "base_domain": "debian12"}},
    )
    answer = fleet_report.write(fleet, folder / "fleet.html")
    assert answer["retcode"] == 1
    assert list(answer["unreachable"]) == [gone]
    told = (folder / "fleet.html").read_text()
    assert "did not answer" in told
    assert "web1</th>" in told


def test_a_host_that_does_not_answer_is_asked_once(
    master: Callable[..., Fleet], tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = f"test://{tmp_path}/no-such-node.xml"
    fleet = master({"b": {"driver": "libvirt", "url": gone}}, {})
    asked: list[str] = []
    real = fleet.host

    def host(minion: str, url: str) -> Any:
        asked.append(url)
        return real(minion, url)

    monkeypatch.setattr(fleet, "host", host)
    answer = fleet_report.write(fleet, folder / "fleet.html")
    assert list(answer["unreachable"]) == [gone]
    assert set(asked) == {gone}
    assert len(asked) <= 2, "to ask it, and to tell daemons apart"


def test_where_the_whole_of_an_answer_failed_the_page_says_so(
    fleet: Fleet, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_fleet: Fleet, _also: Any) -> dict[str, Any]:
        raise HostUnreachable("The libvirtd went away.", "Repeat this.")

    monkeypatch.setattr(fleet_doctor, "examine", fail)
    answer = fleet_report.write(fleet, folder / "fleet.html")
    assert set(answer["unreachable"]) == {"the doctor"}
    assert "The libvirtd went away." in (folder / "fleet.html").read_text()


def test_a_file_that_came_while_the_hosts_were_asked_stays(
    fleet: Fleet, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "fleet.html"
    real = fleet_report.page

    def page(picture: Any) -> str:
        path.write_text("mine")
        return real(picture)

    monkeypatch.setattr(fleet_report, "page", page)
    with pytest.raises(KvmCloneError, match="is no report"):
        fleet_report.write(fleet, path)
    assert path.read_text() == "mine"


def test_a_folder_that_nobody_can_write_is_an_error_of_its_own(fleet: Fleet) -> None:
    with pytest.raises(HostError, match="could not be written"):
        fleet_report.write(fleet, "/proc/fleet.html")


def test_a_key_is_not_called_one_without_a_machine_while_a_host_is_left_out(
    master: Callable[..., Fleet], tmp_path: Path
) -> None:
    here = node(tmp_path, "a-secret")
    silent = "test+unix:///nowhere?socket=/nonexistent"
    found = master(
        {"a": {"driver": "libvirt", "url": here}, "b": {"driver": "libvirt", "url": silent}}, {}
    )
    # It was made on the first host, and was moved to the second one since.
    found.keys.accept("web2", keys.generate(2048).public, "web2", here)
    picture = fleet_report.look(found, "/x.html")
    assert list(picture.unseen) == [silent]
    assert [one["kind"] for one in picture.findings] == []


@pytest.mark.parametrize("rows", [[{}], [{"kind": "failed", "level": ["problem"]}]])
def test_a_host_that_finds_nonsense_is_one_that_was_not_looked_at(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(LocalHost, "doctor", lambda _self: rows)
    told = fleet_doctor.examine(fleet)
    assert told["retcode"] == 3
    (error,) = told["unreachable"].values()
    assert "unknown form" in error["message"]
