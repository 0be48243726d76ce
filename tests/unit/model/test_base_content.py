"""A digest counts for the base that it was made of, and tells one content from another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext.kvmclone.model.base_content import (
    Content,
    DiskContent,
    FileState,
    digest_of,
    from_xml,
    to_xml,
)

DISKS = (DiskContent("vda", "qcow2", 2**30, "d1"), DiskContent("vdb", "raw", 5, "d2"))
CONTENT = Content(
    "u1", "whole", "definition", (FileState("/images/ä b.qcow2", 7, 1234567890123456789, 42),),
    DISKS, {"nvram": "d3"},
)  # fmt: skip


def test_what_is_written_is_read() -> None:
    assert from_xml(to_xml(CONTENT), "u1") == CONTENT
    bare = Content("u1", "whole", "definition", ())
    assert from_xml(to_xml(bare), "u1") == bare


def test_a_digest_that_was_copied_into_another_domain_is_void() -> None:
    assert from_xml(to_xml(CONTENT), "u2") is None


@pytest.mark.parametrize(
    "text", ["", "<content", "<content uuid='u1'/>",
             "<content uuid='u1' digest='d'><file path='/a' size='many'/></content>"],
)  # fmt: skip
def test_what_cannot_be_read_is_void(text: str) -> None:
    assert from_xml(text, "u1") is None


def test_disks_count_in_any_order() -> None:
    assert digest_of("d", DISKS) == digest_of("d", reversed(DISKS))


def test_every_part_of_a_content_counts() -> None:
    whole = digest_of("d", DISKS, {"nvram": "n"})
    first = DISKS[0]
    others = [
        digest_of("e", DISKS, {"nvram": "n"}),
        digest_of("d", DISKS[:1], {"nvram": "n"}),
        digest_of("d", DISKS, {"nvram": "m"}),
        digest_of("d", DISKS, {"kernel": "n"}),
        digest_of("d", DISKS),
        *(
            digest_of("d", (other, DISKS[1]), {"nvram": "n"})
            for other in (
                replace(first, target="sda"),
                replace(first, format="raw"),
                replace(first, size=1),
                replace(first, digest="x"),
            )
        ),
    ]
    assert len({whole, *others}) == 1 + len(others)
