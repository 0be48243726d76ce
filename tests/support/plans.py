"""A base with two disks and a cdrom, how its host looks, and what a plan says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from saltext.kvmclone.model.facts import Header, HostFacts, ImageFacts, PoolFacts, SourceFacts
from saltext.kvmclone.model.request import DiskChanges, Request
from saltext.kvmclone.plan import planner
from saltext.kvmclone.plan.planner import ClonePlan

BASE = (Path(__file__).parent.parent / "data" / "full_base.xml").read_text()
GIB = 2**30


def qcow2(path: str, allocation: int = GIB, **header: Any) -> ImageFacts:
    header = {"plain": not header, **header}
    return ImageFacts(
        path,
        real=path,
        header=Header("qcow2", 10 * GIB, **header),
        size=allocation,
        allocation=allocation,
        modified=1700000000.0,
    )


def raw(path: str, size: int = 5 * GIB, allocation: int = GIB) -> ImageFacts:
    return ImageFacts(path, real=path, size=size, allocation=allocation)


VDA = SourceFacts(
    (
        qcow2("/pool/base.qcow2", backing="/pool/golden.qcow2", backing_format="qcow2"),
        qcow2("/pool/golden.qcow2"),
    ),
    pool="pool",
    filesystem="8:1",
)
VDB = SourceFacts((raw("/pool/base-data.img"),), pool="pool", filesystem="8:1")
POOL = PoolFacts("pool", "dir", "/pool", True, 100 * GIB, "8:1")
FAST = PoolFacts("fast", "dir", "/fast", True, 100 * GIB, "8:2", shares_blocks=True)
FACTS = HostFacts(
    base_xml=BASE, sources={"vda": VDA, "vdb": VDB}, pools={"pool": POOL, "fast": FAST}
)
QUICK = Request(name="web1", base_domain="base", clone_strategy="quick")
FULL = replace(QUICK, clone_strategy="full")


def wishing(request: Request = QUICK, **disks: DiskChanges) -> Request:
    return replace(request, disks=disks)


def with_disk(xml: str, **sources: SourceFacts) -> HostFacts:
    """The facts with one disk more."""
    return replace(
        FACTS,
        base_xml=BASE.replace("<interface type='network'>", xml + "<interface type='network'>", 1),
        sources={**FACTS.sources, **sources},
    )


def disk_xml(kind: str, inside: str, device: str = "disk", target: str = "vdc") -> str:
    return f"<disk type='{kind}' device='{device}'>{inside}<target dev='{target}'/></disk>"


def fates(made: ClonePlan) -> dict[str, str]:
    return {disk.target: disk.action for disk in made.disks}


def fate(made: ClonePlan, target: str) -> planner.PlannedDisk:
    return next(disk for disk in made.disks if disk.target == target)


def conflict(facts: HostFacts, request: Request = QUICK) -> str:
    """The one reason to refuse."""
    (only,) = planner.compute(facts, request).conflicts
    return only
