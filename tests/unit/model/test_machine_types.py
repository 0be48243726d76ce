"""The machine is of the host's own architecture, and runs under KVM where there is any."""

from __future__ import annotations

import pytest

from saltext.kvmclone.model import machine_types
from saltext.kvmclone.model.machine_types import MachineType


def capabilities(arch: str = "x86_64", types: str = "qemu kvm", machines: str = "pc q35") -> str:
    def guest(name: str, machine: str, kinds: str) -> str:
        listed = "".join(f"<machine maxCpus='8'>{one}</machine>" for one in machine.split())
        domains = "".join(f"<domain type='{one}'/>" for one in kinds.split())
        return (
            f"<guest><os_type>hvm</os_type><arch name='{name}'><wordsize>64</wordsize>{listed}"
            f"{domains}</arch></guest>"
        )

    return (
        f"<capabilities><host><cpu><arch>{arch}</arch></cpu></host>"
        f"{guest('riscv64', 'virt', 'qemu')}{guest(arch, machines, types)}</capabilities>"
    )


@pytest.mark.parametrize(
    ("xml", "asked", "found"),
    [
        (capabilities(), "auto", MachineType("kvm", "x86_64", "q35")),
        (capabilities(), "qemu", MachineType("qemu", "x86_64", "q35")),
        (capabilities(types="qemu"), "auto", MachineType("qemu", "x86_64", "q35")),
        (capabilities(types="qemu"), "kvm", None),
        (capabilities(machines="pc pc-i440fx-8.0"), "auto", MachineType("kvm", "x86_64", "pc")),
        (capabilities("aarch64", machines="virt"), "auto", MachineType("kvm", "aarch64", "virt")),
        (capabilities("s390x", machines="s390-ccw-virtio"), "auto", None),
    ],
)
def test_the_machine_is_what_the_host_offers(
    xml: str, asked: str, found: MachineType | None
) -> None:
    assert machine_types.offered(xml, asked) == found


@pytest.mark.parametrize(("values", "efi"), [("bios efi", True), ("bios", False), ("", False)])
def test_a_firmware_that_libvirt_finds_is_known(values: str, efi: bool) -> None:
    listed = "".join(f"<value>{one}</value>" for one in values.split())
    xml = f"<domainCapabilities><os><enum name='firmware'>{listed}</enum></os></domainCapabilities>"
    assert machine_types.finds_efi(xml) is efi
