"""A person sees what is left over or wrong, why, and the command that mends it."""

from __future__ import annotations

from typing import Any

from saltext.kvmclone.display import care
from tests.unit.display.examples import screen


def leftover(kind: str, path: str, reason: str = "its worker died", **keys: Any) -> dict[str, Any]:
    return {"name": "web1", "kind": kind, "path": path, "reason": reason, "removed": False, **keys}


def test_what_is_left_why_and_how_to_remove_it() -> None:
    found = [leftover("domain", ""), leftover("volume", "/p/web1-vda.qcow2")]
    assert care.leftovers(found, {}, screen("gc")) == [
        "web1",
        "  the machine",
        "    its worker died",
        "  volume /p/web1-vda.qcow2",
        "  Hint: Remove it: salt-run kvmclone.gc web1 apply=True",
    ]


def test_what_was_removed_and_what_stays() -> None:
    found = [
        leftover("key", "web1", removed=True),
        leftover("kept", "/p/x.iso", "it is not on the record"),
    ]
    assert care.leftovers(found, {}, screen("gc", apply=True)) == [
        "web1",
        "  removed: key web1",
        "    its worker died",
        "  stays: /p/x.iso",
        "    it is not on the record",
    ]


def test_of_several_hosts_it_is_said_where_something_is_left() -> None:
    found = [leftover("domain", "", host="kvm02"), leftover("reservation", "kvm02", host="")]
    lines = care.leftovers(found, {}, screen("gc"))
    assert [line for line in lines if line.startswith("web1")] == [
        "web1 on kvm02", "web1 on the master",
    ]  # fmt: skip
    assert "  reservation kvm02" in lines


def test_a_clean_host_is_said_to_be_clean() -> None:
    assert care.leftovers([], {}, screen("gc")) == ["Nothing is left over."]
    assert care.findings([], {}, screen("doctor")) == ["No problems were found."]


def test_a_host_that_was_not_looked_at_is_not_called_clean() -> None:
    down = {"kvm02": {"type": "HostUnreachable", "message": "It is down.", "hint": ""}}
    said = ["! kvm02 could not be checked. It is down."]
    assert care.leftovers([], down, screen("gc")) == said
    assert care.findings([], down, screen("doctor")) == said


def test_findings_with_level_and_next_command() -> None:
    finding = {
        "kind": "base-running",
        "name": "debian12",
        "message": "It runs.",
        "hint": "virsh shutdown debian12",
        "level": "danger",
    }
    said = ["  It runs.", "  Hint: virsh shutdown debian12"]
    told = care.findings([{"host": "kvm01", **finding}], {}, screen("doctor"))
    assert told == ["danger: base-running  debian12 on kvm01", *said]
    assert care.findings([finding], {}, screen()) == ["danger: base-running  debian12", *said]


def test_a_report_says_where_it_is_and_what_is_not_on_it() -> None:
    assert care.report({"report": "/srv/fleet.html"}, screen("report")) == ["/srv/fleet.html"]
    error = {"type": "HostUnreachable", "message": "It is off.", "hint": ""}
    told = care.report({"report": "/f.html", "unreachable": {"kvm02": error}}, screen("report"))
    assert told == ["/f.html", "! kvm02 could not be checked. It is off."]


def test_what_works_where_stands_below_what_is_wrong() -> None:
    loaded = {
        "": {"version": "0.2.0", "salt": "3007.1", "path": "/opt/ext/saltext/kvmclone"},
        "kvm01": {
            "version": "0.1.0", "salt": "3006.9", "path": "/var/ext/saltext/kvmclone",
            "libvirt": "9.0.0", "latency": 0.0004,
        },
        "qemu+ssh://far/system": {"libvirt": "10.0.0", "latency": 0.25},
    }  # fmt: skip
    assert care.findings([], {}, screen("doctor"), loaded) == [
        "No problems were found.",
        "",
        "MACHINE             KVM_CLONE  SALT    LIBVIRT  ANSWERS IN  PATH",
        "the master          0.2.0      3007.1                       /opt/ext/saltext/kv…",
        "kvm01               0.1.0      3006.9  9.0.0        0.4 ms  /var/ext/saltext/kv…",
        "qemu+ssh://far/sy…                     10.0.0     250.0 ms",
    ]
