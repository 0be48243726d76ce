"""
Define the record that a clone carries in its own ``<metadata>``.

Pure. The record is the journal of a clone and the proof of what belongs to it: it is written
into the definition *before* anything else exists and lists every file that is about to be made.
A volume is deleted only if a record lists it, and a record counts only in the domain whose uuid
it names, since other tools copy foreign metadata into their copies.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace

from saltext.kvmclone.model.facts import HostEntry
from saltext.kvmclone.model.request import AddressPick
from saltext.kvmclone.model.spares import Claim


@dataclass(frozen=True)
class Reservation:
    """
    One DHCP host entry, made for a clone and deleted with it.

    :param network: The libvirt network that holds it.
    :param mac: MAC address of the clone's interface; since that is the clone's, so is the entry.
    :param address: IPv4 address that the interface always gets.
    :param name: Host name that the network's DNS gives the address; empty for none.
    """

    network: str
    mac: str
    address: str
    name: str = ""

    @property
    def entry(self) -> HostEntry:
        return HostEntry(self.mac, self.address, self.name)


#: Namespace of the mark on a protected base; see :mod:`.protect`.
BASE_NAMESPACE = "urn:saltext:kvmclone:base:1"

STAGES = ("planned", "cloned", "booted", "addressed", "enrolled", "ready")
DESTROYING = "destroying"

#: What a machine may become that is not to stay a clone: a base, or the saved memory of one.
BASE, WARM = "base", "warm"

#: Target of the volume that holds what was downloaded to make a base.
DOWNLOAD = "download"

#: Target of the volume that holds the saved memory of a warmed base; of a fork, that from which it
#: is restored, while that is there.
MEMORY = "memory"

#: The strategy of a fork: a clone that goes on from the saved memory of a warmed base.
INSTANT = "instant"

#: How a minion showed which machine it is: by the word that a fork was given over its agent, by the
#: domain's uuid, or by its key alone.
BY_WORD, BY_UUID, BY_KEY = "word", "uuid", "key"

#: Whether a worker still runs, see :func:`.processes.owner_state`.
ALIVE, DEAD, ELSEWHERE = "alive", "dead", "elsewhere"

#: The states of a volume. Before the call that makes it, it is marked as being made.
WANTED, MAKING, MADE = "wanted", "making", "made"

#: What a snapshot can be called; it becomes part of file names.
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")

#: How an overlay was made that stands on what a snapshot froze.
SNAPSHOT = "snapshot"

#: The states of a machine in which a snapshot is taken: off, or its file systems frozen.
OFF, FROZEN = "shutoff", "frozen"

#: ``NAME-UUID1.EXT``, as Salt's own driver named volumes; the uuid is of version 1, made from a
#: clock. Records of adopted clones list such files.
DRIVER_NAMED = re.compile(
    r"(?P<stem>.+)-(?P<uuid>[0-9a-f]{8}-[0-9a-f]{4}-1[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})"
    r"(?P<extension>\.[^.]+)?"
)


@dataclass(frozen=True)
class BaseDisk:
    """
    The state of a base's file when the clone was made.

    :param target: Target of the disk that it belongs to (``vda``).
    :param path: The file.
    :param size: Bytes that it occupied (its allocation).
    :param modified: Time of its last change, seconds since the epoch.
    """

    target: str
    path: str
    size: int
    modified: float


@dataclass(frozen=True)
class Volume:
    """
    One file that was made for the clone, and may be deleted with it.

    :param target: Target of the disk that it is for (``vda``), or ``nvram``.
    :param strategy: How it was made: ``overlay``, ``copy`` …
    :param state: One of :data:`WANTED`, :data:`MAKING`, :data:`MADE`. A file that stands at the
        path of a wanted volume is somebody else's.
    :param capacity: Bytes that the guest sees, 0 where it does not matter; tells a half-made
        volume of ours from a file that somebody put in its place.
    :param mount: Mount point of the file system that it was made on, where that is known: tells
        a file that is out of reach, since nothing is mounted there, from one that is gone.
    :param inode: What :func:`.filesystems.inode` gave for a variable store, or a file of a
        snapshot, when it was made.
    :param label: The snapshot that it was made for, which its name has; empty for all others.
    :param below: The file of the same clone that it stands on, where it is such an overlay.
    """

    target: str
    path: str
    format: str
    strategy: str
    state: str = "made"
    capacity: int = 0
    mount: str = ""
    inode: str = ""
    label: str = ""
    below: str = ""


@dataclass(frozen=True)
class FrozenDisk:
    """
    One disk in a snapshot.

    :param target: Target of the disk (``vda``).
    :param path: The file that nothing writes any more since the snapshot was taken.
    """

    target: str
    path: str
    format: str


@dataclass(frozen=True)
class Snapshot:
    """
    One snapshot of a clone: files that stay as they were at that moment.

    :param created: When it was taken, seconds since the epoch.
    :param stage: The clone's stage at that time.
    :param state: :data:`OFF` or :data:`FROZEN`, the machine's at that time.
    :param nvram: The copy of the variable store; empty where there was none.
    """

    label: str
    created: float
    stage: str
    state: str = OFF
    disks: tuple[FrozenDisk, ...] = ()
    nvram: str = ""


@dataclass(frozen=True)
class Owner:
    """
    The process that makes or destroys a clone: it drives all stages of that.

    :param host: Host name of the machine it runs on.
    :param boot: That machine's boot id, and the number of its process namespace.
    :param machine: That machine's machine-id.
    :param pid: Its process id there.
    :param started: Start time of that process, clock ticks since boot.
    :param token: A random word that only this piece of work knows.
    """

    host: str = ""
    boot: str = ""
    pid: int = 0
    started: int = 0
    token: str = ""
    machine: str = ""


@dataclass(frozen=True)
class Work:
    """
    The unfinished work on a clone, as its record describes it.

    :param life: :data:`ALIVE`, :data:`DEAD` or :data:`ELSEWHERE`, seen from the KVM host.
    :param stage: The record's stage, ``goal`` its goal and ``request`` its digest.
    """

    worker: Owner
    life: str
    stage: str
    goal: str
    request: str


@dataclass(frozen=True)
class Minion:
    """The minion on the clone, as far as it was enrolled; see CLONE in docs/answers.md."""

    id: str = ""
    version: str = ""
    fingerprint: str = ""
    verified_by: str = ""


@dataclass(frozen=True)
class Record:
    """
    Everything that is known about a clone and cannot be read from libvirt.

    :param uuid: Uuid of the domain that this record belongs to.
    :param base: Name of the domain that it was cloned from, ``base_uuid`` its uuid; empty where
        that was gone already (an adopted clone).
    :param strategy: ``full``, ``quick`` or :data:`INSTANT`.
    :param name: Name of the clone when it was made. Its files are named after that, whatever it is
        called now; empty in records of version 0.1.
    :param stage: One of :data:`STAGES` or :data:`DESTROYING`.
    :param goal: The stage at which the create is complete; :data:`DESTROYING` where somebody
        wants the clone gone.
    :param failed: Why a create that failed was kept (``on_failure: stop|keep``).
    :param overrides: The keys that were given as arguments, as JSON, for a resume.
    :param request: Digest of the request, to tell a repeated create from another one.
    :param created: Time of the create, seconds since the epoch.
    :param expires: When the clone counts as expired, likewise; 0 for never.
    :param ip_source: Where its address is looked up.
    :param identity: ``reset`` once the guest has an identity of its own, ``kept`` where it
        is to keep its base's, otherwise empty.
    :param seed: Which cloud-init seed it has, see :mod:`.cloud_seed`; empty in old records.
    :param address: The address that was last reported.
    :param agent: :data:`.silent_agent.SILENT` until its guest agent answers; otherwise empty.
    :param worker: The process that works, or last worked, on the clone.
    :param base_disks: The base's files as they were when the clone was made.
    :param volumes: Every file that was made for the clone, or is about to be.
    :param reservations: DHCP host entries, likewise.
    :param pick: Which of the guest's addresses counts.
    :param warnings: What the operator should know; shown with the clone from then on.
    :param host_keys: The guest's ssh host keys, ``TYPE BASE64``, where they are known.
    :param timings: Seconds each stage took.
    :param becomes: :data:`BASE` while a base is being made of the machine, :data:`WARM` for one
        whose memory is, or is being, saved to be forked; otherwise empty.
    :param warmed: The warmed machine whose memory a fork went on from, or is to; otherwise empty.
    :param under_way: What is being done to its snapshots, and the label; see :mod:`.snapshots`.
    :param snapshots: The snapshots, in the order in which they were taken.
    :param spare: Of a clone that was made as a spare: digest of what its profile asked then, see
        :meth:`.Secrets.profile_digest_of`; otherwise empty.
    :param claim: Who took it out of the stock.
    """

    uuid: str
    base: str
    base_uuid: str
    strategy: str
    name: str = ""
    profile: str = ""
    stage: str = "planned"
    goal: str = "addressed"
    failed: str = ""
    overrides: str = ""
    request: str = ""
    created: float = 0.0
    expires: float = 0.0
    ip_source: str = "auto"
    identity: str = ""
    seed: str = ""
    address: str = ""
    agent: str = ""
    worker: Owner = Owner()
    minion: Minion = Minion()
    base_disks: tuple[BaseDisk, ...] = ()
    volumes: tuple[Volume, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    pick: AddressPick = AddressPick()
    tags: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    host_keys: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    becomes: str = ""
    warmed: str = ""
    under_way: str = ""
    snapshots: tuple[Snapshot, ...] = ()
    spare: str = ""
    claim: Claim = Claim()

    def at(self, stage: str, **timings: float) -> Record:
        """
        Return this record at another stage, with timings added.

        :param timings: Seconds that stages took, by stage.
        """
        return replace(self, stage=stage, timings={**self.timings, **timings})

    @property
    def complete(self) -> bool:
        """
        Return whether the create has reached its goal.

        A base that is being made is never complete: once it is, it has no such record any more.
        """
        if self.becomes == BASE:
            return False
        return self.stage in STAGES and STAGES.index(self.stage) >= STAGES.index(self.goal)

    @property
    def removes_base(self) -> bool:
        """Return whether this is the record that a base has while it is removed."""
        files = [volume.strategy for volume in self.volumes]
        return self.becomes == BASE and self.stage == DESTROYING and set(files) == {BASE}

    @property
    def in_stock(self) -> bool:
        """Return whether it is a spare that nobody has claimed, finished or not."""
        return bool(self.spare) and not self.claim.at

    @property
    def memory(self) -> str:
        """Return the path of the saved memory that it lists; empty for none."""
        return next((one.path for one in self.volumes if one.target == MEMORY), "")

    @property
    def fork_begun(self) -> bool:
        """
        Return whether a fork was, or may have been, restored and is not on record as booted.

        Whatever runs then has not acknowledged fresh random numbers, and must not go on.
        """
        wanted = any(one.target == MEMORY and one.state == WANTED for one in self.volumes)
        return self.strategy == INSTANT and self.stage == "cloned" and not wanted

    @property
    def is_clone(self) -> bool:
        """Return whether it is one of the clones that people ask for, and not a warmed base."""
        return self.becomes != WARM

    def stands_on_base(self, target: str = "") -> bool:
        """
        Return whether the clone reads a disk of its base for as long as it exists.

        Such a disk must not change.

        :param target: Of one disk (``vda``); of any, where it is empty.
        """
        return any(
            volume.strategy == "overlay" and target in ("", volume.target)
            for volume in self.volumes
        )

    def owns(self, path: str) -> bool:
        """Return whether this record lists the file."""
        return any(volume.path == path for volume in self.volumes)

    def may_be_unnamed(self, volume: Volume) -> bool:
        """
        Return whether a file is the clone's although no definition leads to it.

        So are those of its snapshots, the download that a base is made from, and a saved memory.
        """
        frozen = (disk.path for one in self.snapshots for disk in one.disks)
        downloaded = self.becomes == BASE and volume.target == DOWNLOAD
        return bool(volume.label) or volume.path in frozen or downloaded or volume.target == MEMORY

    def could_have_made(self, volume: Volume) -> bool:
        """
        Return whether a volume's file is named as files made for this clone are.

        A record that was edited by hand may list anything. The files of a base that is removed are
        told by their inodes, whatever they are called.
        """
        if self.removes_base:
            return bool(volume.inode)
        file = os.path.basename(volume.path)
        made_for = ""
        if volume.label:
            if LABEL.fullmatch(volume.label) is None:
                return False
            made_for = rf"\.{re.escape(volume.label)}\.[1-9][0-9]*"
        if volume.target == "nvram":
            ours = self.uuid in file or self.name in file
            return ours and re.fullmatch(f".+{made_for}", file) is not None
        if volume.label:
            stem = rf"{re.escape(self.name) or '.+'}-{re.escape(volume.target)}"
            return re.fullmatch(rf"{stem}{made_for}\.qcow2", file) is not None
        return (
            DRIVER_NAMED.fullmatch(file) is not None
            or re.fullmatch(
                rf"{re.escape(self.name) or '.+'}-{re.escape(volume.target)}\.\w+", file
            )
            is not None
        )
