"""A person sees at a glance where a base is missing or differs, and what to type."""

from __future__ import annotations

from typing import Any

from saltext.kvmclone.display import base_copies
from saltext.kvmclone.display.screen import Screen


def cell(state: str, digest: str = "", size: int = 0, **more: Any) -> dict[str, Any]:
    return {"state": state, "digest": digest, "bytes": size, **more}


ERROR = {"type": "PoolFull", "message": "The pool is full.", "hint": "df -h"}


def shown(bases: dict[str, Any], **more: Any) -> list[str]:
    return base_copies.bases({"bases": bases, **more}, Screen(80, 0.0, "bases"))


def test_each_host_has_a_line_and_the_next_commands_follow() -> None:
    hosts = {
        "kvm01": cell("same", "0123456789abcdef" * 4, 3 * 2**30),
        "kvm02": cell("other", "f" * 64, 2**20),
        "kvm03": cell("unknown", size=2**20),
        "kvm04": cell("missing"),
        "kvm05": cell("copying"),
    }
    lines = shown({"debian12": hosts})
    assert lines == [
        "BASE      HOST   CONTENT      SIZE  DIGEST",
        "debian12  kvm01  same        3 GiB  0123456789ab",
        "          kvm02  OTHER       1 MiB  ffffffffffff",
        "          kvm03  not read    1 MiB",
        "          kvm04  missing",
        "          kvm05  being made",
        "Hint: salt-run kvmclone.push debian12 kvm04",
        "Hint: salt-run kvmclone.bases debian12 hash=True",
    ]


def test_an_error_stands_below_and_gives_its_own_advice() -> None:
    hosts = {"kvm01": cell("same", "a" * 64, 1), "kvm02": cell("missing", error=ERROR)}
    lines = shown({"debian12": hosts})
    assert "debian12 on kvm02  failed: PoolFull" in lines
    assert not any("kvmclone.push" in line for line in lines)


def test_hosts_that_did_not_answer_are_named() -> None:
    lines = shown({}, unreachable={"kvm09": {**ERROR, "message": "It is down."}})
    assert lines[0] == "No bases"
    assert any("kvm09" in line for line in lines)


def test_what_was_removed_and_what_stays_is_said_of_each_host() -> None:
    gone = {"removed": ["/pool/a.qcow2"], "kept": ["'/pool/b' stays: 'x' uses it, too."]}
    hosts = {"kvm01": cell("missing", **gone), "kvm02": cell("same", error=ERROR)}
    answer = {"bases": {"debian12": hosts}}
    lines = base_copies.removed(answer, Screen(80, 0.0, "remove_base"))
    assert lines[:2] == [
        "debian12 removed from kvm01, with 1 file",
        "  '/pool/b' stays: 'x' uses it, too.",
    ]
    assert "debian12 on kvm02  failed: PoolFull" in lines
