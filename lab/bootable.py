"""A cloud image as vendors publish them, made by the lab: it boots by itself, and has no agent.

It is the lab's Debian with cloud-init, in a partition, with a boot loader and the lab's kernel
before it. Beside it lies the package of the guest agent, for guests that reach no mirror.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from lab import image
from lab.common import run, step, write

#: What starts the boot loader of the partition, 440 bytes.
MBR = Path("/usr/lib/EXTLINUX/mbr.bin")

#: The guest measures its clock as any would: the image may boot on another machine.
CMDLINE = (
    "console=ttyS0 quiet net.ifnames=0 nokaslr mitigations=off audit=0 random.trust_cpu=on panic=5 "
    "lab.root root=/dev/vda1 rw fsck.mode=skip systemd.show_status=0"
)
_MIB = 2**20


@dataclass(frozen=True)
class Bootable:
    """A cloud image (qcow2), and a folder with what its guest is to install."""

    disk: Path
    packages: Path


def bootable() -> Bootable:
    """Return the image, built now if it is not there."""
    plain, boot = image.cloud(), image.boot_files()
    folder = image.cached(
        "bootable",
        [],
        repr((plain.parent.name, boot.kernel.parent.name, CMDLINE)),
        lambda result: _build(plain, boot, result),
    )
    return Bootable(folder / "disk.qcow2", folder / "packages")


def _build(plain: Path, boot: image.Boot, result: Path) -> None:
    work = result.parent
    (result / "packages").mkdir()
    run(["apt-get", "download", "qemu-guest-agent"], cwd=result / "packages")
    raw, system, whole = work / "plain.raw", work / "system.raw", work / "whole.raw"
    with step("  putting a boot loader and a kernel into it"):
        run(["qemu-img", "convert", "-O", "raw", plain, raw])
        image.changed(raw, system, "raw", lambda root: _make_bootable(boot, root, work))
    with step("  making the disk, with a partition"):
        size = system.stat().st_size
        with whole.open("wb") as file:
            file.truncate(size + 2 * _MIB)
        run(["dd", f"if={system}", f"of={whole}", "bs=1M", "seek=1", "conv=notrunc,sparse"])
        table = work / "table"
        write(table, f"label: dos\nstart=2048, size={size // 512}, type=83, bootable\n")
        run(["sh", "-c", f"sfdisk --quiet --wipe never {whole} <{table}"])
        with whole.open("r+b") as file:
            file.write(MBR.read_bytes()[:440])
        run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", whole, result / "disk.qcow2"])


def _make_bootable(boot: image.Boot, root: Path, work: Path) -> None:
    run(["chroot", root, "dpkg", "--purge", "qemu-guest-agent"])
    loader = root / "boot/extlinux"
    loader.mkdir(parents=True)
    shutil.copy(boot.kernel, root / "boot/vmlinuz")
    # A second archive behind the first: of two files of one name the later one counts.
    init = (image.RECIPES / "init").read_text(encoding="utf-8").replace("/dev/vda", "/dev/vda1")
    write(work / "over/init", init)
    (work / "over/init").chmod(0o755)
    archive = work / "over.cpio"
    run(["sh", "-c", f"echo init | cpio --create --format=newc --quiet --owner=0:0 >{archive}"],
        cwd=work / "over")  # fmt: skip
    (root / "boot/initrd").write_bytes(boot.initrd.read_bytes() + archive.read_bytes())
    write(
        loader / "extlinux.conf",
        f"DEFAULT linux\nLABEL linux\n LINUX /boot/vmlinuz\n INITRD /boot/initrd\n"
        f" APPEND {CMDLINE}\n",
    )
    run(["extlinux", "--install", loader])
