"""
Scan a host for everything that may use a file, or have one as its backing file.

Everything counts: inactive and live definitions, saved images, snapshots, explicit backing
chains, all folders of storage pools, active or not. Reads only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from saltext.kvmclone.errors import readable
from saltext.kvmclone.hypervisor import pools, state_files
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import domain_files, snapshots, storage_pools
from saltext.kvmclone.inventory.file_usage import (
    UNKNOWN,
    Claim,
    FileId,
    FileUsage,
    Link,
    Pool,
    Use,
    away,
    file_id,
)
from saltext.kvmclone.inventory.shared_looks import SharedLooks
from saltext.kvmclone.model.derived_files import Machines
from saltext.kvmclone.system import backing_files

_looks: SharedLooks[FileUsage] = SharedLooks()


def scan(host: Host) -> FileUsage:
    """
    Return who uses which file on the host, from its domains, pools and images.

    Threads that ask at about the same moment share one scan, begun after each of them asked.
    """
    return _looks.look(host.url, lambda: _scanned(host))


def _scanned(host: Host) -> FileUsage:
    scanning = _Scan(host)
    scanning.look_at_domains()
    scanning.look_at_pools()
    scanning.look_beside_records()
    scanning.look_below_domains()
    scanning.believe_the_records()
    scanning.believe_the_snapshots()
    return FileUsage(
        local=host.local,
        uses=tuple(scanning.uses),
        links=tuple(dict.fromkeys(scanning.links)),
        pools=tuple(scanning.pools.values()),
        images=tuple(scanning.images.values()),
        unchecked=tuple(dict.fromkeys(map(readable, scanning.unchecked))),
        claims=tuple(scanning.claims),
        volumes=dict(scanning.volumes),
        derived=tuple(scanning.derived()),
        memories=tuple(scanning.memories),
    )


@dataclass
class _Scan:
    """A scan under way; its methods must be called in the order in which :func:`scan` does."""

    host: Host
    pools: dict[str, Pool] = field(init=False)
    uses: list[Use] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    images: dict[FileId, str] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    volumes: dict[tuple[str, str], str] = field(default_factory=dict)
    machines: Machines = field(default_factory=Machines)
    #: From the records: an overlay, its mount point, and its backing file.
    told: list[tuple[str, str, str]] = field(default_factory=list)
    #: From the snapshots: an overlay, and its backing file.
    layers: list[snapshots.Layer] = field(default_factory=list)
    memories: list[Use] = field(default_factory=list)
    #: Files that domains use as defined, running or saved; snapshots may name older files.
    current: set[FileId] = field(default_factory=set)
    #: Images whose header was read, or whose backing file libvirt named.
    read: set[FileId] = field(default_factory=set)
    #: Those of them that could not be read after all.
    unread: set[FileId] = field(default_factory=set)
    #: What the files are by their paths.
    keys: dict[str, FileId] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.local = self.host.local
        self.pools = storage_pools.of(self.host)

    # --- domains ------------------------------------------------------------------------

    def look_at_domains(self) -> None:
        """Note every file that any description of any domain names."""
        for domain in domain_files.read(self.host, self._volume):
            name, uuid = domain.name, domain.uuid
            self.unchecked += domain.unread
            seen: set[tuple[str, str]] = set()
            for part in domain.parts:
                self.machines.add(uuid, [name, *part.names], part.stores)
                self.claims += [Claim(name, uuid, path, self._key(path)) for path in part.claims]
                self.told += part.told
                self.layers += part.layers
                for above, below in part.links:
                    self._link(above, below)
                if not self.local:  # so libvirt has read their headers
                    self.read.update(map(self._key, part.headed))
                for path, form in part.files:
                    kind = form
                    if form == domain_files.ARGUMENT:
                        kind = UNKNOWN if self.local and os.path.isfile(path) else ""
                    if not part.is_snapshot:
                        self.current.add(self._key(path))
                    if (path, kind) not in seen:
                        seen.add((path, kind))
                        self.uses.append(Use(name, uuid, path, self._key(path), kind))
                        self.memories += self.uses[-1:] * (path in part.memories)

    def _volume(self, pool_name: str, volume: str, domain: str) -> str:
        """Return the path of a volume that a domain names; empty if there is none now."""
        pool = self.pools.get(pool_name)
        if pool is not None and (pool.active or pool.is_folder):
            path = pools.volume_path(self.host, pool.raw, pool, volume)
            if path:
                self.volumes[pool_name, volume] = path
                return path
        self.unchecked.append(
            f"'{domain}' uses the volume '{volume}' of the pool '{pool_name}', which is "
            + ("not running" if pool is not None and not pool.active else "not there")
        )
        return ""

    def derived(self) -> Iterator[Use]:
        """Yield the paths that libvirt derives from names and uuids of domains, loaded or not."""
        known = {next(iter(names)) for names in self.machines.names.values()}
        for name in state_files.not_loaded(self.host, known):
            self.machines.add(f"of {name}", [name], ())
        there: dict[str, tuple[str, set[str]]] = {}
        for uuid, name, path in self.machines.derive(self.host.folders):
            folder, _, file = path.rpartition("/")
            if folder not in there:
                files = set[str]()
                with suppress(OSError):  # none of them was ever needed
                    files.update(os.listdir(folder) if self.local else ())
                there[folder] = os.path.join(str(file_id(folder, False)), ""), files
            normal, files = there[folder]
            # Most of them do not exist, so they are only names.
            yield Use(name, uuid, path, self._key(path) if file in files else f"{normal}{file}")

    # --- pools --------------------------------------------------------------------------

    def look_at_pools(self) -> None:
        """Note every image in every storage pool, and its backing file."""
        raw = {use.key for use in self.uses if use.format == "raw"}
        # A guest may write anything into its raw disk, even a header that names our files.
        self.read |= raw - {use.key for use in self.uses if use.format not in ("raw", "")}
        for pool in self.pools.values():
            if self.local and pool.is_folder:
                self._scan(pool)
            elif pool.active:
                self._list(pool)
            else:
                self.unchecked.append(f"the storage pool '{pool.name}' is not running")

    def _scan(self, pool: Pool) -> None:
        """Read the image headers in a pool's folder: sees more than libvirt, even if it is off."""
        if not pool.active and pool.type != "dir" and not os.path.ismount(pool.path):
            self.unchecked.append(f"the storage pool '{pool.name}' is not mounted")
            return
        try:
            names = os.listdir(pool.path)
        except FileNotFoundError:
            self.unchecked.append(f"the folder of the storage pool '{pool.name}' does not exist")
            return
        except OSError as error:
            self.unchecked.append(
                f"the folder of the storage pool '{pool.name}' cannot be read: {error.strerror}"
            )
            return
        self._read_folder(pool.path, names)

    def look_beside_records(self) -> None:
        """Read the folders that clones' files were made in, also those that no pool is over now."""
        if not self.local:
            return
        seen = {self._key(pool.path) for pool in self.pools.values() if pool.is_folder}
        for folder in sorted({os.path.dirname(claim.path) for claim in self.claims}):
            if self._key(folder) not in seen:
                seen.add(self._key(folder))
                with suppress(OSError):  # not there, which is reported where it matters
                    self._read_folder(folder, os.listdir(folder))

    def _read_folder(self, folder: str, names: list[str]) -> None:
        for name in sorted(names):
            path = os.path.join(folder, name)
            try:
                if not stat.S_ISREG(os.stat(path).st_mode):
                    continue
            except OSError:  # a dangling link, or gone since it was listed
                continue
            self.images.setdefault(self._key(path), path)
            self._read_header(path)

    def _list(self, pool: Pool) -> None:
        """Note the volumes of a pool, and their backing files, as libvirt lists them."""
        described, problems = storage_pools.volumes(self.host, pool)
        self.unchecked += problems
        for root in described:
            path = (root.findtext("./target/path") or "").strip()
            below = (root.findtext("./backingStore/path") or "").strip()
            self.images.setdefault(self._key(path), path)
            if below:
                self._link(path, below)
            if self.local:
                self._read_header(path)
            else:
                self.read.add(self._key(path))

    # --- chains -------------------------------------------------------------------------

    def look_below_domains(self) -> None:
        """Follow the backing chains of the domains' disks to their ends, also outside the pools."""
        todo = [use.path for use in self.uses if use.format]
        todo += [link.below for link in self.links]
        if not self.local:
            listed = {pool.path for pool in self.pools.values() if pool.active}
            self.unchecked += [
                f"the disk '{use.path}' of '{use.domain}' is in no storage pool that is running, "
                "so what it is based on is not known"
                for use in self.uses
                if use.format not in ("", "raw")
                and use.key not in self.read
                and os.path.dirname(use.path) not in listed  # in a listed pool it is just missing
            ]
            return
        while todo:
            todo += self._read_header(todo.pop())

    def _read_header(self, path: str) -> list[str]:
        """Note the backing file of an image, once per image, and return what it needs."""
        key = self._key(path)
        if key in self.read:
            return []
        self.read.add(key)
        try:
            below = backing_files.needs(path)
        except FileNotFoundError:
            self.unread.add(key)
            return []
        except (OSError, ValueError, backing_files.Unreadable) as error:
            self.unread.add(key)
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self.unchecked.append(f"the image '{path}' cannot be read: {reason}")
            return []
        for file in below:
            self._link(path, file)
        return list(below)

    def believe_the_records(self) -> None:
        """
        Take the backing file of an overlay that is out of reach now from its clone's record.

        A file system may not be mounted, or a pool may be off.
        """
        for image, mount, below in self.told:
            key = self._key(image)
            known = key in self.read and key not in self.unread
            if not known and away(self.pools.values(), self.local, image, mount):
                self._link(image, below)
        recorded = {claim.key for claim in self.claims} | {link.key for link in self.links}
        self.unchecked += [
            f"the disk '{use.path}' of '{use.domain}' is not there now ({why}), so what it stands "
            "on is not known"
            for use in self.uses
            if use.format not in ("", "raw") and use.key in self.unread - recorded
            if (why := self._out_of_sight(use.path))
        ]

    def believe_the_snapshots(self) -> None:
        """Take the backing file of an overlay that is lost from its machine's snapshots."""
        used = self.current | {link.below_key for link in self.links}
        unread = self.unread
        if not self.local:  # libvirt tells of what is there
            unread = {self._key(image) for image, _below in self.layers} - self.read
        for image, below in snapshots.needed(self.layers, unread, used, self._key):
            self._link(image, below)

    def _out_of_sight(self, path: str) -> str:
        """Return why a missing file may exist out of sight; empty if it is just gone."""
        folder = os.path.dirname(path)
        why = away(self.pools.values(), self.local, path).why
        with suppress(OSError):
            # An empty folder may be the mount point of what is not mounted.
            why = why or f"its folder '{folder}' is empty" * (not os.listdir(folder))
        return why

    def _link(self, image: str, below: str) -> None:
        link = Link(image, self._key(image), below, self._key(below))
        if link.key != link.below_key:
            self.links.append(link)

    def _key(self, path: str) -> FileId:
        if path not in self.keys:
            self.keys[path] = file_id(path, self.local)
        return self.keys[path]
