"""
Define the facts that a host reports: about a base, the place of its clone, addresses.

Pure data. :mod:`.host_facts` and :mod:`.host` collect it; :mod:`.planner` and :mod:`.addresses`
decide by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from saltext.kvmclone.model import derived_files, libvirt_xml
from saltext.kvmclone.model.cloud_seed import Seed
from saltext.kvmclone.model.hints import Commands

QCOW2 = "qcow2"


RAW = "raw"


@dataclass(frozen=True)
class Header:
    """
    The facts that the first bytes of an image give.

    :param format: The format by its magic number: ``qcow2`` or another, otherwise ``raw``.
    :param capacity: Bytes that a guest sees; 0 for raw, where the size of the file counts.
    :param backing: Name of the backing file, as it is written; empty where there is none.
    :param backing_format: Format of that, empty where it is not written down.
    :param data_file: Name of the file that holds the data instead of this one; ``?`` where the
        header does not name it, empty where there is none.
    :param encrypted: Its contents are encrypted by QEMU.
    :param dirty: It was not closed properly.
    :param corrupt: QEMU found it to be damaged.
    :param snapshots: Number of internal snapshots.
    :param plain: Its bytes are the whole disk and nothing but the disk, so that copying
        them clones it.
    :param fault: Why the header cannot be believed; empty for a good one.
    """

    format: str = RAW
    capacity: int = 0
    backing: str = ""
    backing_format: str = ""
    data_file: str = ""
    encrypted: bool = False
    dirty: bool = False
    corrupt: bool = False
    snapshots: int = 0
    plain: bool = True
    fault: str = ""


@dataclass(frozen=True)
class ImageFacts:
    """
    One file or block device that a disk consists of. Sizes are bytes.

    :param path: As the definition, or the image above it, names it.
    :param kind: ``file`` or ``block``; otherwise what is wrong: ``missing``, ``folder``,
        ``special``, ``unreadable``, ``elsewhere`` (on the network), or ``unseen`` (in no pool of
        a remote host).
    :param real: The file that the path leads to, symbolic links followed; for a block
        device the path itself, since what its name leads to changes with every boot.
    :param header: What its first bytes say.
    :param size: Length of the file or device.
    :param allocation: What it occupies.
    :param modified: Time of its last change, seconds since the epoch; 0 where that means
        nothing.
    :param readable: We ourselves can read it, without libvirt.
    :param written: A running machine has it open for writing, as far as that can be seen.
    """

    path: str
    kind: str = "file"
    real: str = ""
    header: Header = Header()
    size: int = 0
    allocation: int = 0
    modified: float = 0.0
    readable: bool = True
    written: bool = False


@dataclass(frozen=True)
class SourceFacts:
    """
    The images that a disk of the base consists of.

    :param images: The image that the disk names, then its chain of backing files.
    :param data: Data files that some of those have.
    :param fault: What is wrong further down the chain; empty where nothing is.
    :param pool: The active pool that holds the first image; empty for none.
    :param asleep: A pool that is not started and would hold it; empty for none.
    :param unknown_pool: The pool that a disk of type ``volume`` names and that is not there.
    :param filesystem: The file system it lies on, see :class:`.filesystems.Filesystem`.
    :param copies_on_write: False for a file that btrfs overwrites in place.
    """

    images: tuple[ImageFacts, ...] = ()
    data: tuple[ImageFacts, ...] = ()
    fault: str = ""
    pool: str = ""
    asleep: str = ""
    unknown_pool: str = ""
    filesystem: str = ""
    copies_on_write: bool = True


@dataclass(frozen=True)
class PoolFacts:
    """
    A storage pool; ``available`` is bytes, ``path`` its folder.

    :param filesystem: The file system of its folder; empty where it cannot be told.
    :param capacity: Bytes in all.
    :param shares_blocks: Files of that file system can share blocks (reflink).
    :param copies_on_write: False where btrfs overwrites the folder's new files in place.
    """

    name: str
    type: str
    path: str
    active: bool
    available: int = 0
    filesystem: str = ""
    shares_blocks: bool = False
    copies_on_write: bool = True
    capacity: int = 0

    @property
    def is_folder(self) -> bool:
        """Return whether its volumes are the files in a folder, by their names."""
        return self.type in ("dir", "fs", "netfs", "vstorage")


@dataclass(frozen=True)
class SwitchFacts:
    """
    The abilities of an interface on a network or bridge; by default those on a Linux bridge.

    :param portgroups: The portgroups of the network.
    :param tags: VLAN tags of its own reach the switch.
    :param filters: Network filters.
    :param bandwidth: Limits of its bandwidth.
    """

    portgroups: tuple[str, ...] = ()
    tags: bool = False
    filters: bool = True
    bandwidth: bool = True


@dataclass(frozen=True)
class HostFacts:
    """
    The facts that a plan is made from: the base, and the place that the clone will take.

    :param base_xml: Inactive, secure definition of the base.
    :param base_state: libvirt's state of the base, ``shutoff`` for a usable one.
    :param base_saved: The base has a saved memory image.
    :param base_snapshots: Snapshots that libvirt knows of the base; asked only where a disk
        has a chain or internal snapshots.
    :param local: Files of the host can be read and written directly.
    :param commands: How the commands in reasons and warnings are typed where these are read.
    :param taken: A domain of the clone's name exists.
    :param sources: What the disks that may be cloned consist of, by target.
    :param pools: Pools by name: those of the sources and those asked for.
    :param existing: Files that already stand where the plan would put new ones.
    :param standing: Files in the folders where the clone's logs and sockets would be.
    :param missing: Media of shared disks that are not there.
    :param seeds: cloud-init's seeds on the base's disks, by target; ``unread`` are the targets of
        disks that could not be looked at.
    :param writes_seeds: A program that writes a seed is here; asked only where one is needed.
    :param networks: Networks that the profile names, and whether they are active; one that
        does not exist is missing.
    :param switches: What an interface on one of these networks can have.
    :param bridges: Bridges that the profile names: ``bridge``, ``missing``, or ``other`` for a
        device that is not a bridge; one that cannot be looked at from here is not listed.
    :param macs: MAC addresses of all domains with their names; asked only where the
        profile names one.
    :param users: Why nobody may delete one of the files in ``existing`` ("belongs to 'web'").
    :param nvram_size: Bytes of the base's variable store, 0 where it cannot be told.
    :param most_cpus: Processors that a machine of the base's kind can have; asked only where
        the profile wants a number of them, and 0 where it cannot be told.
    :param host_memory: Bytes of the host's memory; asked only where the profile wants an amount
        of it, otherwise 0.
    :param stores: Where the daemon makes a variable store that no definition names.
    :param left_behind: What an earlier machine of the clone's name left, which libvirt would take
        for the clone's.
    :param dhcp: The libvirt networks that may hand out the clone's address, by name; asked only
        where it has to come from one of them.
    """

    base_xml: str
    base_state: str = "shutoff"
    base_saved: bool = False
    base_snapshots: int = 0
    local: bool = True
    commands: Commands = Commands()
    taken: bool = False
    sources: Mapping[str, SourceFacts] = field(default_factory=dict)
    pools: Mapping[str, PoolFacts] = field(default_factory=dict)
    existing: frozenset[str] = frozenset()
    standing: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    seeds: Mapping[str, Seed] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()
    writes_seeds: bool = True
    networks: Mapping[str, bool] = field(default_factory=dict)
    switches: Mapping[str, SwitchFacts] = field(default_factory=dict)
    bridges: Mapping[str, str] = field(default_factory=dict)
    macs: Mapping[str, str] = field(default_factory=dict)
    nvram_size: int = 0
    most_cpus: int = 0
    host_memory: int = 0
    users: Mapping[str, str] = field(default_factory=dict)
    stores: str = derived_files.SYSTEM.stores
    left_behind: tuple[str, ...] = ()
    dhcp: Mapping[str, NetworkFacts] = field(default_factory=dict)

    @property
    def base_name(self) -> str:
        """Return the name of the base."""
        return libvirt_xml.shared(self.base_xml).findtext("name") or ""


@dataclass(frozen=True)
class Lease:
    """A DHCP lease of one of libvirt's networks; ``expires`` is seconds since the epoch."""

    mac: str
    address: str
    prefix: int
    family: str
    expires: float
    client_id: str


@dataclass(frozen=True)
class HostEntry:
    """A DHCP host entry of a network: that MAC address always gets that IP address."""

    mac: str
    address: str
    name: str = ""


@dataclass(frozen=True)
class Subnet:
    """
    One ``<ip>`` block of a network.

    :param index: Its place among the blocks of both families, as an update names it.
    :param gateway: The host's own address there, with the prefix: ``192.168.122.1/24``.
    :param dhcp: Addresses are handed out in it.
    :param ranges: First and last address of each range that is handed out freely.
    """

    index: int
    gateway: str
    dhcp: bool = False
    ranges: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class NetworkFacts:
    """
    A libvirt network, as choosing a fixed address needs it.

    :param forward: Its forward mode: ``nat``, ``route``, ``open``, ``bridge`` …; empty for an
        isolated one.
    :param bridge: The bridge of the host that its machines are on; empty for none.
    :param live: Host entries as it runs now; empty where it does not run.
    :param stored: Host entries that its next start will have; None where it has no next start.
    :param leases: The DHCP leases that it handed out.
    """

    name: str
    active: bool = True
    forward: str = ""
    subnets: tuple[Subnet, ...] = ()
    live: tuple[HostEntry, ...] = ()
    stored: tuple[HostEntry, ...] | None = ()
    leases: tuple[Lease, ...] = ()
    bridge: str = ""

    @property
    def serves(self) -> bool:
        """Return whether libvirt hands out addresses in it."""
        return any(subnet.dhcp for subnet in self.subnets)

    @property
    def entries(self) -> tuple[HostEntry, ...]:
        """Return every host entry, those of now and those after the network's next start."""
        return tuple(dict.fromkeys((*self.live, *(self.stored or ()))))


@dataclass(frozen=True)
class AgentInterface:
    """
    An interface as the guest agent lists it.

    :param name: What the guest calls it (``eth0``).
    :param mac: Lower case; empty where it has none.
    :param addresses: ``(address, prefix length, "ipv4" or "ipv6")`` each.
    """

    name: str
    mac: str
    addresses: tuple[tuple[str, int, str], ...]
