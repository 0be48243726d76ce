"""
Find what libvirt keeps beside a definition under the machine's *name*, and deletes with it.

Saved memory and the metadata of snapshots and checkpoints are stored under a name alone. So a
machine that is defined, or renamed, inherits those of an earlier one of the same name: libvirt
starts it from that memory, or refuses to, and deletes it all with the definition. Reads only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from saltext.kvmclone.errors import CloneInUse, HostError
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.derived_files import METADATA, aside

#: A saved image begins with the machine's definition, the description of a snapshot holds it.
_HEAD = 2**20
_UUID = re.compile(rb"<uuid>\s*([0-9a-fA-F-]{36})\s*</uuid>")


def left_behind(host: Host, name: str) -> tuple[str, ...]:
    """
    Return the state files that an earlier machine left under a name that no domain has now.

    Over a remote url only a saved memory image can be seen.

    :return: Paths of files and folders.
    """
    memory = host.folders.saved_memory(name)
    found = [memory] if memory and _holder(host, memory) is not None else []
    for kind in METADATA:
        folder = host.folders.metadata(kind, name)
        found += [folder] if _listed(host, folder) else []
    if name in not_loaded(host, ()):
        found.append(os.path.join(host.folders.definitions, f"{name}.xml"))
    return tuple(found)


def not_loaded(host: Host, names: Collection[str]) -> list[str]:
    """
    Return the machines whose definitions libvirtd could not load when it was started, as where
    their emulator is not installed: it says nothing of them, and they are there again some day.

    :param names: Those that it knows.
    """
    files = (os.path.splitext(file) for file in _listed(host, host.folders.definitions))
    return [name for name, extension in files if extension == ".xml" and name not in names]


def require_own(host: Host, handle: DomainHandle) -> None:
    """
    Refuse to destroy a domain if libvirt would delete another machine's state files with it.

    :raises CloneInUse: Another machine left state files under this one's name.
    """
    memory = host.folders.saved_memory(handle.name)
    holder = _holder(host, memory) if memory else None
    foreign = [memory] if holder not in (None, handle.uuid) else []
    for kind, known in zip(METADATA, (handle.snapshots, handle.checkpoints), strict=True):
        folder = host.folders.metadata(kind, handle.name)
        if files := _listed(host, folder):
            own = {f"{one}.xml" for one in known()}
            for file in files:
                path = os.path.join(folder, file)
                # A libvirtd that is restarted takes whatever lies there for this machine's.
                if file not in own or _holder(host, path) not in (None, "", handle.uuid):
                    foreign.append(path)
    if foreign:
        raise CloneInUse(
            f"'{handle.name}' cannot be destroyed: libvirt would delete what another machine left "
            f"under that name: {', '.join(foreign)}. Nothing was touched.",
            "Move it aside, then repeat the command: "
            + handle.connection.commands.script(aside(foreign, handle.name)),
        )


def _holder(host: Host, path: str) -> str | None:
    """Return the uuid of the domain that a file tells of, "" if unknown; None for no file."""
    if not host.local:
        try:
            text = str(host.call(host.raw.saveImageGetXMLDesc, path, 0))
        except HostError:
            return None  # there is none, or libvirt cannot read it
        return (libvirt_xml.element(text).findtext("./uuid") or "").strip()
    try:
        with open(path, "rb") as image:
            head = image.read(_HEAD)
    except FileNotFoundError:
        return None
    except OSError:
        return ""
    # Read here, since libvirt refuses an unfinished image, as one after a crash.
    found = _UUID.search(head, max(head.find(b"<domain"), 0))
    return found[1].decode() if found else ""


def _listed(host: Host, folder: str) -> list[str]:
    if not folder or not host.local:
        return []
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
