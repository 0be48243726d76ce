"""
Plan the making of a base from an image, before anything is downloaded. Pure.

All reasons against it are collected; what the image itself is, is only known later.
"""

from __future__ import annotations

import os.path
from dataclasses import dataclass, replace

from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.model.base_request import FROM_REPOSITORY, NO_SALT, BaseRequest
from saltext.kvmclone.model.facts import PoolFacts
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.machine_types import MachineType
from saltext.kvmclone.model.record import BASE, DOWNLOAD, WANTED, Owner, Record, Volume
from saltext.kvmclone.plan import base_definition, base_firmware
from saltext.kvmclone.plan.base_definition import DISK, SEED, BaseFiles

#: Bytes of a pool that stay free.
RESERVE = 32 * 2**20


@dataclass(frozen=True)
class BaseFacts:
    """
    What the host says of the place that the base will take.

    :param local: The host's files are in reach.
    :param machine: What it can run; None where that is nothing of the asked kind.
    :param pool: The pool; None where there is none of that name.
    :param network: What is wrong with the network or bridge; empty for nothing.
    :param existing: Paths at which a file stands already, of those that would be made.
    :param left_behind: What libvirt keeps under the name from an earlier machine.
    :param folders: What is wrong with the folders of packages, one clause each.
    :param missing: Programs that are not installed on the host.
    :param memory: Bytes of the host's memory.
    """

    local: bool = True
    machine: MachineType | None = None
    pool: PoolFacts | None = None
    network: str = ""
    existing: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    memory: int = 0


@dataclass(frozen=True)
class BasePlan:
    """
    The base that will be made.

    :param xml: Its definition while it is made.
    :param record: With every file that will be made.
    :param download: Path of the download; empty where the image is on the host already.
    """

    request: BaseRequest
    machine: MachineType
    pool: PoolFacts
    files: BaseFiles
    xml: str
    record: Record
    download: str = ""


def paths(request: BaseRequest, folder: str) -> dict[str, str]:
    """Return the path of each file that may be made in a pool's folder, by its target."""
    names = {DISK: "qcow2", SEED: "iso", DOWNLOAD: "part"}
    return {
        target: os.path.join(folder, f"{request.name}-{target}.{extension}")
        for target, extension in names.items()
    }


def compute(
    request: BaseRequest,
    facts: BaseFacts,
    uuid: str,
    downloads: bool,
    worker: Owner,
    commands: Commands,
) -> BasePlan:
    """
    Return the plan.

    :param uuid: Of the base to be.
    :param downloads: The image is not on the host yet.
    :raises PlanRefused: With every reason against it.
    """
    conflicts = _conflicts(request, facts, commands)
    if conflicts or facts.machine is None or facts.pool is None:
        raise PlanRefused(
            f"The base '{request.name}' cannot be made: {' '.join(conflicts)}",
            "Nothing was written. Fix this and repeat the command.",
        )
    found = paths(request, facts.pool.path)
    files = BaseFiles(found[DISK], found[SEED])
    volumes = [
        Volume(DISK, files.disk, "qcow2", "copy", WANTED),
        Volume(SEED, files.seed, "raw", "copy", WANTED),
    ]
    if downloads:
        volumes.append(Volume(DOWNLOAD, found[DOWNLOAD], "raw", "copy", WANTED))
    record = Record(
        uuid=uuid,
        base="",
        base_uuid="",
        strategy="full",
        name=request.name,
        goal="ready",
        request=request.fingerprint(),
        worker=worker,
        volumes=tuple(volumes),
        becomes=BASE,
    )
    xml = base_definition.definition(request, uuid, facts.machine, files)
    download = found[DOWNLOAD] if downloads else ""
    return BasePlan(request, facts.machine, facts.pool, files, xml, record, download)


def with_disk_of(plan: BasePlan, record: Record, capacity: int) -> Record:
    """
    Return the record with the size of the disk, which the image decides.

    :param capacity: Bytes that the guest will see.
    """
    return replace(
        record,
        volumes=tuple(
            replace(volume, capacity=capacity) if volume.path == plan.files.disk else volume
            for volume in record.volumes
        ),
    )


def _conflicts(request: BaseRequest, facts: BaseFacts, commands: Commands) -> list[str]:
    if not facts.local:
        return [
            f"its files would be made over '{commands.url}', and they are out of reach from here. "
            "Set 'host:' in the provider to the minion on the KVM host."
        ]
    found = []
    if facts.machine is None:
        kind = "" if request.domain_type == "auto" else f" of the type '{request.domain_type}'"
        found.append(f"The host offers no machine{kind} of its own architecture that is known.")
    elif request.firmware == base_firmware.EFI and not facts.machine.efi:
        found.append(NO_EFI)
    found += _of_the_pool(request, facts, commands)
    if facts.network:
        found.append(facts.network)
    if facts.existing:
        found.append(f"These files exist already, and are not ours: {', '.join(facts.existing)}.")
    if facts.left_behind:
        found.append(
            f"libvirt keeps something of an earlier '{request.name}': "
            f"{', '.join(facts.left_behind)}."
        )
    found += [f"{one}." for one in facts.folders]
    if facts.missing:
        found.append(f"Not installed on the host: {', '.join(facts.missing)}.")
    if facts.memory and request.memory > facts.memory:
        found.append(f"The host has {facts.memory >> 20} MiB of memory.")
    return found


NO_EFI = (
    "libvirt finds no UEFI firmware on the host. Install it: apt install ovmf   or: dnf install "
    "edk2-ovmf."
)


def _of_the_pool(request: BaseRequest, facts: BaseFacts, commands: Commands) -> list[str]:
    pool = facts.pool
    if pool is None:
        pools = commands.virsh("pool-list", "--all")
        return [f"There is no storage pool '{request.pool}'. List them: {pools}"]
    if not pool.active:
        start = commands.virsh("pool-start", pool.name)
        return [f"The storage pool '{pool.name}' is not started. Start it: {start}"]
    if not pool.is_folder:
        return [
            f"The storage pool '{pool.name}' is of the type '{pool.type}', and a base is made in a "
            "folder. Name another: pool=NAME"
        ]
    return []


def folders_of(request: BaseRequest) -> dict[str, str]:
    """Return the folders on the host that go into the seed, by the key that names them."""
    found = {"packages": request.packages}
    if request.salt not in (NO_SALT, FROM_REPOSITORY):
        found["salt"] = request.salt
    return {key: path for key, path in found.items() if path}
