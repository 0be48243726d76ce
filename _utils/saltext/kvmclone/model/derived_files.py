"""
Name the files that libvirt derives from a domain's name or uuid, whatever its definition says.

Pure. Variable store, saved memory, TPM state, snapshot metadata and log of a domain lie where
libvirt puts them, and mostly no definition names them: the store of a ``firmware='efi'`` domain
stands in its description only while it runs. So each such path belongs to the domain whose name
or uuid leads to it, off or running.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

#: File names of a variable store that libvirt chooses: by format, and by kind of firmware.
_STORES = ("{}_VARS.fd", "{}_VARS.qcow2", "{}_VARS.raw", "{}_VARS.json", "{}.json")

#: Stands for a name in a path; no path holds it.
_NAME = "\0"

#: Folders in which libvirt keeps a folder with metadata for each domain.
METADATA = ("snapshot", "checkpoint")

#: Name of libvirt's folder of variable stores, wherever it is.
_STORE_FOLDER = "nvram"


@dataclass(frozen=True)
class Folders:
    """
    The folders of a libvirt daemon for files of its domains; empty where that cannot be told.

    :param state: Holds ``nvram``, ``save``, ``snapshot``, ``checkpoint`` and more.
    :param tpm: Holds the state of emulated TPMs, by uuid.
    :param logs: Holds QEMU's log of each domain.
    :param definitions: Holds the definition of each domain, ``NAME.xml``.
    """

    state: str = ""
    tpm: str = ""
    logs: str = ""
    definitions: str = ""

    @property
    def stores(self) -> str:
        """Return the folder of the variable stores that libvirt places itself; empty if unknown."""
        return self.state and os.path.join(self.state, _STORE_FOLDER)

    def saved_memory(self, name: str) -> str:
        """Return the file of a domain's managed save; empty where the folder is not known."""
        return self.state and os.path.join(self.state, "save", f"{name}.save")

    def metadata(self, kind: str, name: str) -> str:
        """
        Return the folder of a domain's snapshots or checkpoints; empty where it is not known.

        :param kind: One of :data:`METADATA`.
        """
        return self.state and os.path.join(self.state, kind, name)


#: The folders of the system daemon (``qemu:///system``).
SYSTEM = Folders(
    "/var/lib/libvirt/qemu",
    "/var/lib/libvirt/swtpm",
    "/var/log/libvirt/qemu",
    "/etc/libvirt/qemu",
)


def folders(url: str, user_id: int, configuration: str, cache: str) -> Folders:
    """
    Return the folders of the daemon at a libvirt URI.

    :param user_id: Of this process; root has no daemon of its own, its session is the system's.
    :param configuration: The user's configuration folder (``~/.config``).
    :param cache: The user's cache folder (``~/.cache``).
    :return: With empty paths where they cannot be known from here.
    """
    parts = urlsplit(url)
    if parts.scheme.partition("+")[0] != "qemu":
        return Folders()
    options = parse_qs(parts.query)
    if parts.path == "/embed":
        root = options.get("root", [""])[0]
        return Folders(f"{root}/lib/qemu", f"{root}/lib/swtpm", f"{root}/log/qemu")
    if parts.path != "/session":
        return SYSTEM
    if parts.netloc or "socket" in options:  # the home of another user, perhaps on another host
        return SYSTEM if parts.username == "root" else Folders()
    if user_id == 0:
        return SYSTEM
    state = os.path.join(configuration, "libvirt/qemu")
    logs = os.path.join(cache, "libvirt/qemu/log")
    return Folders(state, os.path.join(state, "swtpm"), logs)


def store(name: str, folder: str, form: str = "") -> str:
    """
    Return the path of the variable store that libvirt chooses; empty where ``folder`` is.

    :param name: Name of the domain.
    :param folder: The daemon's folder of variable stores.
    :param form: The store's format, where the definition names one.
    """
    extension = "qcow2" if form == "qcow2" else "fd"
    return folder and os.path.join(folder, f"{name}_VARS.{extension}")


@dataclass
class Machines:
    """
    The names and variable stores of a host's domains, as far as they are known.

    :ivar names: Every name that a domain has, or had in its snapshots and saved images, by uuid.
    :ivar stores: Every variable store that a definition or a record names. libvirt's folder may
        be called otherwise than expected: a link, another prefix, the home of an unknown user.
    """

    names: dict[str, dict[str, None]] = field(default_factory=dict)
    stores: set[str] = field(default_factory=set)

    def add(self, uuid: str, names: Iterable[str], stores: Iterable[str]) -> None:
        """Note one description of a domain; the first name is the present one."""
        self.names.setdefault(uuid, {}).update(dict.fromkeys(names))
        self.stores.update(stores)

    def derive(self, known: Folders) -> Iterator[tuple[str, str, str]]:
        """
        Yield uuid, present name and path of every file that libvirt derives.

        :param known: The daemon's folders.
        """
        stores = [os.path.dirname(path) for path in sorted(self.stores)]
        stores = [folder for folder in stores if os.path.basename(folder) == _STORE_FOLDER]
        stores = list(dict.fromkeys([*filter(None, [known.stores]), *stores]))
        spellings = [path.split(_NAME) for path in _derived_from(_NAME, known, stores)]
        for uuid, names in self.names.items():
            present = next(iter(names))
            if known.tpm:
                yield uuid, present, os.path.join(known.tpm, uuid)
            yield from (
                (uuid, present, f"{before}{name}{after}")
                for name in names
                for before, after in spellings
            )


def _derived_from(name: str, known: Folders, stores: Iterable[str]) -> Iterator[str]:
    for folder in stores:
        yield from (os.path.join(folder, spelling.format(name)) for spelling in _STORES)
    if known.state:
        yield known.saved_memory(name)
        yield from (known.metadata(kind, name) for kind in METADATA)
    if known.logs:
        yield from (os.path.join(known.logs, f"{name}{end}.log") for end in ("", "-swtpm"))


def aside(paths: Sequence[str], name: str) -> str:
    """
    Return the shell command that moves away what another domain of the same name left.

    :param paths: What it left: files or folders below the daemon's state folder.
    :param name: The name.
    """
    state = paths[0]
    while os.path.basename(state) not in (*METADATA, "save") and state != os.path.dirname(state):
        state = os.path.dirname(state)
    if state == os.path.dirname(state):
        state = paths[0]  # a definition, which lies in no such folder
    folder = os.path.join(os.path.dirname(state), f"left-by-another-{name}")
    return f"{shlex.join(['mkdir', '-p', folder])} && {shlex.join(['mv', *paths, folder])}"
