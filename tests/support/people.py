"""Definitions as people have them, and how the host of each looks."""

from __future__ import annotations

from pathlib import Path

from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.cloud_seed import Seed
from saltext.kvmclone.model.facts import HostFacts, PoolFacts, SourceFacts
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan import planner
from saltext.kvmclone.plan.planner import ClonePlan
from tests.support.plans import GIB, qcow2, raw

PEOPLE = Path(__file__).parent.parent / "data" / "people"
NAMES = sorted(path.stem for path in PEOPLE.glob("*.xml"))

#: Disks that hold a seed of cloud-init, as their tools make them.
SEEDS = {
    "kcli": "sda",
    "terraform": "hdd",
    "virt_install": "sda",
    "virt_lightning": "vdb",
    "virter": "sda",
}

_POOL = PoolFacts("pool", "dir", "/pool", True, 1000 * GIB, "8:1")


def facts(name: str) -> HostFacts:
    """Return the facts about a base whose images lie in one pool."""
    xml = (PEOPLE / f"{name}.xml").read_text()
    sources = {}
    for disk in domain_xml.read(xml).disks:
        path = disk.path or f"/pool/{disk.volume}"
        image = qcow2(path) if disk.format == "qcow2" else raw(path)
        if disk.device == "disk":
            sources[disk.target] = SourceFacts((image,), pool="pool", filesystem="8:1")
    seeds = {SEEDS[name]: Seed("cidata")} if name in SEEDS else {}
    return HostFacts(base_xml=xml, sources=sources, pools={"pool": _POOL}, seeds=seeds)


def plan(name: str) -> ClonePlan:
    """Return the plan for a clone ``web1``, by a profile that says no more than is needed."""
    return planner.compute(facts(name), Request("web1", "", clone_strategy="quick"))
