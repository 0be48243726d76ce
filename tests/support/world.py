"""What the tests here work with: a corner of the lab of their own, requests, and Salt's loader."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import libvirt
import salt.config

from lab.common import CHECKOUT
from lab.lab import Lab, connection
from lab.leftovers import take_away
from saltext.kvmclone.model.record import Record
from saltext.kvmclone.model.record_xml import NAMESPACE, from_xml
from saltext.kvmclone.model.request import Request

T = TypeVar("T")

#: The fixture ``clone_of``.
CloneOf = Callable[..., str]


@dataclass
class World:
    """What a test asks of the lab: names that are its own, bases, and looking behind libvirt."""

    lab: Lab
    token: str
    names: list[str] = field(default_factory=list)

    def name(self, word: str = "clone") -> str:
        """A name that no other test uses."""
        made = f"{word}-{self.token}"
        assert made not in self.names, "ask for each name once"
        self.names.append(made)
        return made

    def base(self, word: str = "base", **keys: Any) -> str:
        """A tiny machine, shut off (see :meth:`lab.lab.Lab.tiny_base`)."""
        return self.lab.tiny_base(self.name(word), **keys)

    def filled(self, base: str, index: int = 0, mebibytes: int = 2) -> Path:
        """Put random data into a raw disk of a base, at its front and in its middle."""
        disk = self.disks(base)[index]
        half = disk.stat().st_size // 2
        with disk.open("r+b") as file:
            file.write(os.urandom(mebibytes * 2**19))
            file.seek(half)
            file.write(os.urandom(mebibytes * 2**19))
        self.refresh()
        return disk

    def xml(self, name: str, live: bool = False) -> ElementTree.Element:
        """The domain's definition, or how it runs."""
        flags = 0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE
        with connection() as conn:
            return ElementTree.fromstring(conn.lookupByName(name).XMLDesc(flags))

    def disks(self, name: str) -> list[Path]:
        """The files of a domain's disks, cdroms left out."""
        return [
            Path(source.attrib["file"])
            for source in self.xml(name).findall("./devices/disk[@device='disk']/source")
        ]

    def state(self, name: str) -> str:
        with connection() as conn:
            active = conn.lookupByName(name).isActive()
        return "running" if active else "shutoff"

    def secure_xml(self, name: str) -> str:
        with connection() as conn:
            return str(conn.lookupByName(name).XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))

    def autostart(self, name: str) -> bool:
        with connection() as conn:
            return bool(conn.lookupByName(name).autostart())

    def record(self, name: str) -> Record | None:
        """The clone's own record, read past the code under test's connection."""
        with connection() as conn:
            raw = conn.lookupByName(name)
            xml = raw.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
            return from_xml(xml, raw.UUIDString())

    def exists(self, name: str) -> bool:
        with connection() as conn:
            return name in [domain.name() for domain in conn.listAllDomains()]

    def footprint(self) -> tuple[list[str], list[str]]:
        """Every domain and every file of this test: equal before and after means untouched."""
        with connection() as conn:
            domains = sorted(
                f"{domain.name()} {domain.isActive()} {domain.XMLDesc()}"
                for domain in conn.listAllDomains()
                if self.token in domain.name()
            )
        files = sorted(
            f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}"
            for path in self.lab.folder.rglob(f"*{self.token}*")
            if "console" not in path.parts
        )
        return domains, files

    def overlay(self, backing: Path, path: Path) -> None:
        """An overlay made by hand, behind libvirt's back."""
        words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing, path]
        subprocess.run(words, check=True)

    def copy_of(self, name: str) -> str:
        """What virt-clone does with a shared disk: name and uuid new, metadata and disk kept."""
        xml = self.xml(name)
        made = self.name("copy")
        for tag, value in (("name", made), ("uuid", str(uuid.uuid4()))):
            element = xml.find(tag)
            assert element is not None
            element.text = value
        for interface in xml.findall("./devices/interface"):
            mac = interface.find("mac")
            assert mac is not None
            interface.remove(mac)
        return self.lab.define(ElementTree.tostring(xml, encoding="unicode"))

    def attach(self, name: str, path: Path, target: str) -> None:
        """Give a machine that is off one disk more, by hand."""
        with connection() as conn:
            conn.lookupByName(name).attachDeviceFlags(
                f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
                f"<source file='{path}'/><target dev='{target}' bus='virtio'/></disk>",
                libvirt.VIR_DOMAIN_AFFECT_CONFIG,
            )

    def detach(self, name: str, target: str) -> None:
        """Take a disk out of a machine that is off, by hand."""
        disk = self.xml(name).find(f"./devices/disk/target[@dev='{target}']/..")
        assert disk is not None
        with connection() as conn:
            conn.lookupByName(name).detachDeviceFlags(
                ElementTree.tostring(disk, encoding="unicode"), libvirt.VIR_DOMAIN_AFFECT_CONFIG
            )

    def refresh(self) -> None:
        """Let libvirt look at the pool's folder again."""
        with connection() as conn:
            conn.storagePoolLookupByName(self.lab.pool).refresh()

    def tidy(self) -> None:
        """Remove every domain and file of this test."""
        with connection() as conn:
            for domain in conn.listAllDomains():
                if self.token in domain.name():
                    take_away(domain)
        for path in self.lab.folder.rglob(f"*{self.token}*"):
            if path.is_file():
                path.unlink()
        self.refresh()


def quick(name: str, base: str, **keys: Any) -> Request:
    """A request for a quick clone, unless said otherwise."""
    return Request(**{"name": name, "base_domain": base, "clone_strategy": "quick", **keys})


def full(name: str, base: str, **keys: Any) -> Request:
    """A request for a full clone."""
    return quick(name, base, clone_strategy="full", **keys)


def image_info(path: Path | str) -> dict[str, Any]:
    """What ``qemu-img`` says about an image, whoever has it open."""
    words = ["qemu-img", "info", "-U", "--output=json", str(path)]
    return dict(json.loads(subprocess.run(words, check=True, capture_output=True).stdout))


def same_content(one: Path | str, other: Path | str) -> bool:
    """Whether a guest would read the same bytes from two images."""
    return subprocess.run(["qemu-img", "compare", "-q", one, other], check=False).returncode == 0


def sha256(path: Path | str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def occupied(path: Path | str) -> int:
    """Bytes that a file takes on its disk, holes left out."""
    return Path(path).stat().st_blocks * 512


# --- through Salt's own loader ------------------------------------------------------------------


@dataclass(frozen=True)
class Salt:
    """The functions and states of a minion ``kvm01``, as Salt's loader gives them."""

    opts: dict[str, Any]
    functions: Any
    states: Any

    def __call__(self, function: str, *arguments: Any, **keys: Any) -> Any:
        return self.functions[function](*arguments, **keys)

    def state(self, function: str, *arguments: Any, **keys: Any) -> dict[str, Any]:
        """One state, and what every state must hold to."""
        answer = self.states[function](*arguments, **keys)
        assert set(answer) == {"name", "result", "comment", "changes"}
        assert isinstance(answer["comment"], str)
        return dict(answer)


def minion_opts(folder: Path) -> dict[str, Any]:
    """A masterless minion's opts, everything it writes below ``folder``."""
    path = folder / "minion"
    path.write_text(json.dumps(minion_config(folder)))
    opts: dict[str, Any] = salt.config.minion_config(str(path))
    # The loader would otherwise run every grain of this machine, for each test.
    opts["grains"] = {"os": "Debian", "os_family": "Debian", "kernel": "Linux"}
    return opts


def minion_config(folder: Path) -> dict[str, Any]:
    """A masterless minion's configuration file, for the loader and for ``salt-call``."""
    return {
        "id": "kvm01",
        "file_client": "local",
        "root_dir": str(folder),
        "conf_file": str(folder / "minion"),
        "pki_dir": str(folder / "pki"),
        "cachedir": str(folder / "cache"),
        "log_file": str(folder / "log"),
        "module_dirs": [str(CHECKOUT)],
        "user": "root",
    }


def at_once(*runs: Callable[[], T]) -> list[T]:
    """Everything at the same moment, each in a thread of its own; what each came to, in order."""
    gate = threading.Barrier(len(runs))

    def one(run: Callable[[], T]) -> T:
        gate.wait()
        return run()

    with ThreadPoolExecutor(len(runs)) as pool:
        return list(pool.map(one, runs))
