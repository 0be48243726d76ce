"""Machines that boot firmware and nothing else, which is all that makes a variable store."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import libvirt

from lab.lab import connection
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.derived_files import SYSTEM
from tests.support.world import World

STATE, TPM = Path(SYSTEM.state), Path(SYSTEM.tpm)
STORES = STATE / "nvram"

EFI = " firmware='efi'"


def everything() -> dict[str, str]:
    """
    Every file in libvirt's own folders: which inode, and what is in it. Left out is what a machine
    has there while it runs.
    """
    return {
        str(path): f"{path.stat().st_ino} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for folder in (STATE, TPM)
        for path in folder.rglob("*")
        if path.is_file() and f"{STATE}/domain-" not in str(path)
    }


def boot(name: str) -> None:
    """Start and stop a machine: libvirt makes its variable store."""
    with connection() as conn:
        domain = conn.lookupByName(name)
        domain.create()
        domain.destroy()


def store(world: World, name: str) -> Path:
    """The variable store that a machine's definition names."""
    return Path(world.xml(name).findtext("./os/nvram") or "")


def is_now(name: str, path: Path | None) -> None:
    """Let a definition name another store, or leave the choice to libvirt."""
    with connection() as conn:
        domain = conn.lookupByName(name)
        root = ElementTree.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        system = root.find("os")
        assert system is not None
        for element in system.findall("nvram"):
            system.remove(element)
        if path is not None:
            ElementTree.SubElement(system, "nvram").text = str(path)
        conn.defineXML(ElementTree.tostring(root, encoding="unicode"))


def as_made_before(world: World, name: str, **changes: object) -> Path:
    """Turn a clone into one of the version before: its store lies where libvirt chooses it."""
    new, old = store(world, name), STORES / f"{name}_VARS.fd"
    if new.exists():
        new.rename(old)
    is_now(name, old)
    with Host("qemu:///system") as host:
        handle = host.domain(name)
        record = handle.record()
        assert record is not None
        volumes = tuple(
            replace(one, path=str(old), inode="") if one.target == "nvram" else one
            for one in record.volumes
        )
        handle.save_record(replace(record, volumes=volumes, **changes))
    return old
