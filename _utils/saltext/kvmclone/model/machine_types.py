"""
Read what a libvirt daemon can run from its capabilities. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from saltext.kvmclone.model import libvirt_xml

#: The machine types that are asked for, best first, by architecture.
MACHINES = {"x86_64": ("q35", "pc"), "aarch64": ("virt",)}

KVM, QEMU = "kvm", "qemu"


@dataclass(frozen=True)
class MachineType:
    """
    The sort of machine that is defined.

    :param type: Domain type: :data:`KVM`, or :data:`QEMU` for emulation.
    :param arch: Architecture: ``x86_64``.
    :param machine: ``q35``.
    :param efi: libvirt finds a UEFI firmware for it by itself.
    """

    type: str
    arch: str
    machine: str
    efi: bool = False


def offered(capabilities: str, domain_type: str = "auto") -> MachineType | None:
    """
    Return the machine that this host offers for guests of its own architecture.

    :param capabilities: XML of ``virConnectGetCapabilities``.
    :param domain_type: ``kvm`` or ``qemu``; ``auto`` for KVM where there is any.
    :return: None where there is none of that domain type.
    """
    root = libvirt_xml.element(capabilities)
    arch = (root.findtext("./host/cpu/arch") or "").strip()
    for guest in root.findall("./guest"):
        found = guest.find(f"./arch[@name='{arch}']") if arch in MACHINES else None
        if found is None or (guest.findtext("os_type") or "") != "hvm":
            continue
        types = [one.get("type", "") for one in found.findall("domain")]
        wanted = [KVM, QEMU] if domain_type == "auto" else [domain_type]
        chosen = next((one for one in wanted if one in types), "")
        names = {(one.text or "").strip() for one in found.iter("machine")}
        machine = next((one for one in MACHINES[arch] if one in names), "")
        if chosen and machine:
            return MachineType(chosen, arch, machine)
    return None


def finds_efi(domain_capabilities: str) -> bool:
    """
    Return whether libvirt finds a UEFI firmware by itself.

    :param domain_capabilities: XML of ``virConnectGetDomainCapabilities``.
    """
    root = libvirt_xml.element(domain_capabilities)
    values = root.findall("./os/enum[@name='firmware']/value")
    return "efi" in [(value.text or "").strip() for value in values]
