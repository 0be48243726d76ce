"""
Find overlays that nobody uses any more, and those that were committed into a base.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator

from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory.base_changes import Committed
from saltext.kvmclone.inventory.file_usage import FileUsage
from saltext.kvmclone.inventory.findings import Finding, in_words
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import Record
from saltext.kvmclone.plan.disk_wishes import clone_named_in
from saltext.kvmclone.system import images


def delete(host: Host, path: str, commands: Commands) -> str:
    """Return the command that deletes a file: ``rm`` if it is a local one unknown to libvirt."""
    unknown = host.local and not volumes.is_known(host, path)
    return commands.there("rm", path) if unknown else commands.virsh("vol-delete", path)


def is_open(host: Host, path: str) -> bool:
    """Return whether a process or loop device has a file open; False on a remote host."""
    return host.local and bool(images.holder(path))


def strays(
    host: Host, usage: FileUsage, records: Iterable[Record], commands: Commands
) -> Iterator[Finding]:
    """Yield volumes named like ours that nobody needs, as an undefine by hand leaves them."""
    needed = {use.key for use in usage.uses}
    needed |= {link.below_key for link in usage.links}
    needed |= {
        usage.file_id(path)
        for record in records
        for path in (*(v.path for v in record.volumes), *(d.path for d in record.base_disks))
    }
    needed |= {claim.key for claim in usage.claims}  # a damaged record counts, too
    for path in usage.images:
        clone = clone_named_in(os.path.basename(path))
        if clone and usage.file_id(path) not in needed and not is_open(host, path):
            yield Finding(
                "volume-without-clone",
                path,
                f"'{path}' is named like a disk of a clone '{clone}', and no machine uses it. If "
                "nobody needs it, delete it.",
                delete(host, path, commands),
            )


def stale(
    host: Host, usage: FileUsage, records: Iterable[Record], commands: Commands
) -> Iterator[Finding]:
    """Yield overlays on the disks of clones and bases that no machine and no record needs."""
    records = list(records)
    claimed = {claim.key for claim in usage.claims}
    own = [volume.path for record in records for volume in record.volumes]
    # A destroy by force leaves the overlays of the clone's snapshots.
    left = [link.below for link in usage.links if clone_named_in(os.path.basename(link.below))]
    bases = [disk.path for record in records for disk in record.base_disks]
    seen = {usage.file_id(path) for path in (*own, *left, *bases)}
    # Nobody can read what stands on a file that is gone. Of others' files only they know.
    certain_of = [(path, True) for path in own]
    certain_of += [(path, not volumes.exists(host, path)) for path in dict.fromkeys(left)]
    for below, certain in [*certain_of, *((path, False) for path in bases)]:
        for key, image in usage.with_overlays(below).items():
            tower = usage.with_overlays(image)
            needed = bool(claimed & set(tower)) or any(map(usage.users, tower.values()))
            named_like_ours = clone_named_in(os.path.basename(image))  # a finding of its own
            if key in seen or needed or named_like_ours or is_open(host, image):
                continue
            seen.add(key)
            under = f"'{below}'" + ("" if volumes.exists(host, below) else ", which is gone")
            yield Finding(
                "overlay-unused",
                image,
                f"'{image}' is based on {under}, and no machine uses it; a snapshot may have left "
                "it. If nobody needs it, delete it.",
                delete(host, image, commands)
                if certain
                else commands.there("qemu-img", "info", "-U", image),
            )


def committed(
    host: Host,
    usage: FileUsage,
    name: str,
    state: str,
    record: Record,
    found: Committed,
    commands: Commands,
) -> Finding:
    """
    Return the finding for a clone whose disk was committed into its base.

    :param state: libvirt's state of the clone.
    """
    tower = usage.with_overlays(found.path).values()
    others = sorted({user for path in tower for user in usage.users(path)} - {name, record.base})
    damaged = ""
    if others:
        damaged = (
            f" {in_words(others)} {'is' if len(others) == 1 else 'are'} based on it, too, and may "
            "read garbage: save their data, and make them anew."
        )
    return Finding(
        "committed-into-base",
        name,
        f"{found.sentence(name, record.base)}{damaged} Give the clone a disk of its own again.",
        _own_again(host, usage, name, state, found, commands),
    )


def _own_again(
    host: Host, usage: FileUsage, name: str, state: str, found: Committed, commands: Commands
) -> str:
    """Return the commands that copy the disk back to the path of the clone's own overlay."""
    needed = usage.users(found.own) or usage.overlays_on([found.own])
    if found.below or needed or not host.local:
        return commands.virsh("domblklist", name)
    virsh = commands.near.virsh
    # Whether all that was in it is in the base now, nobody can see: a definition that was edited
    # by hand looks the same. So it is put aside, where it is found as an overlay of nobody.
    steps = [shlex.join(["mv", "-n", found.own, f"{found.own}.before"])]
    steps = [
        *(steps if volumes.exists(host, found.own) else []),
        virsh(
            "blockcopy", name, found.target, found.own, "--format", "qcow2", "--transient-job",
            "--wait", "--pivot",
        ),
    ]  # fmt: skip
    if state == "shutoff":  # a paused guest writes nothing
        steps = [
            virsh("start", name, "--paused"),
            *steps,
            virsh("destroy", name),
        ]
    return commands.script(" && ".join(steps))
