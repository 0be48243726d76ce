"""
Overlays and memory files that snapshots left on a machine's disks, and whose they are.

libvirt makes them for ``virsh snapshot-create-as``, an operator with ``qemu-img create``; none is
on a record, so none is ever deleted. Where only the clone itself uses them, they are no reason
to keep it for ever: it is destroyed with ``force``, and they stay and are named. Pure.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone.errors import CloneInUse, OwnSnapshots
from saltext.kvmclone.inventory.file_usage import Census, Identity
from saltext.kvmclone.model.hints import Commands

#: The root element of a snapshot's description.
SNAPSHOT = "domainsnapshot"

#: The file that an element's ``<source>`` names; empty for none.
Source = Callable[[etree._Element], str]

#: An overlay, and the image that it was put on.
Layer = tuple[str, str]


# --- what a snapshot's description tells --------------------------------------------


def memory_files(root: etree._Element) -> Iterator[str]:
    """Files that hold the memory of an external snapshot."""
    for element in root.iter("memory"):
        if element.get("file"):
            yield element.get("file", "")


def layers(root: etree._Element, source: Source) -> Iterator[Layer]:
    """
    The overlays that a snapshot put on the disks that the machine had until then.

    :param root: The description of the snapshot; of anything else there are none.
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
    told: Iterable[Layer], unknown: Collection[Identity], used: Iterable[Identity],
    identity: Callable[[str], Identity],
) -> Iterator[Layer]:  # fmt: skip
    """
    The layers to take from what snapshots tell, since nobody can read the overlay itself.

    :param unknown: Overlays that could not be read.
    :param used: What machines use as they are defined now, and what other images stand on: an
        overlay that is in no chain any more tells nothing.
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
class Standing:
    """
    What stands on the disks of one machine.

    :param on: The images directly on each file.
    :param own: Images, up to the tops of their chains, that this machine alone uses: as it is
        defined, as it runs, or by one of its snapshots.
    :param others: Other machines that need one of the images.
    :param unused: Images that nobody uses.
    """

    on: Mapping[str, list[str]]
    own: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def named(self) -> str:
        """For a message."""
        return "; ".join(f"{', '.join(images)} on {path}" for path, images in self.on.items())


def look(
    census: Census, name: str, files: Iterable[str], claims: Mapping[Identity, str]
) -> Standing:
    """
    What stands on some files of a machine.

    :param claims: Files on the records of other clones, with the name of one such clone.
    """
    on = census.standing_on(files)
    own: dict[str, None] = {}
    unused: dict[str, None] = {}
    others: set[str] = set()
    for image in dict.fromkeys(image for images in on.values() for image in images):
        tower = census.tower(image)
        # A definition names the top of a chain alone; what lies between is needed as well.
        foreign = _users(census, tower) | {claims[key] for key in tower if key in claims}
        foreign -= {name}
        if foreign:
            others |= foreign
            continue
        for path in tower.values():
            mine = name in _users(census, census.tower(path))
            (own if mine else unused)[path] = None
    return Standing(on, tuple(own), tuple(sorted(others)), tuple(unused))


def _users(census: Census, tower: Mapping[Identity, str]) -> set[str]:
    return {user for path in tower.values() for user in census.users(path)}


def _height(census: Census, name: str) -> int:
    """How many images the longest chain of a machine has."""
    chains = [len(census.chain(use.path)) for use in census.uses if use.domain == name]
    return max(chains, default=0)


def refusal(
    standing: Standing,
    name: str,
    disks: Iterable[str],
    state: str,
    lost: Mapping[str, str],
    census: Census,
    commands: Commands,
) -> OwnSnapshots:
    """
    The error that says that a clone has snapshots, with every way out of its present state.

    :param disks: What the clone uses now.
    :param lost: Overlays that nobody can read, and why that may be so for a while only; empty
        where one is just gone.
    """
    gone = "".join(
        f" '{path}' " + (f"cannot be looked at now, as {why}." if why else "is not there any more.")
        for path, why in lost.items()
    )
    ways = [
        "Destroy it all the same; what was not made by us stays where it is and is named: "
        + commands.forced(name)
    ]
    tops = [path for path in disks if path in standing.own]
    idle = [path for path in standing.own if not _below(census, path, tops)]
    if idle and not lost:
        ways.append(
            f"No disk of '{name}' stands on {', '.join(idle)} now, only a snapshot that libvirt "
            f"remembers names it. If nobody needs it: {_delete(census, idle, commands)}"
        )
    elif not lost or state != "shutoff":  # what it has open, it can still read
        begin = [commands.virsh("start", name)] if state == "shutoff" else []
        fold = [
            commands.virsh(
                "blockcommit", name, top, "--base", path, "--active", "--pivot", "--wait"
            )
            for path in standing.on
            for top in tops
            if census.identity(path) in {census.identity(one) for one in census.chain(top)}
        ]
        ways.append(
            "Or keep what they hold and fold them in, with --base: without that the command "
            "writes into the clone's own base. " + "   ".join([*begin, *fold])
        )
    return OwnSnapshots(
        f"'{name}' cannot be destroyed while snapshots of its own stand on its disks: "
        f"{standing.named()}.{gone}",
        "   ".join([*ways, "Nothing was touched."]),
    )


def in_use(
    standing: Standing,
    name: str,
    is_open: Callable[[str], bool],
    census: Census,
    commands: Commands,
) -> CloneInUse:
    """
    The error that says that others need a machine's disks, or that nobody knows who does.

    :param is_open: Whether somebody has an image open.
    """
    way = in_the_way(census, standing.others, standing.unused, is_open, commands)
    return CloneInUse(
        f"'{name}' cannot be destroyed: other volumes stand on its disks: {standing.named()}.",
        f"{way}   Then repeat the command.   See also: {commands.clone('tree')}   "
        "Nothing was touched.",
    )


def in_the_way(
    census: Census,
    names: Iterable[str],
    unused: Sequence[str],
    is_open: Callable[[str], object],
    commands: Commands,
) -> str:
    """
    The commands that remove what stands on a disk, what stands highest first.

    :param names: Machines that need it.
    :param unused: Images that no machine uses; they are spoken of once there is no machine.
    :param is_open: Whether somebody has an image open.
    """
    ours = {claim.domain for claim in census.claims}
    names = sorted(names, key=lambda one: (-_height(census, one), one))
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
        ways.append(f"Somebody has some of them open: {shlex.join(['fuser', '-v', *opened])}")
    elif unused and not names:
        ways.append(
            f"No machine uses {', '.join(unused)}; a snapshot may have left that. If nobody "
            f"needs it: {_delete(census, unused, commands)}"
        )
    return "   ".join(ways)


def _delete(census: Census, images: Sequence[str], commands: Commands) -> str:
    """The command that deletes images; those of a remote host only its libvirt can reach."""
    if census.local:
        return shlex.join(["rm", *images])
    return " && ".join(commands.virsh("vol-delete", image) for image in images)


def _below(census: Census, path: str, tops: Iterable[str]) -> bool:
    """Whether an image is a top, or lies below one."""
    chain = {census.identity(one) for top in tops for one in (top, *census.chain(top))}
    return census.identity(path) in chain
