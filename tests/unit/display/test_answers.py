"""Every command has a screen of its own, and what is not understood is left to Salt."""

from __future__ import annotations

import dataclasses

import pytest

from saltext.kvmclone.display import answers
from saltext.kvmclone.display.screen import Screen
from tests.unit.display.examples import clone, error, screen


def at_minion(function: str) -> Screen:
    return dataclasses.replace(screen(function), minion="kvm01")


def test_several_clones_are_a_line_each() -> None:
    told = answers.of_runner(
        {"clones": {"web1": clone(), "web2": error()}, "retcode": 1}, screen("create")
    )
    assert told is not None
    assert told.splitlines()[:2] == [
        "web1  192.168.122.57  ready in 27.2 s on kvm01  Salt 3008.3",
        "web2  failed: AddressTimeout",
    ]


def test_a_command_that_failed_as_a_whole_is_a_failure() -> None:
    told = answers.of_runner({"error": error()["error"], "retcode": 1}, screen("list"))
    assert told is not None
    assert told.startswith("failed: AddressTimeout\n")


def test_a_host_answers_with_the_bare_clone() -> None:
    assert answers.of_minions({"kvm01": clone()}, lambda _: at_minion("start")) == (
        "web1 is running at 192.168.122.57."
    )


def test_an_answer_that_does_not_name_its_host_has_a_heading() -> None:
    told = answers.of_minions({"kvm01": []}, lambda _: at_minion("doctor"))
    assert told == "kvm01:\n  No problems were found."
    assert answers.of_minions({"local": []}, lambda _: screen("doctor")) == (
        "No problems were found."
    )


def test_one_failure_among_several_hosts_hides_no_other_answer() -> None:
    told = answers.of_minions(
        {"kvm01": clone(), "kvm02": "ERROR: no"}, lambda _: at_minion("start")
    )
    assert told == "web1 is running at 192.168.122.57.\nkvm02:\n  ERROR: no"


def test_nothing_done_is_said() -> None:
    assert answers.of_runner({"clones": {}, "retcode": 0}, screen("map")) == "Nothing to do."


@pytest.mark.parametrize("answer", ["ERROR: NotFound: …", "Minion did not return.", True, None])
def test_what_is_no_answer_of_ours_is_left_to_salt(answer: object) -> None:
    assert answers.of_minions({"kvm01": answer}, lambda _: at_minion("show")) is None


def test_a_function_for_programs_is_left_to_salt() -> None:
    assert answers.of_minions({"kvm01": {}}, lambda _: at_minion("published")) is None
    assert answers.of_runner({"done": 1, "retcode": 0}, screen("work_off")) is None
