"""A person sees a plan as a sentence, the disks, the changes, and what speaks against it."""

from __future__ import annotations

from typing import Any

from saltext.kvmclone.display import plans
from tests.unit.display.examples import error, screen


def plan(**keys: Any) -> dict[str, Any]:
    return {
        "name": "web1",
        "base": "debian12",
        "strategy": "quick",
        "disks": [
            {
                "target": "vda",
                "action": "overlay",
                "reason": "clone_strategy is quick",
                "source": "/var/lib/libvirt/images/debian12.qcow2",
                "destination": "/var/lib/libvirt/images/web1-vda.qcow2",
                "format": "qcow2",
                "bytes": 0,
            },
            {
                "target": "sda",
                "action": "share",
                "reason": "a cdrom's medium",
                "source": "/iso/x.iso",
                "destination": "",
                "format": "raw",
                "bytes": 0,
            },
        ],
        "changes": {
            "name": {"old": "debian12", "new": "web1"},
            "memory": {"old": 536870912, "new": 671088640},
            "serial 0 log file": {
                "old": "/var/log/libvirt/consoles/a/debian12.log",
                "new": "/var/log/libvirt/consoles/a/web1.log",
            },
            "hostdev 0": {"old": "pci 0000:01:00.0", "new": None},
        },
        "warnings": ["The base has no agent."],
        "conflicts": [],
        "xml": "<domain>\n  <name>web1</name>\n</domain>\n",
        **keys,
    }


def test_a_long_path_that_is_left_out_is_said_to_be() -> None:
    gone = {"disk vdb": {"old": f"/srv/{'deep/' * 12}seed.iso", "new": None}}
    lines = plans.plan("web1", plan(changes=gone), screen("plan", "web", "web1"))
    assert "  disk vdb  …/seed.iso is left out" in lines


def test_a_plan_fits_one_screen_without_the_xml() -> None:
    lines = plans.plan("web1", plan(), screen("plan", "web", "web1", cpus=2))
    assert lines == [
        "web1 can be cloned from debian12, as an overlay.",
        "  DISK  ACTION   SIZE  FILE                                    WHY",
        "  vda   overlay        /var/lib/libvirt/images/web1-vda.qcow2  clone_strategy i…",
        "  sda   share          /iso/x.iso                              a cdrom's medium",
        "  name               debian12 -> web1",
        "  memory             512MiB -> 640MiB",
        "  serial 0 log file  …/debian12.log -> …/web1.log",
        "  hostdev 0          pci 0000:01:00.0 is left out",
        "  ! The base has no agent.",
        "  To see the clone's definition, add xml=True.",
    ]
    assert max(map(len, lines)) <= 80


def test_the_xml_is_shown_where_it_is_asked_for() -> None:
    lines = plans.plan("web1", plan(), screen("plan", "web", "web1", xml=True))
    assert lines[-4:] == ["", "<domain>", "  <name>web1</name>", "</domain>"]


def test_every_conflict_is_shown() -> None:
    lines = plans.plan("web1", plan(conflicts=["It runs.", "The pool is full."]), screen("plan"))
    assert lines[0] == "web1 cannot be cloned from debian12, as an overlay."
    assert "  conflict 1: It runs." in lines
    assert "  conflict 2: The pool is full." in lines


def test_what_cannot_even_be_planned_is_a_failure() -> None:
    assert plans.plan("web2", error(), screen("plan"))[0] == "web2  failed: AddressTimeout"


def test_what_was_adjusted_and_what_waits() -> None:
    found = {
        "changes": {"tags": {"old": [], "new": ["front"]}, "ttl": {"old": None, "new": 43200.0}},
        "refused": [],
        "notes": ["At its next boot: cpus."],
        "pending": {},
    }
    assert plans.adjusted(found, screen("adjust", "web1")) == [
        "It was changed:",
        "  tags  (none) -> front",
        "  ttl   12h",
        "  ! At its next boot: cpus.",
    ]
    assert plans.adjusted(found, screen("adjust", "web1", test=True))[0] == "It would be changed:"
    nothing = {"changes": {}, "note": ""}
    assert plans.adjusted(nothing, screen("pending_changes", "web1")) == [
        "Nothing waits for its next start."
    ]
    refused = {**found, "refused": ["A disk never shrinks."]}
    assert plans.adjusted(refused, screen("adjust", "web1")) == [
        "Nothing was changed.",
        "  ! A disk never shrinks.",
    ]


def test_where_a_host_was_chosen_the_others_say_why_not() -> None:
    hosts = {
        "kvm01": {"chosen": False, "reason": "in maintenance"},
        "kvm02": {"chosen": True, "reason": "0 B of 64 GiB memory are promised"},
    }
    lines = plans.plan("web1", plan(host="kvm02", hosts=hosts), screen("plan"))
    assert lines[:2] == [
        "web1 can be cloned from debian12 on kvm02, as an overlay.",
        "  not on kvm01: in maintenance",
    ]
