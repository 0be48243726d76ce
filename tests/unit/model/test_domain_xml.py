"""A definition from a hostile hand is refused, or read as libvirt reads it."""

from __future__ import annotations

import time

import pytest

from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.model import domain_xml, libvirt_xml
from saltext.kvmclone.plan.rewrite import Identity, rewrite

UUID = "5eed0000-1111-4222-8333-444455556666"
IDENTITY = Identity("child", "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", ())


def domain(inside: str = "", devices: str = "", head: str = f"<uuid>{UUID}</uuid>") -> str:
    return (
        f"<domain type='kvm'><name>mother</name>{head}<memory>1024</memory>{inside}"
        f"<devices>{devices}</devices></domain>"
    )


LAUGHS = "".join(
    f"<!ENTITY l{number} '{f'&l{number - 1};' * 10 if number else 'ha' * 10}'>"
    for number in range(10)
)


@pytest.mark.parametrize(
    "prolog",
    [
        "<!DOCTYPE domain>",
        "<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>",
        "<!DOCTYPE domain SYSTEM 'http://192.0.2.1/evil.dtd'>",
        f"<!DOCTYPE domain [{LAUGHS}]>",
        "<?xml version='1.0'?>\n<!-- <domain> -->\n<!DOCTYPE domain>",
        "\ufeff<?nothing to see?><!DOCTYPE domain [<!ENTITY % p SYSTEM 'file:///x'> %p;]>",
    ],
)
def test_a_dtd_is_refused_before_anything_is_expanded(prolog: str) -> None:
    started = time.monotonic()
    with pytest.raises(PlanRefused, match="DTD"):
        libvirt_xml.parse(prolog + domain(inside="<title>&l9;&x;</title>"))
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "mother",
        "<domain>",
        domain(inside="<title>&x;</title>"),
        domain(inside="<title>\0</title>"),
        domain(inside="<title>\ud800</title>"),
        domain(inside="<a>" * 5000 + "</a>" * 5000),
        domain(inside=f"<title>{'x' * 11_000_000}</title>"),
        "<network><name>mother</name></network>",
        "<domain xmlns='urn:other'><name>mother</name></domain>",
        "<k:domain xmlns:k='urn:other'/>",
    ],
    ids=lambda xml: xml[:30],
)
def test_what_is_no_definition_is_refused_with_a_hint(xml: str) -> None:
    with pytest.raises(PlanRefused) as refused:
        domain_xml.read(xml)
    assert refused.value.hint


@pytest.mark.parametrize(
    "devices",
    [
        "<x:disk xmlns:x='urn:other' type='file'/>",
        "<disk type='file'><x:source xmlns:x='urn:other' file='/pool/mother.qcow2'/></disk>",
        "<disk type='file'><source xmlns:x='urn:other' x:file='/pool/mother.qcow2'/></disk>",
        "<xi:include xmlns:xi='http://www.w3.org/2001/XInclude' href='/etc/passwd' parse='text'/>",
    ],
)
def test_a_foreign_name_inside_is_refused(devices: str) -> None:
    with pytest.raises(PlanRefused, match="foreign name"):
        domain_xml.read(domain(devices=devices))


@pytest.mark.parametrize(
    "xml",
    [
        domain(inside="<name>other</name>"),
        domain(inside=f"<uuid>{UUID}</uuid>"),
        domain(inside="<devices/>"),
        domain(inside="<os><nvram>/a</nvram><nvram>/b</nvram></os>"),
        domain(devices="<disk><source file='/a'/><source file='/b'/><target dev='vda'/></disk>"),
        domain(devices="<interface type='user'><mac address='a'/><mac address='b'/></interface>"),
        domain(devices="<tpm><backend type='emulator'/><backend type='passthrough'/></tpm>"),
    ],
)
def test_one_of_two_is_never_guessed(xml: str) -> None:
    with pytest.raises(PlanRefused, match="there can be one"):
        domain_xml.read(xml)


def test_a_udp_line_has_two_ends() -> None:
    both = "<source mode='bind' service='1'/><source mode='connect' host='a' service='2'/>"
    domain_xml.read(domain(devices=f"<serial type='udp'>{both}</serial>"))


def test_comments_and_instructions_are_read_over_as_libvirt_does() -> None:
    xml = domain(
        devices="<!-- one --><disk type='file'><?pi x?><source file='/a'><!-- two --></source>"
        "<target dev='vda'/></disk>"
    ).replace("<name>mother", "<name>mot<!-- in between -->her<?and more?>")
    facts = domain_xml.read("<!-- before -->" + xml + "<!-- after -->")
    assert facts.name == "mother"
    assert facts.disks[0].path == "/a"
    clone = rewrite(xml, IDENTITY, ()).xml
    assert "<!--" not in clone
    assert domain_xml.read(clone).name == "child"


@pytest.mark.parametrize(
    "inside",
    [
        "<vcpu>two</vcpu>",
        "<vcpu>-1</vcpu>",
        "<vcpu>1.5</vcpu>",
        "<vcpu>٣</vcpu>",
        f"<vcpu>{'9' * 30}</vcpu>",
    ],
)
def test_a_number_that_is_none_is_refused(inside: str) -> None:
    with pytest.raises(PlanRefused, match="not hold a number") as refused:
        domain_xml.read(domain(inside=inside))
    assert "virsh edit" in refused.value.hint


@pytest.mark.parametrize(
    ("memory", "word"),
    [
        ("<memory>much</memory>", "not hold a number"),
        ("<memory unit='bucket'>1</memory>", "a unit that"),
    ],
)
def test_memory_that_cannot_be_counted_is_refused(memory: str, word: str) -> None:
    with pytest.raises(PlanRefused, match=word):
        domain_xml.read(domain().replace("<memory>1024</memory>", memory))


@pytest.mark.parametrize(
    ("unit", "size"),
    [("b", 1), ("bytes", 1), ("KB", 1000), ("k", 1024), ("KiB", 1024), ("TiB", 2**40)],
)
def test_memory_is_counted_in_every_unit_of_libvirt(unit: str, size: int) -> None:
    facts = domain_xml.read(domain().replace("<memory>", f"<memory unit='{unit}'>"))
    assert facts.memory == 1024 * size


@pytest.mark.parametrize("written", [UUID.upper(), UUID.replace("-", "")])
def test_a_uuid_in_another_spelling_is_the_bases_still(written: str) -> None:
    head = f"<uuid>{written}</uuid>"
    xml = domain(head=head, inside=f"<os><init>/sbin/{UUID}</init></os>")
    assert "holds a uuid of the base" in rewrite(xml, IDENTITY, ()).conflicts[0]
    told = f"<sysinfo type='fwcfg'><entry name='opt/id'>{UUID}</entry></sysinfo>"
    assert f">{IDENTITY.uuid}</entry>" in rewrite(domain(head=head, inside=told), IDENTITY, ()).xml


def test_a_base_without_a_uuid_gives_a_clone_with_one() -> None:
    rewritten = rewrite(domain(head=""), IDENTITY, ())
    assert rewritten.conflicts == []
    assert domain_xml.read(rewritten.xml).uuid == IDENTITY.uuid


def test_a_base_without_a_name_is_refused() -> None:
    xml = domain().replace("<name>mother</name>", "")
    assert "no <name>" in rewrite(xml, IDENTITY, ()).conflicts[0]


@pytest.mark.parametrize(
    ("os", "automatic"),
    [
        ("<os firmware='efi'/>", True),
        ("<os firmware='efi'><loader stateless='yes'/></os>", False),
        ("<os><loader readonly='yes' type='pflash'>/code.fd</loader></os>", True),
        ("<os><loader readonly='yes' type='pflash' stateless='yes'>/c.fd</loader></os>", False),
        ("<os><loader type='rom'>/bios.bin</loader></os>", False),
        ("<os/>", False),
    ],
)
def test_libvirt_makes_a_variable_store_where_the_firmware_wants_one(
    os: str, automatic: bool
) -> None:
    assert (domain_xml.read(domain(inside=os)).nvram is not None) is automatic
