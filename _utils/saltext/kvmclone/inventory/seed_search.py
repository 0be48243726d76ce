"""
Find cloud-init's seeds on the disks of a base, whatever their files are called.

Reads only, and a few kilobytes of each disk: as a file if it is ours, otherwise over libvirt.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial

from saltext.kvmclone.errors import HostError
from saltext.kvmclone.hypervisor import pools
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.cloud_seed import Seed
from saltext.kvmclone.model.domain_xml import Disk, Domain
from saltext.kvmclone.model.facts import ImageFacts, SourceFacts
from saltext.kvmclone.plan import disk_wishes
from saltext.kvmclone.system import cloud_seed, guest_disk, images
from saltext.kvmclone.system.guest_disk import Read, UnreadableImage


def find(
    host: Host, domain: Domain, sources: Mapping[str, SourceFacts]
) -> tuple[dict[str, Seed], frozenset[str]]:
    """
    Return the seeds by the targets of their disks, and the targets of unreadable disks.

    :param sources: What is known already of what disks consist of.
    """
    seeds: dict[str, Seed] = {}
    unread: set[str] = set()
    for disk in domain.disks:
        if disk_wishes.is_empty(disk):
            continue
        try:
            found = layers(host, disk, sources.get(disk.target))
            seed = cloud_seed.find(guest_disk.view(found)) if found else None
        except (UnreadableImage, HostError, OSError):
            unread.add(disk.target)
            continue
        if seed is not None:
            seeds[disk.target] = seed
    return seeds, frozenset(unread)


def layers(host: Host, disk: Disk, source: SourceFacts | None = None) -> list[tuple[str, Read]]:
    """
    Return format and reader of each image of a disk; nothing if its medium is missing.

    :param source: What is known already of what it consists of.
    :raises UnreadableImage: Not every image of the chain can be read.
    """
    if source is None or not source.images:
        path, problem = pools.path_of(host, disk)
        if problem and source is None:  # else the plan refuses the disk, and says why
            raise UnreadableImage(f"its pool is {problem}")
        if disk.kind not in ("file", "block", "volume"):
            raise UnreadableImage(f"it is of type '{disk.kind}'")
        if not path:
            return []
        found, data, fault = images.chain(path, disk.format, partial(pools.look, host))
        source = SourceFacts(images=found, data=data, fault=fault)
    if source.images[0].kind == "missing":
        return []
    if source.fault or source.data or any(i.kind not in ("file", "block") for i in source.images):
        raise UnreadableImage("not all of its backing files can be read")
    forms = [disk.format]
    for above, image in zip(source.images, source.images[1:], strict=False):
        forms.append(above.header.backing_format or image.header.format)
    pairs = zip(forms, source.images, strict=True)
    return [(form, _reader(host, image)) for form, image in pairs]


def _reader(host: Host, image: ImageFacts) -> Read:
    if not (host.local and image.readable):
        return lambda offset, length: pools.read(host, image.path, offset, length)

    def read(offset: int, length: int) -> bytes:
        with open(image.path, "rb") as file:
            return os.pread(file.fileno(), length, offset)

    return read
