"""A person sees the stock of each profile in a line, and who has what."""

from __future__ import annotations

from typing import Any

from saltext.kvmclone.display import answers, spares
from saltext.kvmclone.model import units
from tests.unit.display.examples import NOW, screen

EMPTY: dict[str, Any] = {
    "wanted": 2, "stock": {}, "making": {}, "claimed": {}, "failed": {}, "unusable": {},
}  # fmt: skip
CLONE: dict[str, Any] = {
    "name": "ci-000001", "address": "192.168.122.9", "state": "running", "stage": "ready",
    "minion": {"version": "3008.1"}, "warnings": [],
}  # fmt: skip


def test_each_profile_has_a_line_and_each_claimed_machine_its_owner() -> None:
    row = {"host": "kvm01", "stage": "ready", "since": NOW}
    taken = {**row, "by": "alice", "until": NOW + 60}
    ci = {**EMPTY, "stock": {"ci-000001": row}, "claimed": {"ci-000002": taken}}
    ci["failed"] = {"ci-000003": {**row, "reason": "no address"}}
    wrong = {**EMPTY, "error": "HostFull: no room", "again": NOW}
    answer = {"spares": {"ci": ci, "web": wrong}, "warnings": ["Nothing refills."]}
    at, end = units.short_moment(NOW), units.short_moment(NOW + 60)
    assert spares.overview(answer, screen("spares")) == [
        "PROFILE  WANTED  STOCK  MAKING  CLAIMED  FAILED  UNUSABLE",
        "ci            2      1       0        1       1         0",
        "web           2      0       0        0       0         0",
        "",
        f"CLAIMED    HOST   BY     {'SINCE':<16}  UNTIL",
        f"ci-000002  kvm01  alice  {at}  {end}",
        "! ci-000003: no address",
        f"! web: none can be made, tried again from {at} on: HostFull: no room",
        "! Nothing refills.",
    ]


def test_no_profile_wants_any() -> None:
    assert spares.overview({"spares": {}}, screen("spares")) == ["No profile wants spares."]


def test_what_was_claimed_and_what_was_not() -> None:
    error = {"type": "NoSpare", "message": "'ci' has 1 spare.", "hint": "See: x"}
    answer = {"clones": {"ci-000001": CLONE}, "error": error, "retcode": 1}
    assert answers.of_runner(answer, screen("claim")) == (
        "ci-000001  192.168.122.9  claimed, test.version 3008.1\n"
        "failed: NoSpare\n  'ci' has 1 spare.\n  Hint: See: x"
    )
    failed = {"name": "ci-000002", "stage": "booted", "error": error}
    assert spares.claimed("ci-000002", failed, screen("claim"))[0] == (
        "ci-000002  failed after booted: NoSpare"
    )
