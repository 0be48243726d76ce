"""Which files libvirt derives from a machine's name or uuid, and whose they are."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from saltext.kvmclone.hypervisor import constants
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.inventory import file_usage
from saltext.kvmclone.inventory.file_usage import FileUsage, Use
from saltext.kvmclone.model import derived_files, domain_xml
from saltext.kvmclone.model.derived_files import SYSTEM, Folders, Machines
from saltext.kvmclone.model.libvirt_xml import element
from saltext.kvmclone.model.record import Record, Volume
from saltext.kvmclone.system import filesystems

ONE, OTHER = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", "bbbbbbbb-cccc-4ddd-8eee-ffffffffffff"
SESSION = Folders(
    "/home/me/.config/libvirt/qemu",
    "/home/me/.config/libvirt/qemu/swtpm",
    "/home/me/.cache/libvirt/qemu/log",
)


@pytest.mark.parametrize(
    ("url", "user", "found"),
    [
        ("qemu:///system", 0, SYSTEM),
        ("qemu:///system", 1000, SYSTEM),
        ("qemu+ssh://me@kvm/system?socket=/run/libvirt/libvirt-sock", 1000, SYSTEM),
        ("qemu:///session", 0, SYSTEM),
        ("qemu:///session", 1000, SESSION),
        ("qemu+unix:///session", 1000, SESSION),
        ("qemu:///session?socket=/run/user/1001/libvirt/libvirt-sock", 1000, Folders()),
        ("qemu+ssh://me@kvm/session", 1000, Folders()),
        ("qemu+ssh://root@kvm/session", 1000, SYSTEM),
        (
            "qemu:///embed?root=/srv/x",
            0,
            Folders("/srv/x/lib/qemu", "/srv/x/lib/swtpm", "/srv/x/log/qemu"),
        ),
        ("test:///default", 0, Folders()),
    ],
)
def test_the_folders_are_those_of_the_daemon_at_the_url(
    url: str, user: int, found: Folders
) -> None:
    assert derived_files.folders(url, user, "/home/me/.config", "/home/me/.cache") == found


def derived(*machines: tuple[str, str], known: Folders = SYSTEM, stores: tuple[str, ...] = ()):
    every = Machines()
    for name, uuid in machines:
        every.add(uuid, [name], stores)
    return {path: name for _uuid, name, path in every.derive(known)}


def test_a_machine_owns_what_its_name_and_its_uuid_lead_to() -> None:
    found = derived(("n1", ONE))
    assert set(found.values()) == {"n1"}
    assert {
        "/var/lib/libvirt/qemu/nvram/n1_VARS.fd",
        "/var/lib/libvirt/qemu/nvram/n1_VARS.qcow2",
        "/var/lib/libvirt/qemu/save/n1.save",
        "/var/lib/libvirt/qemu/snapshot/n1",
        "/var/lib/libvirt/qemu/checkpoint/n1",
        f"/var/lib/libvirt/swtpm/{ONE}",
        "/var/log/libvirt/qemu/n1.log",
    } <= set(found)


def test_the_folder_of_stores_is_learnt_where_the_daemons_home_is_not_known() -> None:
    found = derived(
        ("n1", ONE),
        known=Folders(),
        stores=("/home/x/.config/libvirt/qemu/nvram/other.fd", "/srv/images/another.fd"),
    )
    assert "/home/x/.config/libvirt/qemu/nvram/n1_VARS.fd" in found
    assert not [path for path in found if path.startswith("/srv")]


def test_a_name_from_a_snapshot_counts_after_a_rename() -> None:
    root = element(
        "<domainsnapshot><name>before</name><domain type='qemu'><name>n1</name>"
        "<os><nvram>/srv/nvram/x.fd</nvram></os></domain></domainsnapshot>"
    )
    assert domain_xml.names_in(root) == ["n1"]
    assert domain_xml.stores_in(root) == ["/srv/nvram/x.fd"]


def counted(*machines: tuple[str, str, str]) -> FileUsage:
    return FileUsage(
        local=True,
        derived=tuple(
            Use(name, uuid, path, file_usage.file_id(path, True)) for name, uuid, path in machines
        ),
    )


def test_a_derived_file_is_its_machines_under_any_name(tmp_path: Path) -> None:
    path = tmp_path / "n1_VARS.fd"
    path.write_bytes(b"")
    (tmp_path / "link").symlink_to(path)
    os.link(path, tmp_path / "hard")
    known = counted(("n1", ONE, str(path)))
    for name in ("n1_VARS.fd", "link", "hard"):
        assert known.derived_by_others(OTHER, str(tmp_path / name)) == "n1"
        assert known.derived_by_others(ONE, str(tmp_path / name)) == ""


def test_what_lies_in_a_machines_own_folder_is_that_machines(tmp_path: Path) -> None:
    known = counted(("n1", ONE, str(tmp_path / ONE)))
    assert known.derived_by_others(OTHER, str(tmp_path / ONE / "tpm2" / "state")) == "n1"
    assert known.derived_by_others(OTHER, str(tmp_path / "state")) == ""


@pytest.mark.parametrize(
    ("system", "path"),
    [
        ("<os firmware='efi'/>", "/stores/n1_VARS.fd"),
        ("<os firmware='efi'><nvram/></os>", "/stores/n1_VARS.fd"),
        ("<os firmware='efi'><nvram format='qcow2'/></os>", "/stores/n1_VARS.qcow2"),
        ("<os firmware='efi'><nvram>/srv/a.fd</nvram></os>", "/srv/a.fd"),
        ("<os><nvram type='network'><source protocol='nbd'/></nvram></os>", ""),
    ],
)
def test_the_store_of_a_definition_that_names_none_is_the_one_libvirt_chooses(
    system: str, path: str
) -> None:
    store = domain_xml.read(f"<domain><name>n1</name>{system}</domain>", "/stores").nvram
    assert store is not None
    assert store.path == path


def test_a_file_that_was_put_in_the_place_of_another_is_told_from_it(tmp_path: Path) -> None:
    path = tmp_path / "store.fd"
    assert filesystems.inode(str(path)) == ""
    path.write_bytes(b"one")
    known = filesystems.inode(str(path))
    path.write_bytes(b"written to")
    assert filesystems.is_same_file(str(path), known)
    path.rename(tmp_path / "aside")
    path.write_bytes(b"another")
    assert not filesystems.is_same_file(str(path), known)
    assert filesystems.is_same_file(str(path), "")


class FakeDomain:
    """Takes the flags that it is undefined with."""

    def undefineFlags(self, flags: int) -> None:
        self.flags = flags


@pytest.mark.parametrize("keep", [False, True])
def test_the_state_of_a_tpm_that_lies_where_its_definition_says_is_kept(keep: bool) -> None:
    raw = FakeDomain()
    host = SimpleNamespace(call=lambda function, *arguments: function(*arguments))
    DomainHandle(host, raw).undefine(with_nvram=False, keep_tpm=keep)
    assert bool(raw.flags & constants.UNDEFINE_KEEP_TPM) is keep
    assert bool(raw.flags & constants.UNDEFINE_TPM) is not keep
    assert raw.flags & constants.UNDEFINE_KEEP_NVRAM


@pytest.mark.parametrize(
    ("source", "named"), [("", False), ("<source type='dir' path='/srv/tpm'/>", True)]
)
def test_only_a_definition_that_says_where_a_tpm_keeps_its_state_is_taken_so(
    source: str, named: bool
) -> None:
    tpm = f"<tpm model='tpm-crb'><backend type='emulator'>{source}</backend></tpm>"
    text = f"<domain><name>n1</name><devices>{tpm}</devices></domain>"
    assert domain_xml.names_tpm_state(text) is named


def test_old_and_new_names_of_stores_are_ours() -> None:
    record = Record(uuid=ONE, base="base", base_uuid=OTHER, strategy="quick", name="n1")
    folder = "/var/lib/libvirt/qemu/nvram"
    for file in ("n1_VARS.fd", f"n1_VARS-{ONE}.fd", f"{ONE}.fd"):
        assert record.could_have_made(Volume("nvram", f"{folder}/{file}", "raw", "copy"))
    assert not record.could_have_made(Volume("nvram", f"{folder}/{OTHER}.fd", "raw", "copy"))


def test_what_is_in_the_way_is_put_aside_in_libvirts_own_folder() -> None:
    left = [f"{SYSTEM.state}/save/n1.save", f"{SYSTEM.state}/snapshot/n1/s.xml"]
    assert derived_files.aside(left, "n1") == (
        f"mkdir -p {SYSTEM.state}/left-by-another-n1 && "
        f"mv {left[0]} {left[1]} {SYSTEM.state}/left-by-another-n1"
    )
    assert f"{SYSTEM.state}/left-by" in derived_files.aside(left[1:], "n1")
    only = f"{SYSTEM.definitions}/n1.xml"
    assert derived_files.aside([only], "n1").startswith(
        f"mkdir -p {SYSTEM.definitions}/left-by-another-n1 && mv {only} "
    )
