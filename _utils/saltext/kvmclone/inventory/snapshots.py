"""
Find the overlays and memory files that snapshots left on a machine's disks, and their users.

libvirt makes them for ``virsh snapshot-create-as``, an operator with ``qemu-img create``; none
is on a record, so none is ever deleted. If only the clone itself uses them, they are no reason
to keep it for ever: it is destroyed with ``force``, and they stay and are named. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone.errors import CloneInUse, OwnSnapshots
from saltext.kvmclone.inventory.file_usage import FileId, FileUsage
from saltext.kvmclone.model.hints import Commands

#: The root element of a snapshot's description.
SNAPSHOT = "domainsnapshot"

#: Returns the file that an element's ``<source>`` names; empty for none.
Source = Callable[[etree._Element], str]

#: An overlay, and its backing file.
Layer = tuple[str, str]


# --- what a snapshot's description says ---------------------------------------------


def memory_files(root: etree._Element) -> Iterator[str]:
    """Yield the files that hold the memory of an external snapshot."""
    for element in root.iter("memory"):
        if element.get("file"):
            yield element.get("file", "")


def layers(root: etree._Element, source: Source) -> Iterator[Layer]:
    """
    Yield the overlays that a snapshot put on the disks that the machine had until then.

    :param root: The description of the snapshot; any other description has none.
    :param source: Returns the file that an element's ``<source>`` names.
    """
    if root.tag != SNAPSHOT:
        return
    before: dict[str, str] = {}
    for disk in root.iterfind("./domain/devices/disk"):
        target = disk.find("target")
        if target is not None:
            before[target.get("dev", "")] = source(disk)
    for disk in root.iterfind("./disks/disk[@snapshot='external']"):
        overlay, below = source(disk), before.get(disk.get("name", ""), "")
        if overlay and below:
            yield overlay, below


def needed(
    told: Iterable[Layer], unknown: Collection[FileId], used: Iterable[FileId],
    identity: Callable[[str], FileId],
) -> Iterator[Layer]:  # fmt: skip
    """
    Yield the backing files to take from snapshots, since the overlays cannot be read.

    :param told: The overlays that snapshots name, with their backing files.
    :param unknown: Overlays that could not be read.
    :param used: Files that machines use as they are defined now, and backing files of other images:
        an overlay that is in no chain any more does not count.
    """
    todo, known = list(told), set(used)
    while True:
        found = [one for one in todo if identity(one[0]) in known]
        if not found:
            return
        todo = [one for one in todo if one not in found]
        for overlay, below in found:
            known.add(identity(below))
            if identity(overlay) in unknown:
                yield overlay, below


# --- what stands on a machine's disks -----------------------------------------------


@dataclass(frozen=True)
class DiskOverlays:
    """
    The overlays on the disks of one machine.

    :param on: The overlays directly on each file.
    :param own: Overlays, up to the tops of their chains, that this machine alone uses: as it is
        defined, as it runs, or by one of its snapshots.
    :param others: Other machines that need one of the overlays.
    :param unused: Overlays that nobody uses.
    """

    on: Mapping[str, list[str]]
    own: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def named(self) -> str:
        """Return the overlays on each file, for a message."""
        return "; ".join(f"{', '.join(images)} on {path}" for path, images in self.on.items())


def find_overlays(
    usage: FileUsage,
    name: str,
    files: Iterable[str],
    claims: Mapping[FileId, str],
    without: Collection[FileId] = (),
) -> DiskOverlays:
    """
    Return the overlays on some files of a machine, and who uses them.

    :param claims: Files on the records of other clones, with the name of one such clone.
    :param without: Overlays that do not count, being among the files themselves.
    """
    directly = {
        path: [image for image in images if usage.file_id(image) not in without]
        for path, images in usage.overlays_on(files).items()
    }
    on = {path: images for path, images in directly.items() if images}
    own: dict[str, None] = {}
    unused: dict[str, None] = {}
    others: set[str] = set()
    for image in dict.fromkeys(image for images in on.values() for image in images):
        tower = usage.with_overlays(image)
        # A definition names only the top of a chain; the images below that are needed as well.
        foreign = _users(usage, tower) | {claims[key] for key in tower if key in claims}
        foreign -= {name}
        if foreign:
            others |= foreign
            continue
        for path in tower.values():
            mine = name in _users(usage, usage.with_overlays(path))
            (own if mine else unused)[path] = None
    return DiskOverlays(on, tuple(own), tuple(sorted(others)), tuple(unused))


def _users(usage: FileUsage, tower: Mapping[FileId, str]) -> set[str]:
    return {user for path in tower.values() for user in usage.users(path)}


def _height(usage: FileUsage, name: str) -> int:
    """Return how many backing files the longest chain of a machine has."""
    chains = [len(usage.chain(use.path)) for use in usage.uses if use.domain == name]
    return max(chains, default=0)


def refusal(
    standing: DiskOverlays,
    name: str,
    disks: Iterable[str],
    state: str,
    lost: Mapping[str, str],
    usage: FileUsage,
    commands: Commands,
) -> OwnSnapshots:
    """
    Return the error for a clone with snapshots, with every way out of its present state.

    :param disks: What the clone uses now.
    :param state: libvirt's state of the clone.
    :param lost: Overlays that nobody can read, and why one may be back later; empty if it is just
        gone.
    """
    ways = [
        "Destroy it anyway; what was not made by us stays and is listed: " + commands.forced(name)
    ]
    tops = [path for path in disks if path in standing.own]
    idle = [path for path in standing.own if not _below(usage, path, tops)]
    if idle and not lost:
        ways.append(
            f"No disk of '{name}' is based on {', '.join(idle)} now, only a snapshot that libvirt "
            f"remembers names it. If nobody needs it: {_delete(usage, idle, commands)}"
        )
    elif not lost or state != "shutoff":  # what it has open, it can still read
        begin = [commands.virsh("start", name)] if state == "shutoff" else []
        fold = [
            commands.virsh(
                "blockcommit", name, top, "--base", path, "--active", "--pivot", "--wait"
            )
            for path in standing.on
            for top in tops
            if usage.file_id(path) in {usage.file_id(one) for one in usage.chain(top)}
        ]
        ways.append(
            "Or keep what they hold and fold them in, with --base: without that the command "
            "writes into the clone's own base. " + "   ".join([*begin, *fold])
        )
    return OwnSnapshots(
        f"'{name}' cannot be destroyed while its own snapshots are based on its disks: "
        f"{standing.named()}.{_named(lost)}",
        "   ".join([*ways, "Nothing was touched."]),
    )


def _named(lost: Mapping[str, str]) -> str:
    """Return one sentence for each overlay that cannot be read."""
    return "".join(
        f" '{path}' " + (f"cannot be looked at now, as {why}." if why else "no longer exists.")
        for path, why in lost.items()
    )


def in_use(
    standing: DiskOverlays,
    name: str,
    is_open: Callable[[str], bool],
    usage: FileUsage,
    commands: Commands,
) -> CloneInUse:
    """
    Return the error for a machine whose disks others need, or perhaps need.

    :param is_open: Returns whether somebody has an image open.
    """
    way = in_the_way(usage, standing.others, standing.unused, is_open, commands)
    return CloneInUse(
        f"'{name}' cannot be destroyed: other volumes are based on its disks: {standing.named()}.",
        f"{way}   Then repeat the command.   See also: {commands.clone('tree')}   "
        "Nothing was touched.",
    )


def in_the_way(
    usage: FileUsage,
    names: Iterable[str],
    unused: Sequence[str],
    is_open: Callable[[str], object],
    commands: Commands,
) -> str:
    """
    Return the commands that remove the overlays on a disk, the highest first.

    :param names: Machines that need one.
    :param unused: Overlays that no machine uses; they are named once no machine is left.
    :param is_open: Returns whether somebody has an image open.
    """
    ours = {claim.domain for claim in usage.claims}
    names = sorted(names, key=lambda one: (-_height(usage, one), one))
    clones = [commands.clone("destroy", one) for one in names if one in ours]
    foreign = [commands.forced(one) for one in names if one not in ours]
    opened = [image for image in unused if is_open(image)]
    ways = []
    if foreign:
        ways.append(
            "Not made by us, and to be removed only if nobody needs it (its files stay): "
            + "   ".join(foreign)
        )
    if clones:
        ways.append("Destroy the clones made from it first: " + "   ".join(clones))
    if opened:
        ways.append(f"Somebody has some of them open: {commands.there('fuser', '-v', *opened)}")
    elif unused and not names:
        ways.append(
            f"No machine uses {', '.join(unused)}; a snapshot may have left that. If nobody "
            f"needs it: {_delete(usage, unused, commands)}"
        )
    return "   ".join(ways)


def _delete(usage: FileUsage, images: Sequence[str], commands: Commands) -> str:
    """Return the command that deletes images; a remote host's only its libvirt can reach."""
    if usage.local:
        return commands.there("rm", *images)
    return " && ".join(commands.virsh("vol-delete", image) for image in images)


def _below(usage: FileUsage, path: str, tops: Iterable[str]) -> bool:
    """Return whether an image is one of the tops, or a backing file of one."""
    chain = {usage.file_id(one) for top in tops for one in (top, *usage.chain(top))}
    return usage.file_id(path) in chain
