"""How long a full clone takes, against the fastest plain copy of the same disk on that file system.

One run, in turns: ``cp``, ``qemu-img convert``, the copy that libvirt itself makes, ``virt-clone``,
and :meth:`LocalHost.clone`. Each but the plain copies makes a machine; the last has a whole plan, a
journal and all checks. The disk holds noise, with as much again that is empty, and is in the page
cache.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable

import libvirt

from bench.table import Table, in_turns, milliseconds
from lab.common import LIBVIRT_URI, run
from lab.lab import Lab, connection
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.request import Request

GOAL = 1.1

#: MiB that are written at once; qemu-io takes less than two GiB.
_PART = 1024

_VOLUME = (
    "<volume><name>{name}</name><capacity>{size}</capacity><target><format type='{form}'/>"
    "</target></volume>"
)


class Bench:
    """One base with a disk, and the ways to copy it.

    :param size: MiB of noise on its disk.
    :param form: Format of the disk.
    """

    def __init__(self, lab: Lab, size: int, form: str) -> None:
        self.lab = lab
        self.form = form
        self.bytes = 2 * size * 2**20
        self.base = lab.tiny_base(f"bench-{form}", form, size=f"{2 * size}M")
        self.source = lab.pool_path / f"{self.base}-0.{form}"
        noise = lab.folder / "noise"
        part = min(size, _PART)
        noise.write_bytes(os.urandom(part * 2**20))
        for start in range(0, size, part):
            length = min(part, size - start)
            words = f"write -s {noise} {start}M {length}M"
            run(["qemu-io", "-f", form, "-c", words, self.source])
        self.host = LocalHost(LIBVIRT_URI, label="bench")
        self.number = 0
        self.refresh()

    def refresh(self) -> None:
        with connection() as conn:
            conn.storagePoolLookupByName(self.lab.pool).refresh()

    def copy(self, *command: str) -> float:
        """Copy the disk by a command, remove the copy, and return the milliseconds.

        :param command: ``{source}`` and ``{target}`` are replaced.
        """
        target = self.lab.pool_path / "bench-copy"
        words = [word.format(source=self.source, target=target, form=self.form) for word in command]
        taken = milliseconds(lambda: run(words))
        target.unlink()
        return taken

    def libvirt(self) -> float:
        def work() -> None:
            with connection() as conn:
                pool = conn.storagePoolLookupByName(self.lab.pool)
                volume = conn.storageVolLookupByPath(str(self.source))
                text = _VOLUME.format(name="bench-copy", size=self.bytes, form=self.form)
                pool.createXMLFrom(text, volume)

        taken = milliseconds(work)
        with connection() as conn:
            pool = conn.storagePoolLookupByName(self.lab.pool)
            pool.storageVolLookupByName("bench-copy").delete()
        return taken

    def virt_clone(self) -> float:
        target = self.lab.pool_path / "bench-virt-clone"
        words = ["virt-clone", "--connect", LIBVIRT_URI, "--quiet", "--original", self.base]
        words += ["--name", "bench-virt-clone", "--file", str(target)]
        taken = milliseconds(lambda: run(words))
        with connection() as conn:
            conn.lookupByName("bench-virt-clone").undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        target.unlink()
        self.refresh()
        return taken

    def ours(self) -> float:
        self.number += 1
        request = Request(
            name=f"bench-full-{self.number}", base_domain=self.base, clone_strategy="full"
        )
        taken = milliseconds(lambda: self.host.clone(request))
        self.host.destroy(request.name)
        return taken

    def ways(self) -> dict[str, Callable[[], float]]:
        """Return the ways by what the table calls them; plain copies have their command."""
        commands = {
            "cp": ("cp", "{source}", "{target}"),
            "cp --sparse=always": ("cp", "--sparse=always", "{source}", "{target}"),
            "cp --reflink=auto --sparse=never": (
                *("cp", "--reflink=auto", "--sparse=never"),
                *("{source}", "{target}"),
            ),
            "qemu-img convert": (
                *("qemu-img", "convert", "-f", "{form}", "-O", "{form}"),
                *("{source}", "{target}"),
            ),
        }

        def copying(words: tuple[str, ...]) -> Callable[[], float]:
            return lambda: self.copy(*words)

        plain = {label: copying(words) for label, words in commands.items()}
        made = {"libvirt's createXMLFrom": self.libvirt}
        if shutil.which("virt-clone"):
            made["virt-clone"] = self.virt_clone
        return {**plain, **made, "this project": self.ours}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, default=512, help="MiB of data on the disk")
    parser.add_argument("--formats", nargs="+", default=["qcow2", "raw"])
    arguments = parser.parse_args()
    report = Table(
        f"Full clone of {arguments.size} MiB, median of {arguments.rounds} rounds in turns",
        *("disk", "way", "ms", "/ the fastest plain copy"),
    )
    with Lab() as lab:
        for form in arguments.formats:
            ways = Bench(lab, arguments.size, form).ways()
            times = dict(zip(ways, in_turns([*ways.values()], arguments.rounds), strict=True))
            plain = [way for way in times if way.split()[0] in ("cp", "qemu-img")]
            fastest = min(times[way] for way in plain)
            for way, taken in times.items():
                report.add(form, way, taken, f"{taken / fastest:.2f}")
            report.goal(f"A full clone of {form}", times["this project"] / fastest, GOAL)
    return report.show()


if __name__ == "__main__":
    raise SystemExit(main())
