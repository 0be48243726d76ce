"""A state's changes are short: sizes as they were written, and no empty fields."""

from __future__ import annotations

from saltext.kvmclone.display.changes import short
from tests.unit.display.examples import clone


def test_sizes_and_times_are_as_they_were_written() -> None:
    assert short({
        "memory": {"old": 536870912, "new": 671088640},
        "memory maximum": {"old": 1073741824, "new": 671088640},
        "disk vda size": {"old": 3221225472, "new": 5368709120},
        "ttl": {"old": 3600.0000002, "new": 43200.0},
        "cpus": {"old": 1, "new": 2},
        "tags": {"old": [], "new": ["front"]},
        "autostart": {"old": False, "new": True},
    }) == {
        "memory": {"old": "512MiB", "new": "640MiB"},
        "memory maximum": {"old": "1GiB", "new": "640MiB"},
        "disk vda size": {"old": "3GiB", "new": "5GiB"},
        "ttl": {"old": "1h", "new": "12h"},
        "cpus": {"old": 1, "new": 2},
        "tags": {"old": [], "new": ["front"]},
        "autostart": {"old": False, "new": True},
    }  # fmt: skip


def test_of_a_clone_what_a_person_looks_for() -> None:
    told = short({"clone": {"old": None, "new": clone(profile="")}})
    assert told["clone"]["old"] is None
    assert list(told["clone"]["new"]) == [
        "name", "uuid", "host", "base", "strategy", "state", "stage", "address", "disks",
    ]  # fmt: skip
