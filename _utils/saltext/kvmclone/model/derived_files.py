"""
The files that libvirt derives from a machine's name or uuid, whatever its definition says.

Pure. Variable store, saved memory, TPM state, snapshot metadata and log of a machine lie where
libvirt puts them, and mostly no definition names them: the store of a ``firmware='efi'`` machine
stands in its description only while it runs. So each such path belongs to the machine whose name
or uuid leads to it, off or running.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

#: How a variable store is called that libvirt chooses: by format, and by kind of firmware.
_STORES = ("{}_VARS.fd", "{}_VARS.qcow2", "{}_VARS.raw", "{}_VARS.json", "{}.json")

#: Folders with a folder for each machine, and what libvirt remembers of it in there.
METADATA = ("snapshot", "checkpoint")

#: What libvirt calls the folder of its variable stores, wherever it is.
_STORE_FOLDER = "nvram"


@dataclass(frozen=True)
class Folders:
    """
    Where a daemon keeps what it makes for its machines; empty where that cannot be told.

    :param state: Holds ``nvram``, ``save``, ``snapshot``, ``checkpoint`` and more.
    :param tpm: Holds the state of emulated TPMs, by uuid.
    :param logs: Holds QEMU's log of each machine.
    :param definitions: Holds the definition of each machine, ``NAME.xml``.
    """

    state: str = ""
    tpm: str = ""
    logs: str = ""
    definitions: str = ""

    @property
    def stores(self) -> str:
        """The folder of the variable stores that libvirt chooses a place for."""
        return self.state and os.path.join(self.state, _STORE_FOLDER)

    def saved_memory(self, name: str) -> str:
        """The file of a machine's managed save; empty where the folder is not known."""
        return self.state and os.path.join(self.state, "save", f"{name}.save")

    def metadata(self, kind: str, name: str) -> str:
        """The folder of a machine's snapshots or checkpoints; empty likewise."""
        return self.state and os.path.join(self.state, kind, name)


#: Those of the daemon for the whole machine (``qemu:///system``).
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
    if parts.netloc or "socket" in options:  # the home of another user, perhaps far away
        return SYSTEM if parts.username == "root" else Folders()
    if user_id == 0:
        return SYSTEM
    state = os.path.join(configuration, "libvirt/qemu")
    logs = os.path.join(cache, "libvirt/qemu/log")
    return Folders(state, os.path.join(state, "swtpm"), logs)


def store(name: str, folder: str, form: str = "") -> str:
    """
    Return the variable store that libvirt chooses for a machine; empty where the folder is.

    :param form: The store's format, where the definition names one.
    """
    extension = "qcow2" if form == "qcow2" else "fd"
    return folder and os.path.join(folder, f"{name}_VARS.{extension}")


@dataclass
class Machines:
    """
    What is known of a host's machines.

    :ivar names: What each is called, and was called in its snapshots and saved images, by uuid.
    :ivar stores: Every variable store that a definition or a record names. libvirt's folder may
        be called otherwise than expected: a link, another prefix, the home of an unknown user.
    """

    names: dict[str, dict[str, None]] = field(default_factory=dict)
    stores: set[str] = field(default_factory=set)

    def add(self, uuid: str, names: Iterable[str], stores: Iterable[str]) -> None:
        """Note one description of a machine; the first name is the present one."""
        self.names.setdefault(uuid, {}).update(dict.fromkeys(names))
        self.stores.update(stores)

    def derive(self, known: Folders) -> Iterator[tuple[str, str, str]]:
        """Yield uuid, present name and path of every file that libvirt derives."""
        stores = [os.path.dirname(path) for path in sorted(self.stores)]
        stores = [folder for folder in stores if os.path.basename(folder) == _STORE_FOLDER]
        stores = list(dict.fromkeys([*filter(None, [known.stores]), *stores]))
        for uuid, names in self.names.items():
            paths = [os.path.join(known.tpm, uuid)] * bool(known.tpm)
            for name in names:
                paths += _derived_from(name, known, stores)
            yield from ((uuid, next(iter(names)), path) for path in paths)


def _derived_from(name: str, known: Folders, stores: Iterable[str]) -> Iterator[str]:
    for folder in stores:
        yield from (os.path.join(folder, spelling.format(name)) for spelling in _STORES)
    if known.state:
        yield known.saved_memory(name)
        yield from (known.metadata(kind, name) for kind in METADATA)
    if known.logs:
        yield from (os.path.join(known.logs, f"{name}{end}.log") for end in ("", "-swtpm"))


def aside(paths: Sequence[str], name: str) -> str:
    """Return the command that takes what another machine left out of the way of one called so."""
    state = paths[0]
    while os.path.basename(state) not in (*METADATA, "save") and state != os.path.dirname(state):
        state = os.path.dirname(state)
    if state == os.path.dirname(state):
        state = paths[0]  # a definition, which lies in no such folder
    folder = os.path.join(os.path.dirname(state), f"left-by-another-{name}")
    return f"{shlex.join(['mkdir', '-p', folder])} && {shlex.join(['mv', *paths, folder])}"
