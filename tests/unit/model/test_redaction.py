"""What a definition may hold in secret is shown by no plan, no message and no error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from saltext.kvmclone.errors import KvmCloneError
from saltext.kvmclone.model import libvirt_xml, redacted_text, redaction
from saltext.kvmclone.model.facts import SourceFacts
from saltext.kvmclone.model.redacted_text import HIDDEN
from saltext.kvmclone.plan import planner
from saltext.kvmclone.plan.rewrite import NewInterface, SeedChange, rewrite
from saltext.kvmclone.plan.rewrite.leave_out import named
from tests.support.plans import BASE, FACTS, QUICK, VDA, disk_xml, qcow2, with_disk
from tests.support.schema_keys import free_places
from tests.unit.plan.rewrite.test_corpus import BASE_UUID, CORPUS, IDENTITY

CANARY = "canary7f3a"

#: Places that libvirt's schema leaves to whoever writes the definition, and that are shown: each
#: names something of the host, a device of the guest, or where it is connected.
SHOWN = {
    "alias@name", "channel/target@name", "console/target@name", "driver@name", "entry@name",
    "feature@name", "filterref@filter", "filterref/parameter@name", "graphics@keymap",
    "graphics@listen", "host@name", "label", "listen@address", "listen@network", "model",
    "model@type", "name", "passthrough@mode", "product", "seclabel@model", "serial",
    "source@bridge", "source@dev", "source@host", "source@mode", "source@network", "source@pool",
    "source@portgroup", "source@service", "source@tlsHostname", "source@volume", "target@bus",
    "target@dev", "target@port", "teaming@persistent", "type@machine", "vendor",
    "source/adapter@name", "clock@timezone", "portForward@dev", "guest@dev", "input@dev",
    "output@dev", "ip@family", "route@family", "timer@name", "serial/target@name", "event@name",
    "cipher@mode", "filesystem/target@dir", "shmem@name",
}  # fmt: skip


def holder(place: str) -> etree._Element:
    return etree.Element(place.partition("@")[0].rpartition("/")[2])


def test_of_all_that_libvirt_lets_one_write_freely_only_names_are_shown() -> None:
    places = free_places()
    assert len(places) > 100
    for known in ("os/cmdline", "devices/graphics@passwd", "sysinfo/oemStrings/entry"):
        assert known in places
    visible = {
        place
        for place in places
        if redaction.shown(holder(place), place, CANARY) == CANARY
        and not any(f"/{place}".endswith(f"/{name}") for name in SHOWN)
    }
    assert visible == set()


def positions(root: etree._Element) -> Iterator[tuple[etree._Element, str]]:
    """Every attribute, and every text ('') of an element without children."""
    for element in root.iter(etree.Element):
        for name in element.attrib:
            if name == "address":  # libvirt takes nothing else there
                continue
            yield element, str(name)
        if len(element) == 0:
            yield element, ""


def with_canaries(xml: str, *canaries: str) -> Iterator[tuple[str, str]]:
    """
    The definition again and again, with each canary in each place where no word is shown.

    Where libvirt takes words from a list of its own, a definition with another is none.
    """
    for number, _ in enumerate(positions(libvirt_xml.parse(xml))):
        for canary in (CANARY, *canaries):
            root = libvirt_xml.parse(xml)
            element, name = list(positions(root))[number]
            if name:
                element.set(name, canary)
            else:
                element.text = canary
            told = libvirt_xml.serialize(root)
            if CANARY not in redaction.redact(told):
                yield f"{element.tag}@{name}", told
            elif canary == CANARY:
                break


@pytest.mark.parametrize("name", sorted(path.stem for path in CORPUS.glob("*.xml")))
def test_no_message_quotes_what_the_shown_definition_hides(name: str) -> None:
    xml = (CORPUS / f"{name}.xml").read_text()
    identity = replace(IDENTITY, macs=("52:54:00:00:00:01",) * xml.count("<interface "))
    canaries = (
        f"{CANARY} mother",
        f"/srv/mother/{CANARY}",
        f"{CANARY} {BASE_UUID}",
        f"ip=192.0.2.5::{CANARY} ROOT-0815",
    )
    for place, told in with_canaries(xml, *canaries):
        for gone in ((), tuple(named(libvirt_xml.parse(told)))):
            try:
                made = rewrite(told, identity, (), left_out=gone)
            except KvmCloneError as error:
                assert CANARY not in str(error), place
            else:
                said = json.dumps([made.changes, made.warnings, made.conflicts])
                assert CANARY not in said, place


INTERFACES = {
    "a parameter of its filter": "<filterref filter='clean'>"
    "<parameter name='TOKEN' value='canary7f3a'/></filterref>",
    "the profile of its switch": "<virtualport type='802.1Qbh'>"
    "<parameters profileid='canary7f3a'/></virtualport>",
    "what passt calls the guest": "<backend type='passt' hostname='canary7f3a' fqdn='canary7f3a'/>",
    "the words of its script": "<script path='canary7f3a --token canary7f3a'/>",
    "its address on the host": "<ip address='canary7f3a'/>",
    "an option of its driver": "<driver name='vhost' option='canary7f3a'/>",
    "what this version does not know": "<mtu size='1500' token='canary7f3a'>canary7f3a</mtu>",
}
NEW_CARDS = {
    "on another network": NewInterface("52:54:00:00:00:01", network="lan"),
    "where it cannot have them": NewInterface(
        "52:54:00:00:00:01", bridge="br0", cannot=frozenset({"filterref", "vlan"})
    ),
    "as another model": NewInterface("52:54:00:00:00:01", model="e1000"),
}


@pytest.mark.parametrize("card", NEW_CARDS)
@pytest.mark.parametrize("inside", INTERFACES)
def test_what_an_interface_loses_is_told_and_no_secret_of_it(inside: str, card: str) -> None:
    kind = "ethernet" if "script" in inside else "user" if "passt" in inside else "network"
    first = (
        f"<interface type='{kind}'><mac address='52:54:00:77:77:77'/>{INTERFACES[inside]}"
        "<model type='virtio'/></interface>"
    )
    told = BASE.replace("<interface ", f"{first}<interface ", 1)
    made = rewrite(told, IDENTITY, (), cards=(NEW_CARDS[card],) * told.count("<interface "))
    assert CANARY not in json.dumps([made.changes, made.warnings, made.conflicts])


@pytest.mark.parametrize(
    "source",
    [
        "<source startupPolicy='optional' file='canary7f3a'/>",
        '<source file=\'json:{"password": "canary7f3a"}\'/>',
    ],
)
def test_a_seed_that_is_left_out_is_named_as_it_may_be_shown(source: str) -> None:
    facts = with_disk(disk_xml("file", source, "cdrom", "sdz"))
    made = rewrite(facts.base_xml, IDENTITY, (), seed=SeedChange(frozenset({"sdz"})))
    assert made.changes["disk sdz"]["new"] is None
    assert CANARY not in json.dumps([made.changes, made.warnings, made.conflicts])


@pytest.mark.parametrize(
    "place",
    [
        "<title>canary7f3a</title>",
        "<description>canary7f3a</description>",
        "<description>Cloned from base canary7f3a</description>",
        "<metadata><x:a xmlns:x='urn:x'>canary7f3a</x:a></metadata>",
        "<metadata><x:a xmlns:x='urn:x'><x:b name='canary7f3a'/></x:a></metadata>",
        "<metadata><x:a xmlns:x='urn:x'><x:b/>canary7f3a</x:a></metadata>",
        "<metadata><x:a xmlns:x='urn:x'><x:canary7f3a/></x:a></metadata>",
        "<metadata><x:a xmlns:x='urn:x' x:canary7f3a='x'/></metadata>",
        "<metadata><a xmlns='urn:x'><b xmlns='urn:canary7f3a'/></a></metadata>",
        "<metadata><x:a xmlns:x='http://tool.test/?token=canary7f3a'/></metadata>",
        "<metadata><x:a xmlns:x='urn:x'><x:b><![CDATA[<y>canary7f3a</y>]]></x:b></x:a></metadata>",
        "<metadata><libosinfo:libosinfo xmlns:libosinfo='http://libosinfo.org/xmlns/libvirt/"
        "domain/1.0'><libosinfo:os id='canary7f3a'/></libosinfo:libosinfo></metadata>",
        "<!-- canary7f3a -->",
        "<?tool canary7f3a?>",
        "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>"
        "<q:arg value='-object'/><q:arg value='secret,id=s,data=canary7f3a'/></q:commandline>",
        "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>"
        "<q:env name='canary7f3a' value='x'/><q:env name='T' value='canary7f3a'/></q:commandline>",
        "<q:override xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><q:device alias='d'>"
        "<q:frontend><q:property name='x' type='string' value='canary7f3a'/></q:frontend>"
        "</q:device></q:override>",
        "<b:commandline xmlns:b='http://libvirt.org/schemas/domain/bhyve/1.0'>"
        "<b:arg value='canary7f3a'/></b:commandline>",
        "<t:run xmlns:t='http://libvirt.org/schemas/domain/test/1.0'>canary7f3a</t:run>",
        "<launchSecurity type='sev'><policy>1</policy><dhCert>canary7f3a</dhCert>"
        "<session>canary7f3a</session></launchSecurity>",
        "<launchSecurity type='sev-snp' authorKey='yes'><hostData>canary7f3a</hostData>"
        "<idAuth>canary7f3a</idAuth></launchSecurity>",
        "<thing-of-tomorrow token='canary7f3a'>canary7f3a</thing-of-tomorrow>",
        "<resource><fibrechannel appid='canary7f3a'/></resource>",
        "<bootloader_args>canary7f3a</bootloader_args>",
    ],
)
def test_a_shown_plan_says_nothing_of_the_machine_that_may_be_a_secret(place: str) -> None:
    base = BASE.replace("<title>The golden base</title>", "")
    if place.startswith("<metadata>"):
        start, end = base.index("<metadata>"), base.index("</metadata>") + len("</metadata>")
        base = base[:start] + place + base[end:]
    else:
        base = base.replace("<memory unit", place + "<memory unit", 1)
    shown = planner.compute(replace(FACTS, base_xml=base), QUICK).as_dict()
    assert CANARY not in json.dumps(shown)
    etree.fromstring(shown["xml"])


OS = [
    "<cmdline>root=/dev/vda token=canary7f3a</cmdline>",
    "<cmdline>/base/canary7f3a</cmdline>",
    "<cmdline>11111111-2222-3333-4444-555555555555 canary7f3a</cmdline>",
    "<initarg>canary7f3a</initarg>",
    "<initenv name='TOKEN'>canary7f3a</initenv>",
]

SYSINFO = [
    "<sysinfo type='smbios'><oemStrings><entry>app:canary7f3a</entry></oemStrings></sysinfo>",
    "<sysinfo type='smbios'><chassis><entry name='sku'>canary7f3a</entry></chassis></sysinfo>",
    "<sysinfo type='smbios'><system><entry name='serial'>canary7f3a</entry></system></sysinfo>",
    "<sysinfo type='fwcfg'><entry name='opt/x'>canary7f3a of base</entry></sysinfo>",
    "<sysinfo type='fwcfg'><entry name='opt/x'>/base/canary7f3a</entry></sysinfo>",
]

DEVICES = [
    "<graphics type='spice' passwd='canary7f3a' passwdValidTo='2030-01-01T00:00:00'/>",
    "<rng model='virtio'><backend model='egd' type='tcp'><source mode='connect' host='h' "
    "service='1'/>canary7f3a</backend></rng>",
    "<lease><lockspace>canary7f3a</lockspace><key>canary7f3a</key><target path='/l'/></lease>",
    "<disk type='network' device='cdrom'><source protocol='https' name='canary7f3a/x.iso' "
    "query='token=canary7f3a'><host name='h.test'/><ssl verify='no'/><cookies>"
    "<cookie name='session'>canary7f3a</cookie></cookies></source><target dev='sdb'/></disk>",
    "<disk type='network' device='cdrom'><auth username='canary7f3a'>"
    "<secret type='ceph' usage='canary7f3a'/></auth><source protocol='rbd' "
    "name='pool/image:id=admin:key=canary7f3a'/><target dev='sdb'/></disk>",
    "<disk type='network' device='disk'><source protocol='iscsi' name='iqn.2013:canary7f3a'>"
    "<initiator><iqn name='iqn.2013:canary7f3a'/></initiator></source><target dev='sdb'/></disk>",
    "<disk type='file' device='cdrom'><source file='https://user:canary7f3a@h.test/x.iso'/>"
    "<target dev='sdb'/></disk>",
    "<disk type='file' device='disk'><source file='json:{\"password\": \"canary7f3a\"}'/>"
    "<target dev='sdb'/></disk>",
    "<disk type='file' device='cdrom'><source file='/iso/x'/><backingStore type='file'>"
    "<source file='json:canary7f3a'/></backingStore><target dev='sdb'/></disk>",
    "<interface type='user'><backend type='passt' hostname='canary7f3a'/></interface>",
    "<interface type='network'><source network='default'/><filterref filter='f'>"
    "<parameter name='TOKEN' value='canary7f3a'/></filterref></interface>",
    "<teleporter key='canary7f3a'>canary7f3a</teleporter>",
    "<video><model type='virtio' tomorrow='canary7f3a'/></video>",
    "<smartcard mode='host-certificates'><certificate>canary7f3a</certificate>"
    "<certificate>canary7f3a</certificate><certificate>x</certificate></smartcard>",
    "<graphics type='dbus' address='unix:path=canary7f3a'/>",
]  # fmt: skip


@pytest.mark.parametrize("place", [*OS, *SYSINFO, *DEVICES])
def test_a_shown_plan_says_nothing_of_a_device_or_to_the_guest_that_may_be_a_secret(
    place: str,
) -> None:
    base = BASE
    if place in SYSINFO:
        start, end = base.index("<sysinfo"), base.index("</sysinfo>") + len("</sysinfo>")
        base = base[:start] + place + base[end:]
    base = base.replace("</os>", (place if place in OS else "") + "</os>", 1)
    base = base.replace("</devices>", (place if place in DEVICES else "") + "</devices>", 1)
    made = planner.compute(replace(FACTS, base_xml=base), QUICK)
    shown = made.as_dict()
    assert CANARY not in json.dumps(shown)
    etree.fromstring(shown["xml"])
    if made.conflicts:
        with pytest.raises(KvmCloneError) as refused:
            made.check()
        assert CANARY not in str(refused.value)


def test_what_a_chain_stands_on_is_shown_by_its_protocol_alone() -> None:
    far = SourceFacts((qcow2("/pool/x.qcow2"),), fault="it is broken", pool="pool")
    for name in ("https://u:canary7f3a@h/x", 'json:{"key":"canary7f3a"}', "rbd:p/i:key=canary7f3a"):
        said = disk_xml(
            "file",
            f"<source file='/pool/x.qcow2'/><driver type='qcow2'/><backingStore type='file'>"
            f"<source file='{name}'/></backingStore>",
        )
        source = replace(far, fault="")
        assert CANARY not in str(planner.compute(with_disk(said, vdc=source), QUICK).as_dict())
        assert redaction.path(name) == f"{name.partition(':')[0]}:{HIDDEN}"
    assert redaction.path(VDA.images[0].path) == "/pool/base.qcow2"


def test_the_plan_stays_of_use() -> None:
    shown = planner.compute(FACTS, replace(QUICK, description="the shop's front")).as_dict()
    for word in (
        "http://debian.org/debian/12", "/pool/web1-vda.qcow2", "pc-q35-7.2", "the shop's front",
        "openvswitch", "org.qemu.guest_agent.0", "/usr/share/OVMF/OVMF_CODE.fd", "libosinfo:os",
        'listen="127.0.0.1"', "<entry name=\"manufacturer\">&lt;hidden&gt;</entry>",
    ):  # fmt: skip
        assert word in shown["xml"]
    assert f'passwd="{HIDDEN.replace("<", "&lt;").replace(">", "&gt;")}"' in shown["xml"]
    assert shown["changes"]["description"] == {"old": None, "new": "the shop's front"}
    assert shown["changes"]["title"] == {"old": HIDDEN, "new": None}
    assert "Cloned from base" in planner.compute(FACTS, QUICK).as_dict()["xml"]


def test_who_left_something_in_the_metadata_is_shown_and_what_is_not() -> None:
    left = "<metadata><c:data xmlns:c='urn:cockpit'><c:x y='1'/></c:data>"
    shown = redaction.redact(BASE.replace("<metadata>", left))
    assert '<c:data xmlns:c="urn:cockpit">&lt;hidden&gt;</c:data>' in shown


@pytest.mark.parametrize("name", sorted(path.stem for path in CORPUS.glob("*.xml")))
def test_the_structure_of_a_shown_definition_is_that_of_the_real_one(name: str) -> None:
    def structure(xml: str) -> list[tuple[str, list[str]]]:
        root = libvirt_xml.parse(xml)
        for element in root.findall("./metadata/*"):
            root.findall("metadata")[0].remove(element)
        return [
            (str(element.tag), [str(attribute) for attribute in element.attrib])
            for element in root.iter(etree.Element)
        ]

    xml = (CORPUS / f"{name}.xml").read_text()
    assert structure(redaction.redact(xml)) == structure(xml)


@pytest.mark.parametrize(
    "broken",
    [
        "<domain><name>canary7f3a</domain>",
        "<domain canary7f3a>",
        "<domain><canary7f3a></domain>",
        "<domain>&canary7f3a;</domain>",
        "<domain><vcpu>canary7f3a</vcpu></domain>",
        "<domain><memory unit='canary7f3a'>1</memory></domain>",
        "<domain><name>canary7f3a\ud800</name></domain>",
        "<domain><devices><disk xmlns:x='urn:canary7f3a' x:y='1'/></devices></domain>",
    ],
)
def test_an_error_about_a_definition_does_not_quote_it(broken: str) -> None:
    with pytest.raises(KvmCloneError) as refused:
        planner.compute(replace(FACTS, base_xml=broken), QUICK)
    assert CANARY not in f"{refused.value!r} {refused.value} {refused.value.__cause__!r}"


def test_what_qemu_quotes_of_a_definition_is_struck_out() -> None:
    xml = (Path(CORPUS) / "words_to_the_guest.xml").read_text()
    xml = xml.replace("<entry>", "<entry>k=a,canary7f3a</entry><entry>", 1)
    hidden = redaction.hidden_values(xml)
    said = redaction.without("qemu: -smbios type=11,value=k=a,,canary7f3a: no such thing", hidden)
    assert said == f"qemu: -smbios type=11,value={HIDDEN}: no such thing"
    assert redaction.without("Invalid parameter 'canary7f3a'", hidden).endswith(f"'{HIDDEN}'")


def test_the_name_that_a_guest_is_told_stays_readable_in_an_error() -> None:
    xml = (Path(CORPUS) / "kernel_told_a_source.xml").read_text()
    hidden = redaction.hidden_values(xml.replace("h=mother", "h=mother;token=canary7f3a"))
    said = redaction.without(
        "domain 'mother' is there; ds=nocloud;h=mother;token=canary7f3a", hidden
    )
    assert said.startswith("domain 'mother' is there")
    assert "canary7f3a" not in said


def test_known_secrets_are_struck_out_of_a_text_however_they_are_written() -> None:
    secret = "it's\tcanary7f3a"
    written = (secret, secret.replace("'", "'\"'\"'"), json.dumps(secret), repr(secret))
    text = redacted_text.without_secrets("password=" + " then ".join(written), [secret])
    assert "canary" not in text
    assert text.startswith(f"password={HIDDEN} then ")


def test_the_lines_of_a_key_become_one_mark_and_its_frame_stays() -> None:
    key = "-----BEGIN KEY-----\nline-one\nline-two\n-----END KEY-----\n"
    text = redacted_text.without_secrets(f"found:\n{key}", [key.replace("\n", "\r\n")])
    assert text == f"found:\n-----BEGIN KEY-----\n{HIDDEN}\n-----END KEY-----\n"
