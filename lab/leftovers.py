"""Remove labs: one that ends, and what was left by one that crashed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from lab import libvirtd
from lab.common import LIBVIRT_URI, SCRATCH_ROOT, process_start, read_json, say
from lab.salt_processes import end_processes

#: The names of a lab's scratch folder, network and pool are this and four digits.
NAME = "kvmclone-"


@contextmanager
def connection() -> Iterator[libvirt.virConnect]:
    """Open a connection and close it again, without libvirt's habit of printing errors."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    conn = libvirt.open(LIBVIRT_URI)
    try:
        yield conn
    finally:
        conn.close()


def clean(everything: bool = False) -> list[str]:
    """Remove the labs whose process is gone, and return their names.

    :param everything: Also those that were kept.
    """
    gone = []
    for folder in sorted(SCRATCH_ROOT.glob(f"{NAME}*")):
        state = read_json(folder / "lab.json")
        if not state or _lives(state) or (state["kept"] and not everything):
            continue
        say(f"   removing the leftover lab {folder.name}")
        remove(folder)
        gone.append(folder.name)
    libvirtd.release(needed=_needed)
    return gone


def _lives(state: dict[str, Any]) -> bool:
    return bool(process_start(int(state["pid"])) == state["start"])


def _needed() -> bool:
    """Return whether a lab, running or kept, still needs the daemon."""
    states = (read_json(folder / "lab.json") for folder in SCRATCH_ROOT.glob(f"{NAME}*"))
    return any(state and (state["kept"] or _lives(state)) for state in states)


def remove(folder: Path) -> None:
    """Remove a lab: processes first, then what libvirt has of it, then its folder."""
    state = read_json(folder / "lab.json")
    if not state:
        return
    end_processes(folder.name, folder)
    libvirtd.ensure()  # it may have crashed, and what the lab defined would come back with it
    with connection() as conn:
        _remove_from_libvirt(conn, folder, set(state["domains"]))
    shutil.rmtree(folder, ignore_errors=True)
    libvirtd.release(needed=_needed)


def take_away(domain: libvirt.virDomain) -> None:
    """Switch a domain off at once and undefine it; it may be off, or gone, already."""
    flags = (
        libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    )
    with suppress(libvirt.libvirtError):
        domain.destroy()
    with suppress(libvirt.libvirtError):  # a transient one is gone once it is off
        domain.undefineFlags(flags)


def _remove_from_libvirt(conn: libvirt.virConnect, folder: Path, names: set[str]) -> None:
    for domain in conn.listAllDomains():
        # A name alone is not enough: it may belong to somebody else's domain by now.
        try:
            xml = domain.XMLDesc()
        except libvirt.libvirtError:  # another lab's, removed since it was listed
            continue
        if f"{folder}/" not in xml and f"'{folder.name}'" not in xml:
            if domain.name() in names:
                say(f"   leaving the domain {domain.name()} alone: it has nothing of this lab's")
            continue
        take_away(domain)
    for network in conn.listAllNetworks():
        if network.name() == folder.name:
            with suppress(libvirt.libvirtError):
                network.destroy()
            network.undefine()
    for pool in conn.listAllStoragePools():
        target = ElementTree.fromstring(pool.XMLDesc()).findtext("target/path") or ""
        if Path(target).is_relative_to(folder):
            with suppress(libvirt.libvirtError):
                pool.destroy()
            pool.undefine()
