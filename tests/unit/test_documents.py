"""docs/answers.md tells what the code answers: the keys of its examples, every type of error."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from saltext.kvmclone import errors
from saltext.kvmclone.inventory.findings import KINDS
from saltext.kvmclone.inventory.lineage import Tree, TreeBase, TreeClone, TreeDisk
from saltext.kvmclone.model.clone import Address, Clone, CloneDisk
from saltext.kvmclone.model.clone_snapshot import CloneSnapshot, SnapshotDisk
from saltext.kvmclone.plan import planner
from tests.support.plans import FACTS, QUICK

LIBRARY = Path(__file__).parents[2] / "_utils/saltext/kvmclone"
TEXT = (Path(__file__).parents[2] / "docs/answers.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    """Return what stands below a heading, up to the next one."""
    found = re.search(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found, heading
    return found[1]


def example(heading: str) -> dict[str, Any]:
    shown = section(heading).partition("```json\n")[2].partition("```")[0]
    found: dict[str, Any] = json.loads(shown)
    return found


def first_column(heading: str) -> set[str]:
    return set(re.findall(r"^\| `(\w+)` \|", section(heading), re.MULTILINE))


def test_the_example_of_clone_has_its_keys() -> None:
    shown = example("CLONE")
    address, disk = Address("", "", "", 0, "", ""), CloneDisk("", "", "", "")
    real = Clone(*[""] * 8, addresses=(address,), disks=(disk,)).as_dict()
    assert list(shown) == list(real)
    assert list(shown["minion"]) == list(real["minion"])
    for key in ("addresses", "disks"):
        assert list(shown[key][0]) == list(real[key][0])


def test_the_example_of_a_plan_has_its_keys() -> None:
    shown, real = example("PLAN"), planner.compute(FACTS, QUICK).as_dict()
    assert list(shown) == list(real)
    assert list(shown["disks"][0]) == list(real["disks"][0])


def test_the_example_of_a_tree_has_its_keys() -> None:
    disk = TreeDisk("", "", "", 0, 0, "")
    clone = TreeClone("", "", "", "", (disk,), False, ())
    real = Tree({"debian12": TreeBase(True, "", {"web1": clone}, (disk,))}).as_dict()["bases"]
    shown = example("Tree")["bases"]
    assert shown["debian12"].keys() == real["debian12"].keys()
    assert shown["debian12"]["disks"][0].keys() == real["debian12"]["disks"][0].keys()
    assert list(shown["debian12"]["clones"]["web1"]) == list(real["debian12"]["clones"]["web1"])


def test_the_example_of_a_snapshot_has_its_keys() -> None:
    real = CloneSnapshot("", "", "", 0.0, (SnapshotDisk("", "", 0),), True, True).as_dict()
    assert list(example("SNAPSHOT")) == list(real)
    assert list(example("SNAPSHOT")["disks"][0]) == list(real["disks"][0])


def test_every_type_of_error_is_listed() -> None:
    family = {error.type for member in errors._family().values() for error in [member("")]}
    # Those that stand beside what raises them.
    text = "".join(path.read_text(encoding="utf-8") for path in LIBRARY.rglob("*.py"))
    family |= set(re.findall(r"^class (Refused|Unproven)\(", text, re.MULTILINE))
    assert first_column("Errors") == family - {"KvmCloneError"}


def test_every_kind_of_finding_is_listed_with_its_level() -> None:
    listed = section(re.escape("On the master: `salt-run kvmclone.…`"))
    rows = re.findall(r"^\| `(danger|problem|note)` \| (.*) \|$", listed, re.MULTILINE)
    shown = [(kind, level) for level, kinds in rows for kind in re.findall(r"`([\w-]+)`", kinds)]
    assert shown == list(KINDS.items())
