"""A person sees snapshots as a table, and what was done with one in a line."""

from __future__ import annotations

import datetime
from typing import Any

from saltext.kvmclone.display import answers
from tests.unit.display.examples import NOW, clone, error, screen


def snapshot(label: str, **more: Any) -> dict[str, Any]:
    return {
        "name": "web1", "host": "kvm01", "label": label, "created": NOW - 3600.0,
        "disks": [{"target": target, "path": f"/pool/web1-{target}.qcow2", "bytes": 3 * 2**19}
                  for target in ("vda", "vdb")],
        "frozen": False, "current": False, "warnings": [], **more,
    }  # fmt: skip


def test_snapshots_are_a_table_with_the_current_one_marked() -> None:
    found = [snapshot("before"), snapshot("after", frozen=True, current=True, warnings=["Lost."])]
    taken = datetime.datetime.fromtimestamp(NOW - 3600).astimezone().isoformat(" ", "seconds")[:16]
    lines = [
        "   LABEL   TAKEN             AGE  GUEST   DISKS      SIZE",
        f"   before  {taken}  1h   off     vda,vdb  3 MiB",
        f"*  after   {taken}  1h   frozen  vda,vdb  3 MiB",
        "  ! Lost.",
        "2 snapshots of web1",
    ]
    told = answers.RUNNER["snapshots"]({"snapshots": {"web1": found}}, screen("snapshots"))
    assert [" ".join(line.split()) for line in told] == [" ".join(one.split()) for one in lines]
    assert answers.MODULE["snapshots"](found, screen("snapshots")) == told
    assert max(map(len, told)) <= 80


def test_a_clone_without_snapshots_is_told() -> None:
    none = {"snapshots": {"web1": []}}
    assert answers.RUNNER["snapshots"](none, screen("snapshots")) == ["No snapshots of web1"]
    assert answers.MODULE["snapshots"]([], screen("snapshots")) == ["No snapshots"]


def test_what_was_done_is_one_line() -> None:
    for name, answer, line in (
        ("snapshot", snapshot("a", frozen=True),
         "web1: snapshot 'a' was taken, its file systems frozen."),
        ("snapshot", snapshot("a"), "web1: snapshot 'a' was taken, shut off."),
        ("delete_snapshot", snapshot("a"), "web1: snapshot 'a' was deleted."),
        ("rollback", clone("web1"), "web1 was rolled back and is running."),
        ("rollback", clone("web1", state="shutoff"), "web1 was rolled back and is shut off."),
    ):  # fmt: skip
        assert answers.RUNNER[name]({"clones": {"web1": answer}}, screen(name)) == [line]
        assert answers.MODULE[name](answer, screen(name)) == [line]


def test_a_failure_is_shown_with_its_hint() -> None:
    failed = error("web1", "ready")
    for name in ("snapshot", "delete_snapshot", "rollback"):
        told = answers.RUNNER[name]({"clones": {"web1": failed}}, screen(name))
        assert any("Hint: " in line for line in told)
