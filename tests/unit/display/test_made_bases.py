"""A person sees what a base was made of, and where it is."""

from __future__ import annotations

from typing import Any

from saltext.kvmclone.display import answers
from saltext.kvmclone.model.made_base import BaseDisk, MadeBase
from saltext.kvmclone.model.warmed_base import UnwarmedBase, WarmedBase
from tests.unit.display.examples import screen

MADE = MadeBase(
    "debian12",
    "kvm01",
    "https://x/d.qcow2",
    "sha256:00ff",
    (BaseDisk("vda", "/pool/debian12-vda.qcow2", "qcow2", 2**31),),
    warnings=("cloud-init complains: of nothing.",),
    timings={"downloaded": 60.0, "installed": 65.0},
).as_dict()


def shown(answer: dict[str, Any], **options: Any) -> str | None:
    return answers.of_runner(answer, screen("base_from", **options))


def test_a_base_that_was_made() -> None:
    assert shown({"bases": {"debian12": MADE}, "retcode": 0}) == "\n".join(
        [
            "debian12  made from https://x/d.qcow2, protected on kvm01 in 2m5s",
            "  sha256:00ff",
            "  vda /pool/debian12-vda.qcow2",
            "  ! cloud-init complains: of nothing.",
        ]
    )


def test_a_base_that_would_be_made() -> None:
    told = answers.MODULE["base_from"]({**MADE, "timings": {}}, screen("base_from", test=True))
    assert told[0] == "debian12  would be made from https://x/d.qcow2, protected on kvm01"


def test_a_base_that_was_not_made() -> None:
    error = {"type": "BadImage", "message": "It is none.", "hint": "Look at it."}
    told = shown({"bases": {"debian12": {"name": "debian12", "error": error}}, "retcode": 1})
    assert told is not None
    assert told.startswith("debian12  failed: BadImage\n")


def test_a_base_that_was_warmed_and_one_that_is_not_any_more() -> None:
    warmed = WarmedBase(
        "debian12", "kvm01", 2, "debian12.warm2", "/pool/debian12.warm2-memory.save", 2**27,
        ("'debian12.warm1' stays.",), {"booted": 11.0, "saved": 1.0},
    ).as_dict()  # fmt: skip
    told = answers.of_runner({"bases": {"debian12": warmed}, "retcode": 0}, screen("warm"))
    lines = [
        "debian12  warmed on kvm01 in 12s, generation 2, 128 MiB",
        "  /pool/debian12.warm2-memory.save",
        "  ! 'debian12.warm1' stays.",
    ]
    assert told == "\n".join(lines)
    assert answers.MODULE["warm"](warmed, screen("warm")) == lines
    gone = UnwarmedBase("debian12", "kvm01", ("/pool/a",), ("'/pool/b' stays.",)).as_dict()
    assert answers.MODULE["unwarm"](gone, screen("unwarm")) == [
        "debian12  not warm any more on kvm01: 1 file removed",
        "  '/pool/b' stays.",
    ]


def test_the_tree_says_whether_a_base_is_warm() -> None:
    saved = {"machine": "b.warm1", "generation": 1, "path": "/p", "bytes": 2**27, "unusable": ""}
    base = {"exists": True, "state": "shutoff", "warmed": [saved], "disks": [], "clones": {}}
    told = answers.of_runner({"bases": {"b": base}, "retcode": 0}, screen("tree"))
    assert told == "b  shutoff, warmed (128 MiB)"
    base["warmed"] = [{**saved, "unusable": "QEMU is 8 now, and was 7"}]
    told = answers.of_runner({"bases": {"b": base}, "retcode": 0}, screen("tree"))
    assert told == "b  shutoff, warmed, but QEMU is 8 now, and was 7"
