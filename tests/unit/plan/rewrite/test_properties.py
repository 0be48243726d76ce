"""Whatever a base looks like: it is refused, or its clone is valid and keeps nothing of it."""

from __future__ import annotations

import string
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from lxml import etree

from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.plan.rewrite import Identity, NewDisk, Rewritten, Sizing, rewrite
from tests.unit.plan.rewrite.test_schema import faults

SETTINGS = settings(max_examples=250, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Piece:
    """
    A part of a base.

    :param xml: Stands in ``<devices>``, or below the root.
    :param marks: What identifies the base there; none of it may be left.
    """

    xml: str
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Base:
    """A generated base: its definition and everything it is known by."""

    xml: str
    name: str
    uuid: str
    marks: tuple[str, ...]
    disks: int
    cards: int


LETTERS = string.ascii_letters + string.digits
NAMES = st.one_of(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.-]{0,30}", fullmatch=True),
    st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20),
    st.sampled_from(
        [".", "..", "a/b", "../x", "web", "child", "child1", "chil", "(.*)", "a|b", r"\1"]
    ),
).filter(lambda name: name.strip() == name)
CLONES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,20}", fullmatch=True)
UUIDS = st.uuids(version=4).map(str)
MACS = st.binary(min_size=3, max_size=3).map(
    lambda tail: "52:54:ab:" + ":".join(f"{byte:02x}" for byte in tail)
)
#: An underline is in no clone's name: what is found again is the base's.
WORDS = st.text(LETTERS, min_size=5, max_size=12).map("k_{}".format)
PORTS = st.integers(5900, 65535).map(str)
FOLDERS = st.sampled_from(["/srv/log", "/run/app", "/var/lib/libvirt/qemu", "/var/log/libvirt"])


@st.composite
def paths(draw: st.DrawFn, name: str) -> str:
    """A path that a machine writes: with its name in it, or without."""
    file = draw(WORDS)
    spelled = draw(st.sampled_from([f"{name}.log", f"{name}-{file}.log", file, f"{file}_{name}_1"]))
    assume("/" not in spelled)
    return f"{draw(FOLDERS)}/{spelled}"


def piece(xml: str, *marks: str) -> Piece:
    return Piece(xml, marks)


@st.composite
def consoles(draw: st.DrawFn, name: str) -> Piece:
    tag = draw(st.sampled_from(["serial", "parallel"]))
    path, port, mode = draw(paths(name)), draw(PORTS), draw(st.sampled_from(["bind", "connect"]))
    kind = draw(st.sampled_from(["pty", "file", "unix", "tcp", "dev", "pipe", "null", "log"]))
    where = quoteattr(path)
    if kind == "log":
        return piece(f"<{tag} type='pty'><log file={where}/></{tag}>", path)
    if kind == "tcp":
        service = port if mode == "bind" else "4711"
        source = f"<source mode='{mode}' host='h.test' service='{service}'/><protocol type='raw'/>"
        marks = [port] if mode == "bind" else []
        return piece(f"<{tag} type='tcp'>{source}</{tag}>", *marks)
    if kind in ("pty", "null"):
        return piece(f"<{tag} type='{kind}'/>")
    source = f"<source path={where}" + (f" mode='{mode}'/>" if kind == "unix" else "/>")
    marks = [path] if kind != "unix" or mode == "bind" else []
    return piece(f"<{tag} type='{kind}'>{source}</{tag}>", *marks)


@st.composite
def channels(draw: st.DrawFn, name: str) -> Piece:
    target = f"<target type='virtio' name='org.test.{draw(WORDS)}'/>"
    path = draw(
        st.one_of(
            paths(name),
            st.just(f"/var/lib/libvirt/qemu/channel/target/domain-7-{name}/org.test.0"),
        )
    )
    return piece(
        f"<channel type='unix'><source mode='bind' path={quoteattr(path)}/>{target}</channel>", path
    )


@st.composite
def screens(draw: st.DrawFn, name: str) -> Piece:
    port, other, path = draw(PORTS), draw(PORTS), draw(paths(name))
    where = quoteattr(path)
    return draw(
        st.sampled_from(
            [
                piece(f"<graphics type='vnc' port='{port}' websocket='{other}'/>", port, other),
                piece(f"<graphics type='spice' port='{port}' tlsPort='{other}'/>", port, other),
                piece(f"<graphics type='vnc' socket={where}/>", path),
                piece(
                    f"<graphics type='spice'><listen type='socket' socket={where}/></graphics>",
                    path,
                ),
                piece(f"<audio id='{draw(st.integers(1, 99))}' type='file' path={where}/>", path),
            ]
        )
    )


@st.composite
def others(draw: st.DrawFn, name: str) -> Piece:
    word, path, uuid = draw(WORDS), draw(paths(name)), draw(UUIDS)
    where = quoteattr(path)
    return draw(
        st.sampled_from(
            [
                piece(f"<shmem name='{word}'/>", word),
                piece("<hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/>"
                      "<product id='0xbeef'/></source></hostdev>", "0xbeef"),
                piece(f"<filesystem><source dir={where}/><target dir='{word}'/></filesystem>",
                      path),
                piece(f"<filesystem><source dir='/srv/{word}'/><target dir='d'/><readonly/>"
                      "</filesystem>"),
                piece("<tpm><backend type='emulator'/></tpm>"),
                piece("<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>",
                      "/dev/tpm0"),
                piece(f"<memory model='nvdimm'><uuid>{uuid}</uuid><source>"
                      f"<path>{escape(path)}</path></source><target><size>1024</size></target>"
                      "</memory>", uuid, path),
                piece("<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"),
                piece("<redirdev bus='usb' type='spicevmc'/>"),
                piece("<controller type='usb' index='0'/>"),
                piece(f"<lease><lockspace>s</lockspace><key>{word}</key><target path={where}/>"
                      "</lease>", path),
            ]
        )
    )  # fmt: skip


def spellings(mac: str) -> st.SearchStrategy[str]:
    """The ways in which programs write a MAC address."""
    bare = mac.replace(":", "")
    dotted = ".".join(bare[start : start + 4] for start in (0, 4, 8))
    return st.sampled_from([mac.upper(), mac.replace(":", "-"), bare, dotted, f"01-{mac}"])


@st.composite
def cards(draw: st.DrawFn, mac: str, name: str) -> Piece:
    """A network card with everything that may be bound to one machine."""
    word, port, path = draw(WORDS), draw(UUIDS), draw(paths(name))
    ovs = f"<virtualport type='openvswitch'><parameters interfaceid='{port}'/></virtualport>"
    kind, inside, marks = draw(
        st.sampled_from(
            [
                ("network", f"<source network='default'/><target dev='{word}'/>", [word]),
                ("network", f"<source network='default' portid='{port}'/>", [port]),
                ("bridge", f"<source bridge='br0'/>{ovs}", [port]),
                ("bridge", f"<source bridge='br0'/>{ovs.replace('openvswitch', 'midonet')}",
                 [port]),
                ("direct", f"<source dev='eth0' mode='passthrough'/><target dev='{word}'/>",
                 [word]),
                ("ethernet", f"<target dev='{word}'/>", [word]),
                ("user", f"<backend type='passt' logFile={quoteattr(path)}/>", [path]),
                ("network", "<source network='default'/><filterref filter='clean-traffic'>"
                 f"<parameter name='MAC' value='{mac}'/><parameter name='IP' value='10.9.8.7'/>"
                 "</filterref>", ["10.9.8.7"]),
            ]
        )
    )  # fmt: skip
    return piece(f"<interface type='{kind}'><mac address='{mac}'/>{inside}</interface>",
                 mac, *marks)  # fmt: skip


@st.composite
def bases(draw: st.DrawFn) -> Base:
    """A base that libvirt's schema accepts, with many things that only it may have."""
    name, uuid, genid = draw(NAMES), draw(UUIDS), draw(UUIDS)
    serial, asset, wwn = (
        draw(WORDS),
        draw(WORDS),
        draw(st.from_regex(r"5[0-9a-f]{14}", fullmatch=True)),
    )
    macs = draw(st.lists(MACS, max_size=3, unique=True))
    disks = draw(st.integers(0, 2))
    pieces = [
        draw(strategy)
        for strategy in draw(
            st.lists(
                st.sampled_from([consoles(name), channels(name), screens(name), others(name)]),
                max_size=6,
            )
        )
    ]
    pieces += [
        piece(
            f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
            f"<source file='/pool/{number}-{serial}.qcow2'/><target dev='vd{'ab'[number]}'/>"
            f"<serial>{number}{serial}</serial><wwn>{wwn}{number}</wwn></disk>",
            f"/pool/{number}-{serial}.qcow2",
        )
        for number in range(disks)
    ]
    pieces += [draw(cards(mac, name)) for mac in macs]
    if draw(st.booleans()):
        pieces.append(
            piece(
                "<disk type='file' device='cdrom'><source file='/iso/shared.iso'/><target "
                f"dev='sda' bus='scsi'/><readonly/><serial>9{serial}</serial></disk>"
            )
        )
    if draw(st.booleans()):
        pieces.append(piece("<vsock><cid address='4242'/></vsock>", "4242"))
    spoken = draw(spellings(macs[0])) if macs else "none"
    others_word = draw(WORDS)
    rest = draw(
        st.lists(
            st.sampled_from(
                [
                    piece(f"<metadata><n:n xmlns:n='urn:n'><a>{escape(name)}</a><b>{others_word}"
                          "</b></n:n></metadata>", others_word),
                    piece("<metadata><d:d xmlns:d='urn:d'>disk: "
                          f"{'/pool/0-' + serial + '.qcow2' if disks else 'none'}</d:d></metadata>",
                          f"disk: /pool/0-{serial}.qcow2"),
                    piece(f"<metadata><m:m xmlns:m='urn:m'>{spoken}</m:m></metadata>",
                          *([spoken] if macs else [])),
                    piece(f"<title>{serial} of all</title>"),
                    piece(f"<sysinfo type='smbios'><system><entry name='uuid'>{uuid}</entry>"
                          f"<entry name='serial'>{serial}</entry></system><chassis>"
                          f"<entry name='asset'>{asset}</entry></chassis></sysinfo>", asset),
                    piece(f"<metadata><t:t xmlns:t='urn:t'>{uuid.upper()}</t:t></metadata>"),
                    piece("<seclabel type='dynamic' model='dac'><label>+7:+7</label></seclabel>"),
                    piece("<seclabel type='static' model='dac'><label>+8:+8</label></seclabel>"),
                    piece("<cputune><vcpupin vcpu='0' cpuset='0'/><vcpupin vcpu='3' cpuset='1'/>"
                          "<vcpusched vcpus='0-3' scheduler='batch'/></cputune>"),
                ]
            ),
            unique_by=lambda part: part.xml[:9],
        )
    )  # fmt: skip
    boot = draw(st.sampled_from(["", f"<cmdline>BOOTIF={spoken} quiet</cmdline>"]))
    written = draw(st.sampled_from([uuid, uuid.upper(), uuid.replace("-", "")]))
    nvram = draw(paths(name))
    firmware, kept = draw(
        st.sampled_from(
            [
                ("", ()),
                ("<loader readonly='yes' type='pflash'>/usr/share/code.fd</loader>"
                 f"<nvram template='/usr/share/vars.fd'>{escape(nvram)}</nvram>", (nvram,)),
                (f"<loader readonly='no' type='pflash'>{escape(nvram)}</loader>", (nvram,)),
            ]
        )
    )  # fmt: skip
    # Like libvirt, which writes the generation id beside the uuid.
    generation = draw(st.sampled_from([piece(""), piece(f"<genid>{genid}</genid>", genid)]))
    xml = (
        f"<domain type='kvm'><name>{escape(name)}</name><uuid>{written}</uuid>{generation.xml}"
        f"<memory>262144</memory><vcpu>4</vcpu>{''.join(part.xml for part in rest)}"
        f"<os><type arch='x86_64'>hvm</type>{firmware}{boot}</os>"
        f"<devices>{''.join(part.xml for part in pieces)}</devices></domain>"
    )
    marks = [mark for part in (generation, *rest, *pieces) for mark in part.marks]
    marks += [f"BOOTIF={spoken} quiet"] if boot and macs else []
    return Base(
        xml, name, uuid.replace("-", ""), (uuid, written, serial, *kept, *marks), disks, len(macs)
    )


def clone_of(base: Base, name: str, sizing: Sizing = Sizing()) -> Rewritten:
    identity = Identity(
        name=name,
        uuid="aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee",
        macs=tuple(f"52:54:00:00:00:0{number}" for number in range(base.cards)),
        genid="bbbbbbbb-cccc-4ddd-8eee-ffffffffffff",
    )
    disks = tuple(
        NewDisk(f"vd{'ab'[number]}", f"/new/{name}-{number}.qcow2", "qcow2")
        for number in range(base.disks)
    )
    return rewrite(base.xml, identity, disks, sizing)


def words_of(xml: str) -> set[str]:
    """Every text and every attribute of a definition, but for where it says what it came from."""
    root = etree.fromstring(xml)
    for element in root.findall("description"):
        root.remove(element)
    return {
        word.strip()
        for element in root.iter(etree.Element)
        for word in (element.text or "", *map(str, element.attrib.values()))
        if word.strip()
    }


def _numbers(xml: str, kind: str) -> list[str | None]:
    return [number.text for number in etree.fromstring(xml).findall(f"./devices/disk/{kind}")]


@SETTINGS
@given(
    base=bases(),
    name=CLONES,
    sizing=st.sampled_from([Sizing(), Sizing(cpus=1), Sizing(8, 2**30), Sizing(description="x")]),
)
def test_a_clone_is_refused_or_valid_and_has_nothing_of_its_base(
    base: Base, name: str, sizing: Sizing
) -> None:
    assume(name not in (base.name, *base.marks))
    assume(faults(base.xml) == [])
    rewritten = clone_of(base, name, sizing)
    if rewritten.conflicts:
        assert all(reason.endswith(".") for reason in rewritten.conflicts)
        return
    assert faults(rewritten.xml) == []
    assert not words_of(rewritten.xml) & set(base.marks)
    for number in ("serial", "wwn"):
        assert _numbers(rewritten.xml, number) == _numbers(base.xml, number)
    assert base.uuid not in rewritten.xml.lower().replace("-", "")


@SETTINGS
@given(base=bases(), name=CLONES)
def test_a_clone_of_the_clone_differs_from_both(base: Base, name: str) -> None:
    first = clone_of(base, name)
    assume(not first.conflicts and name != base.name)
    again = rewrite(first.xml, Identity("grandchild", "c" * 8, ("",) * base.cards), ())
    ours = set(first.paths.values()) - set(first.paths)
    assert not words_of(again.xml) & ours


@SETTINGS
@given(
    base=bases(),
    where=st.integers(0, 10_000),
    junk=st.sampled_from(["", "-1", "x", "٣", "9" * 40, "&lt;a/&gt;", "../../etc", "/", "\u2028"]),
    attribute=st.booleans(),
    deed=st.sampled_from(["say", "double", "drop"]),
)
def test_damage_is_refused_or_survived_but_never_a_traceback(
    base: Base, where: int, junk: str, attribute: bool, deed: str
) -> None:
    root = etree.fromstring(base.xml)
    elements = list(root.iter(etree.Element))
    victim = elements[where % len(elements)]
    parent = victim.getparent()
    if deed == "drop" and parent is not None:
        parent.remove(victim)
    elif deed == "double" and parent is not None:
        parent.append(etree.fromstring(etree.tostring(victim, with_tail=False)))
    elif attribute and victim.attrib:
        victim.set(str(victim.keys()[where % len(victim.attrib)]), junk)
    else:
        victim.text = junk
    xml = etree.tostring(root, encoding="unicode")
    damaged = Base(
        xml, base.name, base.uuid, base.marks, 0, len(root.findall("./devices/interface"))
    )
    try:
        domain_xml.read(xml)
        clone_of(damaged, "child", Sizing(cpus=2, memory=2**30))
    except PlanRefused as refused:
        assert refused.hint
