"""List the storage pools of a host, running or not, and the volumes that libvirt knows in them."""

from __future__ import annotations

from lxml import etree

from saltext.kvmclone.errors import HostError, absent
from saltext.kvmclone.hypervisor import pools
from saltext.kvmclone.hypervisor.constants import NO_STORAGE_POOL, NO_STORAGE_VOL
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory.file_usage import Pool
from saltext.kvmclone.model import libvirt_xml


def of(host: Host) -> dict[str, Pool]:
    """Return every storage pool of a host, by name."""
    found: dict[str, Pool] = {}
    for raw in host.call(host.raw.listAllStoragePools, 0):
        with absent(NO_STORAGE_POOL):
            pool = pools.described(host, raw, bool(host.call(raw.isActive)))
            found[pool.name] = Pool(**vars(pool), raw=raw)
    return found


def volumes(host: Host, pool: Pool) -> tuple[list[etree._Element], list[str]]:
    """
    Return libvirt's descriptions of the volumes of a pool that runs.

    The pool is refreshed first: overlays may have been made behind libvirt's back.

    :return: The descriptions; and a clause about each thing that could not be read.
    """
    problems: list[str] = []
    found: list[etree._Element] = []
    what = f"the storage pool '{pool.name}'"
    try:
        host.call(pool.raw.refresh, 0)
    except HostError as error:
        problems.append(f"{what} cannot be refreshed: {error.message}")
    try:
        listed = host.call(pool.raw.listAllVolumes, 0)
    except HostError as error:
        return [], [*problems, f"{what} cannot be listed: {error.message}"]
    for volume in listed:
        try:
            found.append(libvirt_xml.element(str(host.call(volume.XMLDesc, 0))))
        except HostError as error:
            if error.code != NO_STORAGE_VOL:  # not just deleted since it was listed
                problems.append(
                    f"the volume '{volume.name()}' of {what} cannot be read: {error.message}"
                )
    return found, problems
