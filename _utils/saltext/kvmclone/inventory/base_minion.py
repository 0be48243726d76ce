"""
Look whether a base has a Salt minion, in the root file system on its disks.

Reads only, a few kilobytes of each disk; see :mod:`.seed_search`. What is not on an ext2, ext3 or
ext4 file system (LVM, XFS, encryption) is not seen, and nothing is concluded from that.
"""

from __future__ import annotations

from saltext.kvmclone.errors import HostError
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import seed_search
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.base_minion import BaseMinion
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan import disk_wishes
from saltext.kvmclone.system import cloud_seed, ext_filesystem, guest_disk
from saltext.kvmclone.system.guest_disk import Read, UnreadableImage

#: Where a minion shows, by what starts it.
_MINION = (
    *(f"{folder}/systemd/system/salt-minion.service" for folder in ("etc", "lib", "usr/lib")),
    "etc/init.d/salt-minion",
    "usr/bin/salt-minion",
    "usr/local/bin/salt-minion",
)
_KEY = "etc/salt/pki/minion/minion.pem"

#: A file system that has both is the root, with the programs in it.
_ROOT = ("etc/passwd", "usr/bin/env")


def look(host: Host, request: Request) -> BaseMinion:
    """
    Return what the disks of a request's base show of a minion.

    :return: Nothing known where the base is gone, or no root file system can be read.
    """
    base = host.find(request.base_domain)
    if base is None:
        return BaseMinion()
    for disk in domain_xml.read(base.definition(), host.folders.stores).disks:
        wish = disk_wishes.wish_for(disk, request)
        if disk_wishes.is_empty(disk) or wish.action == "skip":
            continue
        try:
            layers = seed_search.layers(host, disk)
            read = guest_disk.view(layers) if layers else None
            found = on_disk(read) if read is not None else None
        except (UnreadableImage, HostError, OSError):
            continue
        if found is not None:
            return found
    return BaseMinion()


def on_disk(read: Read) -> BaseMinion | None:
    """Return what the root file system on a disk shows; None where it has none that is read."""
    for start in (0, *(start for _number, start in cloud_seed.partitions(read))):
        if all(ext_filesystem.holds(read, start, path) for path in _ROOT):
            installed = any(ext_filesystem.holds(read, start, path) for path in _MINION)
            return BaseMinion(installed, ext_filesystem.holds(read, start, _KEY))
    return None
