"""
Decide whether the images of a disk can be cloned, and say why not.

Pure. The definition says what the guest sees; the image's own header says what the file
is. Where the two differ, or where a copy or an overlay would not be the same disk, that is
said here, before anything is written.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from saltext.kvmclone.errors import readable
from saltext.kvmclone.model import redaction
from saltext.kvmclone.model.domain_xml import Disk
from saltext.kvmclone.model.facts import QCOW2, RAW, HostFacts, ImageFacts, SourceFacts
from saltext.kvmclone.model.hints import Commands

#: Formats that are tested from clone to boot.
FORMATS = (QCOW2, RAW)

#: Disks that serve exactly one machine, whatever their definition says.
ONE_OWNER = {
    "nvme": "is a drive of the host, which only one machine can hold",
    "vhostuser": "comes through a socket that serves one machine",
    "vhostvdpa": "is a device of the host, which only one machine can hold",
}


_FOUND = {
    "file": "a file",
    "block": "a block device",
    "folder": "a folder",
    "special": "a pipe, socket or character device",
    "unreadable": "unreadable",
}


@dataclass
class PlanIssues:
    """The reasons to refuse a plan, and the warnings of one."""

    conflicts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def label(disk: Disk) -> str:
    """Return how messages name a disk: its target and where it comes from."""
    source = redaction.path(disk.path) or disk.named or disk.protocol
    return f"Disk {disk.target or 'without a target'}" + (f" '{source}'" if source else "")


def skipping(disk: Disk) -> str:
    """Return the end of a sentence that tells how to leave a disk out of the clone."""
    return f"or leave it out of the clone: {skip_line(disk)}"


def skip_line(disk: Disk) -> str:
    """Return the line for the profile that leaves a disk out of the clone."""
    return f"disks: {{{disk.target}: {{action: skip}}}}"


def kind_refused(disk: Disk, commands: Commands = Commands()) -> str:
    """
    Say why a disk cannot be cloned, whatever its images are; empty where it may be.

    :param commands: How the commands in the reason are typed.
    """
    where, out = label(disk), skipping(disk)
    if disk.kind in ONE_OWNER:
        return f"{where} {ONE_OWNER[disk.kind]}. Give the base a disk of its own, {out}"
    if disk.device == "lun":
        return (
            f"{where} is a lun: the guest speaks SCSI to the host's own device. Make it a "
            f"device='disk' in the base, {out}"
        )
    if disk.kind == "network":
        return (
            f"{where} is on the network (type 'network'), where this project cannot clone. "
            f"Copy it into a pool: qemu-img convert, {out}"
        )
    if disk.kind == "dir":
        return f"{where} is a folder (type 'dir') that the guest writes to. Remove it, {out}"
    if disk.kind not in ("file", "block", "volume"):
        return (
            f"{where} is of type '{disk.kind}', which this project does not know. Make it a file "
            f"in the base, {out}"
        )
    if disk.encrypted:
        return (
            f"{where} is encrypted: a clone would need its secret, and share its key for ever. "
            f"Encrypt inside the guest instead, {out}"
        )
    if disk.sliced:
        return (
            f"{where} shows only a slice of an image (<slices>). Copy the slice to an image of "
            f"its own, {out}"
        )
    if disk.format not in FORMATS:
        path = redaction.path(disk.path) or disk.volume
        convert = commands.there("qemu-img", "convert", "-O", QCOW2, path, f"{path}.{QCOW2}")
        return (
            f"{where} has format '{disk.format}'. Convert it, and name the new one in the base: "
            f"{convert}   {out}"
        )
    if not (disk.path or disk.volume):
        return f"{where} has no source. Give it one in the base, {out}"
    if not disk.volume and not disk.path.startswith("/"):
        return f"{where} is named without its folder. Give its whole path in the base, {out}"
    return ""


def judge(
    disk: Disk, source: SourceFacts | None, quick: bool, facts: HostFacts, notes: PlanIssues
) -> bool:
    """
    Check the images of a disk against what the definition says of it.

    :param source: The images; None where nobody looked for any.
    :param quick: The clone will be an overlay on the images instead of a copy.
    :param notes: Gets reasons to refuse, and warnings.
    :return: Whether there is an image to make a clone from.
    """
    if reason := _no_image(disk, source, facts):
        notes.conflicts.append(reason)
        return False
    assert source is not None, "_no_image tells where there is none"
    where, top = label(disk), source.images[0]
    odd = [readable(image.path) for image in source.images if readable(image.path) != image.path]
    if odd and quick:
        notes.conflicts.append(
            f"{where} is based on '{odd[0]}', whose name is not valid UTF-8: libvirt starts "
            "nothing from that. Rename it and fix the image above it: qemu-img rebase -u"
        )
    if facts.base_state == "shutoff":  # otherwise the plan refuses the base for its state
        for image in source.images:
            if image.written:
                notes.conflicts.append(
                    f"{where}: '{image.path}' is open for writing: another machine or a loop "
                    f"device uses it. Find it: {facts.commands.there('fuser', '-v', image.path)}   "
                    + facts.commands.there("losetup", "-a")
                )
    return _header(disk, top, quick, facts, notes) and _chain(disk, source, facts, notes)


def _no_image(disk: Disk, source: SourceFacts | None, facts: HostFacts) -> str:
    """Say why there is no image that could be read for a clone; empty where there is one."""
    where = label(disk)
    if source is not None and source.asleep:
        return (
            f"{where} is in storage pool '{source.asleep}', which is not started. "
            f"Start it: {facts.commands.virsh('pool-start', source.asleep)}"
        )
    if source is not None and source.unknown_pool:
        return (
            f"{where} is in a storage pool '{source.unknown_pool}' that is not there. "
            f"See: {facts.commands.virsh('pool-list', '--all')}"
        )
    top = source.images[0] if source is not None and source.images else None
    if top is None or top.kind in ("missing", "unseen"):
        if facts.local:
            disks = facts.commands.virsh("domblklist", facts.base_name)
            return f"{where} does not exist. Fix the base. See its disks: {disks}"
        return (
            f"{where} is in no active storage pool, and over a remote connection nothing "
            "else can be read. See which there are, or make one: "
            + facts.commands.virsh("pool-list", "--all", "--details")
        )
    if top.kind == "elsewhere":
        return (
            f"{where} is on the network ('{redaction.path(top.path)}'), where this project "
            f"cannot clone. Copy it into a directory pool: qemu-img convert, {skipping(disk)}"
        )
    wanted = "block" if disk.kind == "block" else "file"
    if top.kind != wanted and not (disk.kind == "volume" and top.kind == "block"):
        return (
            f"{where} is {_FOUND[top.kind]} although the definition says "
            f"type='{disk.kind}'. Fix the base's definition."
        )
    if top.kind == "block" and not facts.local:
        return (
            f"{where} is a block device, which this project does not read over a remote "
            "connection. Run the clone on that host: set 'host:' in the provider to its minion."
        )
    return ""


def _header(disk: Disk, top: ImageFacts, quick: bool, facts: HostFacts, notes: PlanIssues) -> bool:
    where, header = label(disk), top.header
    if disk.format == RAW:
        return _raw_header(disk, top, quick, facts, notes)
    if header.format != disk.format:
        notes.conflicts.append(
            f"{where} is defined as {disk.format}, but is {header.format}: the base itself cannot "
            f"start from it. Fix its <driver>: {_edit(facts)}"
        )
        return False
    fault = header.fault and f"cannot be read: {header.fault}"
    if header.encrypted:
        fault = "is encrypted by QEMU. Encrypt inside the guest instead"
    elif header.corrupt:
        repair = facts.commands.there("qemu-img", "check", "-r", "all", top.path)
        fault = f"is marked as corrupt. Repair it first: {repair}  "
    elif header.data_file and quick:
        fault = (
            "keeps its data in another file (data_file), which libvirt does not guard. Use "
            "'clone_strategy: full', which brings it together"
        )
    if fault:
        comma = "" if fault.endswith(" ") else ","
        notes.conflicts.append(f"{where} {fault}{comma} {skipping(disk)}")
        return False
    if header.dirty:
        notes.warnings.append(
            f"{where} was not closed properly; QEMU repairs it when a machine starts from it. "
            f"Sooner: {facts.commands.there('qemu-img', 'check', '-r', 'leaks', top.path)}"
        )
    if header.snapshots:
        notes.warnings.append(
            f"{where} holds {header.snapshots} internal snapshot(s). The clone begins with its "
            "present state and has none of them. If it is to begin with one, apply that first: "
            f"{facts.commands.there('qemu-img', 'snapshot', '-a', 'SNAPSHOT', top.path)}"
        )
    return True


def _raw_header(
    disk: Disk, top: ImageFacts, quick: bool, facts: HostFacts, notes: PlanIssues
) -> bool:
    where, found = label(disk), top.header.format
    if found == RAW:
        return True
    if not quick and not (facts.local and top.readable):
        # A guest may have written that header, and named any file of the host in it.
        notes.conflicts.append(
            f"{where} is defined as raw, but looks like {found}: libvirt, which alone can copy it "
            "here, would follow what its guest wrote there. Set 'host:' in the provider to the KVM "
            f"host's minion, or use 'clone_strategy: quick', {skipping(disk)}"
        )
        return False
    notes.warnings.append(
        f"{where} is defined as raw, but looks like {found}. The clone gets it as the guest of the "
        "base sees it: raw. If that is wrong, fix the base's <driver>."
    )
    return True


def _chain(disk: Disk, source: SourceFacts, facts: HostFacts, notes: PlanIssues) -> bool:
    where = label(disk)
    if disk.format == RAW:
        return True
    if source.fault:
        notes.conflicts.append(f"{where}: {source.fault}")
        return False
    data = [image.path for image in source.data]
    if disk.data and disk.data not in data:
        notes.conflicts.append(
            f"{where}: the definition's <dataStore> ({redaction.path(disk.data)}) is not what the "
            f"image itself names ({', '.join(data) or 'none'}). Fix the image with "
            f"qemu-img amend -o data_file, or remove the element: {_edit(facts)}"
        )
        return False
    if reason := _other_chain(disk, source):
        notes.conflicts.append(
            f"{reason}. Fix the image with qemu-img rebase -u, or remove the element: "
            + _edit(facts)
        )
        return False
    for above, image in zip(source.images, source.images[1:], strict=False):
        if not above.header.backing_format and image.header.format != RAW:
            rebase = facts.commands.there(
                "qemu-img", "rebase", "-u", "-F", image.header.format, "-b", image.path, above.path
            )
            notes.warnings.append(
                f"{where}: '{above.path}' does not name the format of its backing file, and "
                f"libvirt may refuse to start from it. Write it down: {rebase}"
            )
    return True


def _other_chain(disk: Disk, source: SourceFacts) -> str:
    """
    Say how the backing chain in the definition differs from the one that the images name.

    Empty where the definition spells out none, or the same.
    """
    if disk.backing is None:
        return ""
    where = label(disk)
    found = [image.path for image in source.images[1:]]
    said = list(disk.backing)
    ends = bool(said) and said[-1] == ""
    said = said[:-1] if ends else said
    if said != found[: len(said)] or (ends and len(said) != len(found)):
        return (
            f"{where}: the definition's <backingStore> ({_paths(said)}) is not "
            f"what the image itself names ({_paths(found)})"
        )
    for number, (said_format, above) in enumerate(
        zip(disk.backing_formats[: len(said)], source.images, strict=False), 1
    ):
        image = source.images[number]
        known = above.header.backing_format or image.header.format
        if said_format not in ("", known):
            return (
                f"{where}: the definition's <backingStore> takes '{image.path}' for "
                f"{said_format}, and the image above it for {known}"
            )
    return ""


def _edit(facts: HostFacts) -> str:
    return facts.commands.terminal("edit", facts.base_name)


def _paths(found: list[str]) -> str:
    return ", ".join(map(redaction.path, found)) or "none"


def chain_notes(facts: HostFacts, base: str) -> list[str]:
    """Return warnings about snapshots of the base whose files its clones will stand on."""
    if not facts.base_snapshots:
        return []
    return [
        f"'{base}' has {facts.base_snapshots} snapshot(s). Deleting, reverting or committing one "
        "rewrites files that its quick clones are based on; the clone itself has none of them."
    ]
