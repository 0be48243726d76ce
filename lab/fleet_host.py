"""What is done in a host of a fleet: ``python -m lab.fleet_host prepare | base | debian NAME``."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from lab import image, libvirtd
from lab.common import run
from lab.domain import CMDLINE, OVMF_VARS, ROOT_CMDLINE, Disk, Machine
from lab.leftovers import connection

#: Network and pool of every host; those that libvirt's own documentation has.
NETWORK = POOL = "default"
IMAGES = Path("/var/lib/libvirt/images")
BOOT = image.Boot(Path("/var/lib/libvirt/boot/vmlinuz"), Path("/var/lib/libvirt/boot/initrd"))
STORES = Path("/var/lib/libvirt/qemu/nvram")

_NETWORK = f"""<network><name>{NETWORK}</name><bridge name='virbr0' stp='off' delay='0'/>
<forward mode='nat'/><ip address='192.168.122.1' prefix='24'><dhcp>
<range start='192.168.122.20' end='192.168.122.250'/></dhcp></ip></network>"""
_POOL = f"<pool type='dir'><name>{POOL}</name><target><path>{IMAGES}</path></target></pool>"


def prepare() -> None:
    """Start libvirtd, and define network and pool; a host that was switched on has them already."""
    libvirtd.ensure()
    boot = image.boot_files()
    for source, target in ((boot.kernel, BOOT.kernel), (boot.initrd, BOOT.initrd)):
        target.parent.mkdir(exist_ok=True)
        shutil.copy(source, target)
    with connection() as conn:
        if not conn.listAllNetworks():
            conn.networkDefineXML(_NETWORK)
            conn.storagePoolDefineXML(_POOL)
        for one in [*conn.listAllNetworks(), *conn.listAllStoragePools()]:
            one.setAutostart(True)
            if not one.isActive():
                one.create()


def tiny_base(
    name: str,
    fmt: str = "qcow2",
    size: str = "64M",
    data: str = "0",
    chain: str = "",
    uefi: str = "",
) -> None:
    """Define a machine that is up within seconds, with one disk.

    :param size: Of the disk, for qemu-img.
    :param data: MiB of noise on the disk.
    :param chain: Not empty: the disk is an overlay over that.
    :param uefi: Not empty: it has a variable store.
    """
    IMAGES.mkdir(exist_ok=True)
    disk = IMAGES / f"{name}.{fmt}"
    below = IMAGES / f"{name}-below.{fmt}" if chain else disk
    image.make_disk(below, fmt, size)
    noise = Path("/tmp/noise")
    noise.write_bytes(os.urandom(2**20 * int(data)))
    if int(data):
        run(["qemu-io", "-f", fmt, "-c", f"write -s {noise} 4M {data}M", below])
    if chain:
        image.make_disk(disk, fmt, size, below)
        run(["qemu-io", "-f", fmt, "-c", "write -P 7 1M 1M", disk])
    nvram = STORES / f"{name}.fd" if uefi else None
    if nvram:
        shutil.copy(OVMF_VARS, nvram)
    _define(name, Disk(disk, fmt), CMDLINE, 256 if uefi else 128, nvram=nvram)


def debian_base(name: str) -> None:
    """Define a Debian machine with a guest agent and an idle Salt minion."""
    disk = IMAGES / f"{name}.qcow2"
    image.copy_sparse(image.debian(), disk)
    _define(name, Disk(disk, "qcow2"), f"{CMDLINE} {ROOT_CMDLINE}", 512, agent=True)


def _define(name: str, disk: Disk, cmdline: str, memory_mib: int, **more: Any) -> None:
    kind = libvirtd.domain_type(image.boot_files().kernel, image.boot_files().initrd)
    console = Path(f"/var/log/libvirt/qemu/{name}-console.log")
    machine = Machine(name, kind, BOOT, NETWORK, [disk], cmdline, memory_mib, console, **more)
    with connection() as conn:
        conn.defineXML(machine.xml())


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare()
    elif sys.argv[1] == "debian":
        debian_base(sys.argv[2])
    else:
        tiny_base(sys.argv[2], **dict(word.split("=", 1) for word in sys.argv[3:]))
