"""Definition and image are held against each other; what is not the same disk is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from saltext.kvmclone.model.facts import Header, SourceFacts
from saltext.kvmclone.plan import planner
from tests.support.plans import (
    BASE,
    FACTS,
    FULL,
    GIB,
    POOL,
    QUICK,
    VDA,
    VDB,
    conflict,
    disk_xml,
    fate,
    qcow2,
    raw,
    with_disk,
)


@pytest.mark.parametrize("header", [{"snapshots": 2}, {"data_file": "x.raw"}])
def test_what_is_more_than_the_present_disk_is_not_copied_along(header: dict[str, Any]) -> None:
    source = SourceFacts((qcow2("/pool/base.qcow2", **header),), pool="pool", filesystem="8:1")
    facts = replace(FACTS, base_xml=_alone(BASE), sources={"vda": source, "vdb": VDB})
    facts = replace(facts, pools={"pool": replace(POOL, shares_blocks=True)})
    made = planner.compute(facts, FULL)
    assert made.conflicts == ()
    assert (fate(made, "vda").action, fate(made, "vda").method) == ("copy", "convert")
    assert ("internal snapshot" in "".join(made.warnings)) == ("snapshots" in header)


def _alone(xml: str) -> str:
    """The base without a word about backing files."""
    start, end = xml.index("      <backingStore"), xml.index("</backingStore>")
    return xml[:start] + xml[end + len("</backingStore>") :]


@pytest.mark.parametrize(
    ("header", "word"),
    [
        ({"corrupt": True}, "qemu-img check -r all /pool/base.qcow2"),
        ({"encrypted": True}, "encrypted"),
        ({"data_file": "x.raw"}, "clone_strategy: full"),
        ({"fault": "it ends within its header"}, "ends within its header"),
    ],
)
def test_an_image_that_would_not_be_the_same_disk_is_refused(
    header: dict[str, Any], word: str
) -> None:
    source = SourceFacts((qcow2("/pool/base.qcow2", **header),), pool="pool")
    facts = replace(FACTS, base_xml=_alone(BASE), sources={"vda": source, "vdb": VDB})
    assert word in conflict(facts)


def test_the_definitions_word_about_the_format_counts_and_a_doubt_is_told() -> None:
    looks_like_qcow2 = replace(raw("/pool/base-data.img"), header=Header("qcow2", 99 * GIB))
    source = SourceFacts((looks_like_qcow2,), pool="pool")
    made = planner.compute(replace(FACTS, sources={"vda": VDA, "vdb": source}), QUICK)
    assert made.conflicts == ()
    assert fate(made, "vdb").source_format == "raw"
    assert fate(made, "vdb").capacity == 5 * GIB
    assert "looks like qcow2" in made.warnings[0]

    is_raw = SourceFacts((raw("/pool/base.qcow2"),), pool="pool")
    facts = replace(FACTS, sources={"vda": is_raw, "vdb": VDB})
    assert "is raw: the base itself cannot start" in conflict(facts)


def test_a_definition_that_contradicts_the_image_about_its_backing_file_is_refused() -> None:
    facts = replace(FACTS, base_xml=BASE.replace("/pool/golden.qcow2", "/pool/other.qcow2"))
    assert "<backingStore>" in conflict(facts)
    alone = replace(FACTS, sources={"vda": SourceFacts((qcow2("/pool/base.qcow2"),), pool="pool")})
    assert "<backingStore>" in planner.compute(alone, QUICK).conflicts[0]


def test_a_definition_that_contradicts_the_image_about_its_backing_format_is_refused() -> None:
    other = BASE.replace("<format type='qcow2'/>", "<format type='raw'/>")
    assert "for raw, and the image above it for qcow2" in conflict(replace(FACTS, base_xml=other))


def test_a_definition_that_contradicts_the_image_about_its_data_is_refused() -> None:
    disk = disk_xml(
        "file",
        "<driver type='qcow2'/><source file='/pool/x'><dataStore type='file'><format type='raw'/>"
        "<source file='/pool/x.data'/></dataStore></source>",
    )
    image = qcow2("/pool/x", data_file="/pool/x.data")
    for data, expected in (("/pool/x.data", ()), ("/pool/other", ("<dataStore>",))):
        source = SourceFacts((image,), (raw(data),), pool="pool")
        made = planner.compute(with_disk(disk, vdc=source), FULL)
        assert len(made.conflicts) == len(expected)
        assert all(word in reason for word, reason in zip(expected, made.conflicts, strict=True))
        assert expected or ("dataStore" not in made.xml and "x.data" not in made.xml)


def test_an_image_that_another_machine_writes_is_refused() -> None:
    written = replace(VDB, images=(replace(VDB.images[0], written=True),))
    facts = replace(FACTS, sources={"vda": VDA, "vdb": written})
    assert "open for writing" in conflict(facts)
    assert "shutdown base" in conflict(replace(facts, base_state="running"))
