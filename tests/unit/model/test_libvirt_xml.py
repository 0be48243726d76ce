"""A definition is parsed into a tree of the caller's own, however often it is parsed."""

from __future__ import annotations

import pytest

from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.model import libvirt_xml

BASE = "<domain><name>base</name><devices><disk><serial>1</serial></disk></devices></domain>"


def test_who_changes_a_tree_changes_nobody_elses() -> None:
    changed = libvirt_xml.parse(BASE)
    changed.remove(changed[0])
    assert libvirt_xml.serialize(libvirt_xml.parse(BASE)) == BASE


@pytest.mark.parametrize(
    "xml",
    [
        BASE.replace("<disk>", "<disk><serial>2</serial>"),
        BASE.replace("<disk>", "<disk xmlns:x='urn:x'><x:serial>2</x:serial>"),
        "<domain>",
    ],
)
def test_what_is_refused_once_is_refused_again(xml: str) -> None:
    for _ in range(2):
        with pytest.raises(PlanRefused):
            libvirt_xml.parse(xml)
