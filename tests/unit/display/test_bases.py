"""Bases that were made, as a person sees them."""

from __future__ import annotations

import dataclasses
from typing import Any

from saltext.kvmclone.display import answers
from saltext.kvmclone.display.tree import tree
from tests.unit.display.examples import error, screen


def base(**keys: Any) -> dict[str, Any]:
    return {
        "name": "golden",
        "host": "kvm01",
        "source": "web1",
        "protected": True,
        "disks": [{"target": "vda", "path": "/p/golden-vda.qcow2", "format": "qcow2"}],
        "promoted": "web1",
        "warnings": [],
        **keys,
    }


def test_a_base_that_was_promoted_names_the_clone_that_is_gone() -> None:
    told = answers.of_runner({"bases": {"golden": base()}, "retcode": 0}, screen("promote"))
    assert told is not None
    assert told.splitlines() == [
        "golden  made from web1, which was destroyed, protected on kvm01",
        "  vda /p/golden-vda.qcow2",
    ]


def test_a_host_answers_with_the_bare_base() -> None:
    at_host = dataclasses.replace(screen("promote"), minion="kvm01")
    told = answers.of_minions({"kvm01": base(warnings=["Look."])}, lambda _: at_host)
    assert told is not None
    assert told.splitlines()[-1] == "  ! Look."


def test_a_failure_names_the_base_and_what_to_type() -> None:
    failed = {"name": "golden", "error": error()["error"]}
    told = answers.of_runner({"bases": {"golden": failed}, "retcode": 1}, screen("promote"))
    assert told is not None
    assert told.startswith("golden  failed: AddressTimeout\n")
    assert "Hint: " in told


def test_a_tree_says_what_a_base_was_made_from() -> None:
    shown = {"exists": True, "state": "shutoff", "source": "web1", "disks": [], "clones": {}}
    assert tree({"bases": {"golden": shown}}, screen()) == ["golden  shutoff, made from web1"]
