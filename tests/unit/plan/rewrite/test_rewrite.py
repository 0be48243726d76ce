"""The clone's definition keeps nothing that identifies its base."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.model import domain_xml, libvirt_xml, redaction
from saltext.kvmclone.plan.rewrite import Identity, NewDisk, Sizing, path_for, rewrite

DATA = Path(__file__).parent.parent.parent.parent / "data"
BASE = (DATA / "full_base.xml").read_text()
IDENTITY = Identity(
    name="web1",
    uuid="aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee",
    macs=("52:54:00:00:00:01", "52:54:00:00:00:02"),
    genid="bbbbbbbb-cccc-4ddd-8eee-ffffffffffff",
    nvram="/var/lib/libvirt/qemu/nvram/web1_VARS.fd",
)
DISKS = (
    NewDisk("vda", "/pool/web1-vda.qcow2", "qcow2"),
    NewDisk("vdb", "/pool/web1-vdb.qcow2", "qcow2"),
)


def domain(devices: str = "", rest: str = "", name: str = "base") -> str:
    return (
        f"<domain type='qemu'><name>{name}</name>"
        "<uuid>11111111-2222-3333-4444-555555555555</uuid>"
        f"<memory>1024</memory><vcpu>1</vcpu>{rest}<devices>{devices}</devices></domain>"
    )


def identity(interfaces: int = 0) -> Identity:
    return Identity("web1", IDENTITY.uuid, tuple(IDENTITY.macs[:interfaces]), IDENTITY.genid)


def test_the_rewritten_definition_is_the_golden_one() -> None:
    rewritten = rewrite(BASE, IDENTITY, DISKS)
    assert rewritten.conflicts == []
    assert rewritten.xml == (DATA / "full_clone.xml").read_text().rstrip("\n")


@pytest.mark.parametrize(
    "identifier",
    [
        "11111111-2222-3333-4444-555555555555",
        "99999999-8888-7777-6666-555555555555",
        "52:54:00:aa:bb:cc",
        "52:54:00:dd:ee:ff",
        "BASE-SERIAL",
        "09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f",
        "c0ffee00",
        "base0",
        "base_VARS.fd",
        "base-serial.log",
        "domain-base",
        "5901",
        "64055",
        "golden",
    ],
)
def test_no_identifier_of_the_base_is_left(identifier: str) -> None:
    assert identifier in BASE
    assert identifier not in rewrite(BASE, IDENTITY, DISKS).xml


@pytest.mark.parametrize("number", ["BASE-DISK", "5000c50015ea71ac"])
def test_a_disk_keeps_what_a_guest_finds_it_by(number: str) -> None:
    rewritten = rewrite(BASE, IDENTITY, DISKS)
    assert f">{number}</" in rewritten.xml
    assert not any("serial" in key or "wwn" in key for key in rewritten.changes if "disk" in key)


def test_the_console_password_is_kept_and_hidden_when_shown() -> None:
    xml = rewrite(BASE, IDENTITY, DISKS).xml
    assert "vnc-canary" in xml
    assert "vnc-canary" not in redaction.redact(xml)


@pytest.mark.parametrize(
    "secret",
    [
        "<c:data xmlns:c='urn:cockpit'><c:root_password>canary</c:root_password></c:data>",
        "<c:data xmlns:c='urn:cockpit'><c:user password='canary'/></c:data>",
        "<c:data xmlns:c='urn:cockpit?canary'><c:user c:userPassword='canary'/></c:data>",
    ],
)
def test_passwords_in_metadata_go_with_it_and_are_not_told(secret: str) -> None:
    """Cockpit notes those of the users that it is to make in the guest."""
    rewritten = rewrite(BASE.replace("<metadata>", f"<metadata>{secret}"), IDENTITY, DISKS)
    assert secret not in rewritten.xml
    assert "canary" not in repr([rewritten.changes, rewritten.warnings, rewritten.conflicts])
    assert rewritten.changes["metadata c:data"]["new"] is None


def test_a_secret_for_systemd_in_the_guest_is_hidden_when_shown() -> None:
    told = (
        "</system><oemStrings>"
        "<entry>io.systemd.credential:passwd.hashed-password.root=$6$canary-of-base</entry>"
        "<entry>io.systemd.credential:hostname=shown</entry></oemStrings>"
    )
    rewritten = rewrite(BASE.replace("</system>", told), IDENTITY, DISKS)
    assert "canary" in rewritten.xml
    assert "canary" not in redaction.redact(rewritten.xml)
    assert "canary" not in f"{rewritten.warnings}{rewritten.changes}"


def test_when_a_password_ends_is_no_secret() -> None:
    until = BASE.replace("passwd=", "passwdValidTo='2030-01-01T00:00:00' passwd=")
    assert "2030-01-01" in redaction.redact(until)


def test_what_the_guests_system_is_stays_on_record() -> None:
    assert "libosinfo:os id=" in rewrite(BASE, IDENTITY, DISKS).xml


def test_records_of_one_name_are_each_told() -> None:
    two = "<metadata><a:x xmlns:a='urn:a:1'/><a:x xmlns:a='urn:a:2'/></metadata>"
    changes = rewrite(domain(rest=two), identity(), ()).changes
    assert changes["metadata a:x"]["old"] == "another tool's record (urn:a:1)"
    assert changes["metadata a:x (2)"]["old"] == "another tool's record (urn:a:2)"


def test_nothing_is_injected_that_was_not_asked_for() -> None:
    xml = rewrite(
        domain("<interface type='network'><source network='default'/></interface>"), identity(1), ()
    ).xml
    assert "filterref" not in xml


@pytest.mark.parametrize(
    ("devices", "word"),
    [
        ("<hostdev mode='subsystem' type='pci'><source/></hostdev>", "hostdev"),
        ("<shmem name='shared'/>", "shared memory"),
        ("<filesystem type='mount'><source dir='/srv'/><target dir='x'/></filesystem>", "/srv"),
        ("<tpm model='tpm-tis'><backend type='passthrough'/></tpm>", "TPM"),
        ("<serial type='dev'><source path='/dev/ttyS0'/></serial>", "/dev/ttyS0"),
        ("<interface type='hostdev'/>", "hostdev"),
    ],
)
def test_a_device_that_only_one_machine_can_hold_is_refused(devices: str, word: str) -> None:
    rewritten = rewrite(domain(devices), identity(devices.count("<interface")), ())
    assert len(rewritten.conflicts) == 1
    assert word in rewritten.conflicts[0]


TELNET = "<source mode='bind' host='0.0.0.0' service='4555'/><protocol type='telnet'/>"
UDP = (
    "<source mode='bind' host='127.0.0.1' service='4555'/>"
    "<source mode='connect' host='127.0.0.1' service='4556'/>"
)


@pytest.mark.parametrize("tag", ["serial", "parallel", "console"])
@pytest.mark.parametrize(("kind", "source"), [("tcp", TELNET), ("udp", UDP)])
def test_a_line_on_a_port_of_the_host_becomes_a_pty_and_that_is_said(
    tag: str, kind: str, source: str
) -> None:
    made = rewrite(
        domain(f"<{tag} type='{kind}'>{source}<target port='0'/></{tag}>"), identity(), ()
    )
    assert made.conflicts == []
    (line,) = libvirt_xml.parse(made.xml).findall(f"./devices/{tag}")
    assert (line.get("type"), [child.tag for child in line]) == ("pty", ["target"])
    (warning,) = made.warnings
    assert "4555" in warning
    assert made.changes[f"{tag} 0"]["new"] == "pty"


def test_a_console_on_the_port_of_its_serial_line_is_spoken_of_once() -> None:
    lines = f"<serial type='tcp'>{TELNET}</serial><console type='tcp'>{TELNET}</console>"
    made = rewrite(domain(lines), identity(), ())
    assert (made.conflicts, len(made.warnings), "4555" in made.xml) == ([], 1, False)


def test_a_line_that_calls_out_or_takes_any_port_stays() -> None:
    out = TELNET.replace("bind", "connect")
    for source in (out, TELNET.replace("4555", "0")):
        made = rewrite(domain(f"<serial type='tcp'>{source}</serial>"), identity(), ())
        assert (made.conflicts, 'type="tcp"' in made.xml) == ([], True)
        assert [("leave it out: leave_out: [serial0]" in one) for one in made.warnings] == (
            [True] if source is out else []
        )


def test_every_reason_to_refuse_is_named_at_once() -> None:
    devices = "<hostdev type='usb'/><shmem name='a'/><tpm><backend type='passthrough'/></tpm>"
    assert len(rewrite(domain(devices), identity(), ()).conflicts) == 3


def test_a_read_only_filesystem_is_shared_with_a_warning() -> None:
    devices = "<filesystem><source dir='/srv'/><target dir='x'/><readonly/></filesystem>"
    rewritten = rewrite(domain(devices), identity(), ())
    assert rewritten.conflicts == []
    assert "/srv" in rewritten.warnings[0]


def test_the_record_of_a_base_that_is_a_clone_is_dropped() -> None:
    record = "<metadata><k:clone xmlns:k='urn:saltext:kvmclone:1' uuid='x'/></metadata>"
    assert "urn:saltext:kvmclone" not in rewrite(domain(rest=record), identity(), ()).xml


def test_cpus_memory_and_description_are_what_was_asked_for() -> None:
    rewritten = rewrite(domain(), identity(), (), Sizing(4, 2 * 2**30, "a web server"))
    facts = domain_xml.read(rewritten.xml)
    assert (facts.cpus, facts.memory, facts.description) == (4, 2 * 2**30, "a web server")
    assert rewritten.changes["memory"] == {"old": 1024 * 1024, "new": 2 * 2**30}


def test_a_definition_with_entities_is_refused() -> None:
    hostile = "<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>" + domain("&x;")
    with pytest.raises(PlanRefused):
        rewrite(hostile, identity(), ())


def test_a_name_is_never_taken_as_markup() -> None:
    nasty = Identity("a&b<c", IDENTITY.uuid, ())
    assert domain_xml.read(rewrite(domain(), nasty, ()).xml).name == "a&b<c"


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.-]{0,30}", fullmatch=True)
FILES = st.text(string.ascii_letters + string.digits + ".-_", min_size=1, max_size=40).filter(
    lambda file: file not in (".", "..")
)


@given(file=FILES, base=NAMES, name=NAMES)
def test_a_path_of_the_clone_stays_in_its_folder_and_carries_its_name(
    file: str, base: str, name: str
) -> None:
    made = path_for(f"/var/log/{file}", base, name)
    assert re.fullmatch(r"/var/log/[^/]+", made)
    assert name in made
