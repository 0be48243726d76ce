"""Promises about what a definition may hold in secret: the doors of a host show nothing of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest
from salt.exceptions import CommandExecutionError

from lab.lab import connection
from saltext.kvmclone.errors import HostError
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from tests.support.world import Salt, World, quick

CANARY = "canary7f3a"

#: What other tools, people and QEMU's own options keep in a definition, as libvirt stores it.
PLACES = {
    "title": ("<metadata", f"<title>{CANARY}</title><description>{CANARY}</description><metadata"),
    "note": ("<metadata", f"<description>Cloned from {CANARY} BASE</description><metadata"),
    "interface": (
        "</devices>",
        "<interface type='direct'><source dev='lo' mode='vepa'/><virtualport type='802.1Qbh'>"
        f"<parameters profileid='{CANARY}'/></virtualport><model type='virtio'/></interface>"
        "</devices>",
    ),
    "metadata": (
        "</metadata>",
        f"<x:data xmlns:x='urn:tool'><x:a b='{CANARY}'>{CANARY}</x:a></x:data></metadata>",
    ),
    "oem strings": (
        "<os>",
        f"<sysinfo type='smbios'><oemStrings><entry>{CANARY} BASE</entry></oemStrings></sysinfo>"
        "<os><smbios mode='sysinfo'/>",
    ),
    "fw_cfg": (
        "<os>",
        f"<sysinfo type='fwcfg'><entry name='opt/org.test/x'>{CANARY}</entry></sysinfo><os>",
    ),
    "kernel": ("<cmdline>", f"<cmdline>token={CANARY} BASE UUID "),
    "kernel's words": ("<cmdline>", f"<cmdline>token={CANARY} BASE "),
    "screen": ("</devices>", f"<graphics type='vnc' passwd='{CANARY[:8]}'/></devices>"),
    "arguments": (
        "</domain>",
        "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>"
        f"<q:arg value='-object'/><q:arg value='secret,id=s,data={CANARY}'/>"
        f"<q:env name='T' value='{CANARY}'/></q:commandline></domain>",
    ),
    "medium": (
        "</devices>",
        "<disk type='network' device='cdrom'><driver name='qemu' type='raw'/>"
        f"<source protocol='https' name='{CANARY}.iso' query='t={CANARY}'>"
        "<host name='h.test' port='443'/><cookies>"
        f"<cookie name='s'>{CANARY}</cookie></cookies></source>"
        "<target dev='sdz' bus='scsi'/><readonly/></disk></devices>",
    ),
    "image": (
        "</devices>",
        "<disk type='file' device='cdrom'><driver name='qemu' type='raw'/>"
        f"<source file='https://user:{CANARY}@h.test/x.iso'/>"
        "<target dev='sdz' bus='scsi'/><readonly/></disk></devices>",
    ),
}


def filled(name: str, *places: str) -> None:
    """Put the canary into these places of a machine."""
    with connection() as conn:
        raw = conn.lookupByName(name)
        xml = raw.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        if "<metadata" not in xml:
            xml = xml.replace("<memory", "<metadata></metadata><memory", 1)
        for place in places:
            old, new = PLACES[place]
            new = new.replace("BASE", name).replace("UUID", raw.UUIDString())
            assert old in xml, place
            xml = xml.replace(old, new, 1)
        conn.defineXML(xml)
        assert CANARY[:8] in raw.XMLDesc(
            libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_INACTIVE
        )


@pytest.mark.parametrize("place", PLACES)
def test_no_door_shows_what_may_be_a_secret_of_the_base(
    world: World,
    base: str,
    salt_minion: Salt,
    salt_dry: Salt,
    caplog: pytest.LogCaptureFixture,
    place: str,
) -> None:
    filled(base, place)
    name = world.name()
    keys: dict[str, Any] = {"base_domain": base, "clone_strategy": "quick"}
    if place == "interface":  # what cannot go with it to another place is told
        cards = world.xml(base).findall("./devices/interface")
        keys["networks"] = [{"bridge": "lo", "model": "e1000"}] * len(cards)
    with caplog.at_level("DEBUG"):
        plan = salt_minion("kvm_clone.plan", name, **keys)
        told: list[Any] = [plan, salt_dry.state("kvm_clone.present", name, **keys)]
        try:
            told.append(salt_minion("kvm_clone.create", name, start=False, **keys))
            told += [
                salt_minion("kvm_clone.show", name),
                salt_minion("kvm_clone.list_clones"),
                salt_minion("kvm_clone.tree"),
                salt_minion("kvm_clone.doctor"),
                salt_minion("kvm_clone.adjust", name, description="new", test=True),
                salt_minion("kvm_clone.destroy", name),
            ]
        except CommandExecutionError as error:
            # libvirt's own schema knows no such file.
            assert plan["conflicts"] or place == "image", error
            told.append(str(error))
        told.append(LocalHost("qemu:///system").bases())
    for text in (json.dumps(told, default=str), caplog.text):
        assert CANARY not in text
        assert place != "screen" or CANARY[:8] not in text
    assert world.disks(base)[0] == Path(plan["disks"][0]["source"])


def test_a_warning_of_an_earlier_version_is_shown_without_what_it_quotes(
    world: World, host: LocalHost, base: str, salt_minion: Salt
) -> None:
    filled(base, "kernel's words")
    name = world.name()
    host.clone(quick(name, base))
    record = world.record(name)
    assert record is not None
    cmdline = world.xml(name).findtext("./os/cmdline")
    said = f"<cmdline> still says '{base}' to the guest: {cmdline}"
    with Host("qemu:///system") as opened:
        opened.domain(name).save_record(replace(record, warnings=(said,)))
    (warning,) = salt_minion("kvm_clone.show", name)["warnings"]
    assert warning == f"<cmdline> still says '{base}' to the guest: <hidden>"


def test_the_plan_of_a_base_with_secrets_is_that_of_one_without(
    world: World, base: str, salt_minion: Salt
) -> None:
    plain = salt_minion("kvm_clone.plan", world.name(), base_domain=base)
    filled(base, "title", "metadata", "fw_cfg", "screen", "medium")
    plan = salt_minion("kvm_clone.plan", world.name("other"), base_domain=base)
    assert plan["conflicts"] == []
    assert {disk["target"] for disk in plan["disks"]} >= {d["target"] for d in plain["disks"]}
    for word in ("urn:tool", "h.test", "opt/org.test/x", "<graphics", base):
        assert word in json.dumps(plan), word


def test_what_qemu_quotes_where_it_does_not_start_is_hidden(
    world: World, host: LocalHost, base: str, caplog: pytest.LogCaptureFixture
) -> None:
    entry = "<entry name='opt/org.test/x'>canary,7f3a</entry>"
    name = world.name()
    host.clone(quick(name, base))
    with connection() as conn:
        xml = conn.lookupByName(name).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        xml = xml.replace("<os>", f"<sysinfo type='fwcfg'>{entry}{entry}</sysinfo><os>", 1)
        conn.defineXML(xml)
    with caplog.at_level("DEBUG"), pytest.raises(HostError) as refused:
        host.boot(name)
    said = f"{refused.value!r} {refused.value} {refused.value.__cause__!r}"
    assert "<hidden>" in said
    for text in (said, caplog.text):
        assert "7f3a" not in text
