"""Places on the host for a test: loop devices, file systems and storage pools; all go again."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import libvirt

from lab.common import run
from lab.lab import connection

MIB = 2**20


@contextmanager
def loop_device(image: Path) -> Iterator[str]:
    """A block device over a file."""
    device = run(["losetup", "--find", "--show", image]).strip()
    try:
        yield device
    finally:
        run(["losetup", "--detach", device])


@contextmanager
def file_system(folder: Path, kind: str, *options: str, size: int = 320 * MIB) -> Iterator[Path]:
    """A file system of its own under ``folder/kind``, in a file."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder.with_suffix(f".{kind}.img")
    with image.open("wb") as file:
        file.truncate(size)
    try:
        run([f"mkfs.{kind}", "-q", *options, image])
        run(["mount", "-o", "loop", image, folder])
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            _unmount(folder)
    finally:
        image.unlink()
        folder.rmdir()


def _unmount(folder: Path) -> None:
    for _attempt in range(20):
        if subprocess.run(["umount", folder], check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.25)
    run(["umount", "--lazy", folder])


@contextmanager
def storage_pool(name: str, folder: Path, active: bool = True) -> Iterator[str]:
    """A directory pool; whatever lies in it when the test is over is deleted."""
    folder.mkdir(parents=True, exist_ok=True)
    with connection() as conn:
        pool = conn.storagePoolDefineXML(
            f"<pool type='dir'><name>{name}</name><target><path>{folder}</path></target></pool>"
        )
        if active:
            pool.create()
    try:
        yield name
    finally:
        with connection() as conn, suppress(libvirt.libvirtError):
            pool = conn.storagePoolLookupByName(name)
            with suppress(libvirt.libvirtError):
                pool.destroy()
            pool.undefine()
        for path in folder.iterdir():
            path.unlink()
