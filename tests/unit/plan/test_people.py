"""
What a plan says of definitions as people have them: all of it, and nothing that is not so.

After a change that is meant, ``python -m tests.unit.plan.test_people`` writes the expected plans
anew: read the difference as the person would whose machine it is.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from saltext.kvmclone.model import libvirt_xml
from tests.support import people
from tests.unit.plan.rewrite.test_schema import faults


def said(name: str) -> dict[str, Any]:
    shown = people.plan(name).as_dict()
    return {key: shown[key] for key in ("changes", "warnings", "conflicts")}


@pytest.mark.parametrize("name", people.NAMES)
def test_each_plan_says_what_it_is_known_to_say(name: str) -> None:
    expected = json.loads((people.PEOPLE / f"{name}.plan.json").read_text())
    assert said(name) == expected


@pytest.mark.parametrize("name", people.NAMES)
def test_each_clone_is_one_that_libvirts_schema_accepts(name: str) -> None:
    made = people.plan(name)
    if not made.conflicts:
        assert faults(made.xml) == []


@pytest.mark.parametrize("name", people.NAMES)
def test_no_tool_finds_its_record_in_a_clone(name: str) -> None:
    root = libvirt_xml.parse(people.plan(name).xml)
    kept = {"{http://libosinfo.org/xmlns/libvirt/domain/1.0}libosinfo", "{unraid}vmtemplate"}
    assert {element.tag for element in root.findall("./metadata/*")} <= kept


def test_no_plan_shows_what_a_tool_recorded() -> None:
    shown = json.dumps([people.plan(name).as_dict() for name in people.NAMES])
    for secret in ("my-root-secret", "examplehostkey", "prod-lab", "192.168.123.5", "secret12"):
        assert secret not in shown


@pytest.mark.parametrize(
    ("name", "serial"),
    [
        ("cloud_with_a_server_of_its_own", "ds=nocloud-net;s=http://172.16.169.254:8888/"),
        ("virt_install", "ds=nocloud"),
        ("workstation", "To be filled by O.E.M."),
    ],
)
def test_a_serial_number_that_is_none_stays(name: str, serial: str) -> None:
    root = libvirt_xml.parse(people.plan(name).xml)
    assert libvirt_xml.text(root, "./sysinfo/system/entry[@name='serial']") == serial


if __name__ == "__main__":
    for each in people.NAMES:
        written = json.dumps(said(each), indent=2, ensure_ascii=False)
        (people.PEOPLE / f"{each}.plan.json").write_text(f"{written}\n")
