"""
Write the definition of a base that is made from an image: what its guest needs, and nothing else.
Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.base_request import BaseRequest
from saltext.kvmclone.model.machine_types import KVM, MachineType

#: Targets of the disk, and of the cloud-init seed while the base is made. A cdrom would race with
#: the guest's first look at its disks; a virtio disk is there before the kernel has done with it.
DISK, SEED = "vda", "vdb"

#: A generation id lets the guest notice that it was cloned.
_WITH_GENERATION_ID = ("q35", "pc")


@dataclass(frozen=True)
class BaseFiles:
    """
    Paths of the files that the definition names.

    :param disk: Volume of its disk, qcow2.
    :param seed: The cloud-init seed, raw.
    """

    disk: str
    seed: str


def definition(request: BaseRequest, uuid: str, machine: MachineType, files: BaseFiles) -> str:
    """Return the domain XML of a base while it is made, with a BIOS."""
    root = etree.Element("domain", type=machine.type)
    _text(root, "name", request.name)
    _text(root, "uuid", uuid)
    if machine.machine in _WITH_GENERATION_ID:
        etree.SubElement(root, "genid")
    if request.description:
        _text(root, "description", request.description)
    _text(root, "memory", str(request.memory // 1024), unit="KiB")
    _text(root, "vcpu", str(request.cpus))
    system = etree.SubElement(root, "os")
    _text(system, "type", "hvm", arch=machine.arch, machine=machine.machine)
    etree.SubElement(system, "boot", dev="hd")
    features = etree.SubElement(root, "features")
    etree.SubElement(features, "acpi")
    if machine.arch == "x86_64":
        etree.SubElement(features, "apic")
    etree.SubElement(root, "cpu", mode="host-passthrough" if machine.type == KVM else "maximum")
    _clock(root, machine)
    _text(root, "on_poweroff", "destroy")
    _text(root, "on_reboot", "restart")
    _text(root, "on_crash", "destroy")
    _devices(etree.SubElement(root, "devices"), request, files)
    return libvirt_xml.serialize(root)


def with_efi(definition: str) -> str:
    """
    Return a definition with a UEFI firmware that libvirt chooses.

    Without secure boot: the image's own boot program need not be signed.
    """
    root = libvirt_xml.parse(definition)
    system = root.find("os")
    assert system is not None
    system.set("firmware", "efi")
    firmware = etree.Element("firmware")
    etree.SubElement(firmware, "feature", enabled="no", name="secure-boot")
    system.insert(1, firmware)
    return libvirt_xml.serialize(root)


def _clock(root: etree._Element, machine: MachineType) -> None:
    clock = etree.SubElement(root, "clock", offset="utc")
    if machine.arch == "x86_64" and machine.type == KVM:
        etree.SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
        etree.SubElement(clock, "timer", name="pit", tickpolicy="delay")
        etree.SubElement(clock, "timer", name="hpet", present="no")


def _devices(devices: etree._Element, request: BaseRequest, files: BaseFiles) -> None:
    _disk(devices, files.disk, "qcow2", DISK)
    etree.SubElement(_disk(devices, files.seed, "raw", SEED), "readonly")
    etree.SubElement(devices, "controller", type="usb", model="none")
    kind = "bridge" if request.bridge else "network"
    card = etree.SubElement(devices, "interface", type=kind)
    source = etree.SubElement(card, "source", {kind: request.bridge or request.network})
    if request.portgroup:
        source.set("portgroup", request.portgroup)
    etree.SubElement(card, "model", type="virtio")
    etree.SubElement(devices, "serial", type="pty")
    etree.SubElement(devices, "console", type="pty")
    channel = etree.SubElement(devices, "channel", type="unix")
    etree.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    source = etree.SubElement(devices, "rng", model="virtio")
    _text(source, "backend", "/dev/urandom", model="random")


def _disk(devices: etree._Element, path: str, form: str, target: str) -> etree._Element:
    disk = etree.SubElement(devices, "disk", type="file", device="disk")
    driver = etree.SubElement(disk, "driver", name="qemu", type=form)
    if form == "qcow2":
        driver.set("discard", "unmap")
    etree.SubElement(disk, "source", file=path)
    etree.SubElement(disk, "target", dev=target, bus="virtio")
    return disk


def _text(parent: etree._Element, tag: str, text: str, **attributes: str) -> None:
    element = etree.SubElement(parent, tag, attributes)
    element.text = text
