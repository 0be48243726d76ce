"""libvirt's own schema, which every definition that we hand out must satisfy."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from lxml import etree

from saltext.kvmclone.plan.rewrite import rewrite
from tests.unit.plan.rewrite.test_corpus import CORPUS, FATES, IDENTITY, NEWER

#: Where distributions put it; newer libvirt only in the first.
PLACES = (
    "/usr/share/libvirt/schemas/domain.rng",
    "/usr/local/share/libvirt/schemas/domain.rng",
    "/opt/libvirt/share/libvirt/schemas/domain.rng",
)


@cache
def schema() -> etree.RelaxNG:
    """libvirt's schema of a domain, as it is installed here."""
    for place in map(Path, PLACES):
        if place.exists():
            return etree.RelaxNG(etree.parse(str(place)))
    pytest.fail(f"none of {', '.join(PLACES)} is here: apt-get install libvirt-daemon-system")


def faults(xml: str) -> list[str]:
    """What libvirt's schema says against a definition; empty where it is valid."""
    validator = schema()
    if validator.validate(etree.fromstring(xml)):
        return []
    return [entry.message for entry in validator.error_log]


@pytest.mark.parametrize("name", sorted(set(FATES) - NEWER))
def test_the_corpus_speaks_libvirts_language(name: str) -> None:
    assert faults((CORPUS / f"{name}.xml").read_text()) == []


@pytest.mark.parametrize("name", sorted(set(FATES) - NEWER))
def test_a_definition_that_is_not_refused_is_valid(name: str) -> None:
    rewritten = rewrite((CORPUS / f"{name}.xml").read_text(), IDENTITY, ())
    assert rewritten.conflicts or faults(rewritten.xml) == []


@pytest.mark.parametrize("name", ["devices_of_each_machine", "nvram_file", "screen_on_a_socket"])
def test_virt_xml_validate_accepts_the_clone(name: str, tmp_path: Path) -> None:
    """The tool that a person would ask, and the way it finds the schema."""
    assert shutil.which("virt-xml-validate"), "apt-get install libvirt-clients"
    assert shutil.which("xmllint"), "apt-get install libxml2-utils"
    clone = tmp_path / "clone.xml"
    clone.write_text(rewrite((CORPUS / f"{name}.xml").read_text(), IDENTITY, ()).xml)
    done = subprocess.run(
        ["virt-xml-validate", str(clone), "domain"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
