"""Devices of the base that the profile leaves out, what goes with them, and what cannot go."""

from __future__ import annotations

import re

import pytest
import yaml

from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.plan.rewrite import Identity, Rewritten, rewrite
from saltext.kvmclone.plan.rewrite.leave_out import left_out
from tests.unit.plan.rewrite.test_corpus import CORPUS, FATES, IDENTITY
from tests.unit.plan.rewrite.test_schema import faults

LINE = re.compile(r"(?:leave_out: \[[^]]*\]|disks: \{\w+: \{action: skip\}\})")

#: Refused for what is no device, so that no line for the profile can help.
NO_DEVICE = {
    "container", "domain_of_xen",
    "firmware_that_the_guest_writes", "label_that_is_fixed", "nvram_encrypted",
    "nvram_on_a_block_device", "nvram_on_a_volume_of_proxmox", "nvram_over_the_network",
    "nvram_said_twice", "uuid_said_to_the_guest", "variables_in_a_varstore",
    *(name for name in FATES if name.startswith("memory_encryption")),
}  # fmt: skip

SERIALS = (
    "<serial type='pty'><target port='0'/></serial>"
    "<serial type='dev'><source path='/dev/ttyS0'/><target port='1'/></serial>"
    "<console type='pty'><target type='serial' port='0'/></console>"
    "<console type='pty'><target type='virtio' port='1'/></console>"
)
HOST = "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product id='0x5678'/>"
STICK = f"{HOST}</source></hostdev>"
FOLDER = "<filesystem type='mount'><source dir='/srv/{0}'/><target dir='{0}'/></filesystem>"
SPICE = (
    "<graphics type='spice' autoport='yes'/><video><model type='qxl'/></video>"
    "<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>"
    "<redirdev bus='usb' type='spicevmc'/>"
    "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
)


def base(devices: str, rest: str = "") -> str:
    return (
        "<domain type='kvm'><name>mother</name><uuid>5eed0000-1111-4222-8333-444455556666</uuid>"
        f"<memory unit='MiB'>384</memory><vcpu>2</vcpu>{rest}"
        f"<os><type arch='x86_64' machine='q35'>hvm</type></os><devices>{devices}</devices>"
        "</domain>"
    )


def without(devices: str, *names: str, rest: str = "") -> Rewritten:
    macs = tuple(f"52:54:00:00:00:0{card}" for card in range(devices.count("<interface ")))
    identity = Identity("child", IDENTITY.uuid, macs)
    rewritten = rewrite(base(devices, rest), identity, (), left_out=names)
    assert rewritten.conflicts or faults(rewritten.xml) == []
    return rewritten


def tags(rewritten: Rewritten) -> list[str]:
    root = libvirt_xml.parse(rewritten.xml)
    return [str(element.tag) for element in root.iterfind("./devices/*")]


def shown(rewritten: Rewritten) -> dict[str, str]:
    always = ("name", "uuid", "description")
    found = {key: change for key, change in rewritten.changes.items() if key not in always}
    assert all(change["new"] is None for change in found.values())
    return {key: change["old"] for key, change in found.items()}


@pytest.mark.parametrize("name", sorted(name for name in FATES if FATES[name].kind == "refused"))
def test_the_line_that_a_refusal_names_is_the_way_out(name: str) -> None:
    xml = (CORPUS / f"{name}.xml").read_text()
    (reason,) = rewrite(xml, IDENTITY, ()).conflicts
    line = LINE.search(reason)
    assert (line is None) == (name in NO_DEVICE), reason
    if line and (keys := yaml.safe_load(line[0])).get("leave_out"):
        again = rewrite(xml, IDENTITY, (), left_out=tuple(keys["leave_out"]))
        assert again.conflicts == []
        assert FATES[name].word not in again.xml


def test_one_device_goes_by_its_number_and_all_of_a_kind_by_their_name() -> None:
    devices = FOLDER.format("a") + FOLDER.format("b") + STICK
    one = without(devices, "filesystem1", "hostdev")
    assert "/srv/a" in one.xml
    assert shown(one) == {"filesystem1": "mount /srv/b", "hostdev0": "usb 0x1234 0x5678"}
    assert "leave_out: [filesystem0]" in one.conflicts[0]
    both = without(devices, "filesystem", "hostdev0")
    assert (both.conflicts, tags(both)) == ([], [])
    assert list(shown(both)) == ["filesystem0", "filesystem1", "hostdev0"]


@pytest.mark.parametrize("name", ["serial0", "console0"])
def test_a_serial_line_and_its_console_are_one_device(name: str) -> None:
    made = without(SERIALS, name, "serial1")
    assert tags(made) == ["console"]
    assert 'type="virtio"' in made.xml
    assert set(shown(made)) == {"serial0", "serial1", "console0"}


def test_a_device_is_called_by_its_number_in_the_base() -> None:
    (reason,) = without(SERIALS, "serial0").conflicts
    assert reason.startswith("serial 1 uses '/dev/ttyS0'")
    assert reason.endswith("Leave it out of the clone: leave_out: [serial1].")


def test_arguments_for_qemu_go_without_being_quoted() -> None:
    xml = (CORPUS / "raw_secret.xml").read_text()
    made = rewrite(xml, IDENTITY, (), left_out=("qemu:commandline",))
    assert made.conflicts == []
    assert "commandline" not in made.xml
    assert made.changes["qemu:commandline"] == {
        "old": "2 arguments (among them -object)",
        "new": None,
    }


def test_what_ends_in_a_spice_screen_goes_with_it() -> None:
    assert tags(without(SPICE, "graphics", "video")) == ["channel"]
    both = without(SPICE + "<graphics type='spice'/>", "graphics1")
    assert tags(both).count("channel") == 2, "a screen is left"


def test_the_only_graphics_card_goes_with_its_screen_or_not_at_all() -> None:
    refused = without(SPICE, "video0").conflicts
    assert "leave_out: [graphics0, video0]" in refused[0]
    assert "video" in tags(without(SPICE, "graphics"))
    second = SPICE.replace("<video>", "<video><model type='virtio'/></video><video>")
    assert tags(without(second, "video0")).count("video") == 1


def test_a_card_that_draws_with_a_screens_opengl_goes_with_it() -> None:
    card = "<video><model type='virtio'><acceleration accel3d='yes'/></model></video>"
    devices = f"<graphics type='spice'><listen type='none'/><gl enable='yes'/></graphics>{card}"
    (refused,) = without(devices, "graphics").conflicts
    assert "leave_out: [graphics0, video0]" in refused
    assert tags(without(devices, "graphics", "video")) == []
    assert tags(without(devices + "<graphics type='egl-headless'/>", "graphics0")) == [
        "video", "graphics",
    ]  # fmt: skip


def test_a_balloon_that_is_left_out_is_not_put_back() -> None:
    made = without("<memballoon model='virtio'/>", "memballoon")
    assert '<memballoon model="none"/>' in made.xml


def test_sound_stays_without_what_plays_it() -> None:
    devices = "<sound model='ich9'><audio id='1'/></sound><audio id='1' type='alsa'/>"
    made = without(devices, "audio")
    assert tags(made) == ["sound"]
    assert "audio" not in made.xml


def test_a_memory_device_takes_its_size_along() -> None:
    dimm = (
        "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>"
    )
    made = without(dimm, "memory0")
    assert libvirt_xml.bytes_of(libvirt_xml.parse(made.xml).find("memory")) == 256 * 2**20


def test_a_second_card_goes_and_the_first_keeps_its_address() -> None:
    cards = (
        "<interface type='network'><mac address='52:54:00:aa:aa:0{0}'/><source network='n{0}'/>"
        "</interface>"
    )
    both = cards.format(1) + cards.format(2)
    made = rewrite(
        base(both), Identity("child", IDENTITY.uuid, ("52:54:00:00:00:01",)), (),
        left_out=("interface0",),
    )  # fmt: skip
    assert tags(made) == ["interface"]
    assert "n2" in made.xml
    assert made.changes["interface0"] == {"old": "network n1", "new": None}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("filesytem", ("Did you mean filesystem?", "It has: filesystem0, hostdev0.")),
        ("filesystem1", ("does not have", "It has: filesystem0, hostdev0.")),
        ("qemu:comandline", ("Did you mean qemu:commandline?",)),
        ("vda", ("disks: {vda: {action: skip}}",)),
        ("disk", ("disks: {vda: {action: skip}}",)),
        ("disk0", ("disks: {vda: {action: skip}}",)),
        ("controller0", ("other devices are plugged into controllers",)),
        ("controller", ("other devices are plugged into controllers",)),
        ("emulator", ("the program that runs the clone",)),
        ("input", ("libvirt gives every machine of this kind",)),
        ("watchdog0", ("libvirt gives every machine of this kind",)),
        ("Serial 0", ("does not have", "It has: filesystem0, hostdev0.")),
    ],
)
def test_what_cannot_be_left_out_is_refused_in_words(name: str, words: tuple[str, ...]) -> None:
    devices = (
        "<emulator>/usr/bin/qemu-system-x86_64</emulator><disk type='file'><source file='/d'/>"
        "<target dev='vda'/></disk><controller type='scsi'/><input type='mouse' bus='ps2'/>"
        "<watchdog model='itco' action='reset'/>"
    )
    folder = FOLDER.format("a").replace("</filesystem>", "<readonly/></filesystem>")
    (reason,) = without(devices + folder + STICK, "hostdev", name).conflicts
    assert all(word in reason for word in words), reason


def test_a_kind_that_the_base_lacks_is_told_and_does_no_harm() -> None:
    made = without(STICK, "hostdev", "filesystem", "qemu:commandline")
    assert made.conflicts == []
    (warning,) = made.warnings
    assert "names filesystem, qemu:commandline, of which the base has none" in warning
    assert "It has: hostdev0." in warning


def test_a_clone_has_what_its_profile_leaves_out_by_kind() -> None:
    root = libvirt_xml.parse(base(STICK + "<memballoon model='none'/>" + SERIALS))
    assert left_out(root, ("hostdev", "serial1", "memballoon", "filesystem")) == ["hostdev0"]
    assert left_out(root, ("console",)) == ["console0", "console1"]
