"""A person sees what a base was made of, and where it is."""

from __future__ import annotations

from typing import Any

from saltext.kvmclone.display import answers
from saltext.kvmclone.model.made_base import BaseDisk, MadeBase
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
