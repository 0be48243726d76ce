"""Why a guest does not reach its master, in words that name both keys."""

from __future__ import annotations

import pytest

from saltext.kvmclone.model.master_ports import FAULTS, PortCheck, reached, unreached


def checks(*faults: str, master: str = "192.0.2.1") -> list[PortCheck]:
    keys = ("master_port", 4506), ("publish_port", 4505)
    return [
        PortCheck(master, key, port, one) for (key, port), one in zip(keys, faults, strict=True)
    ]


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (
            ("ECONNREFUSED", ""),
            "connection refused by port 4506 (master_port); reached: port 4505 (publish_port)",
        ),
        (
            ("ETIMEDOUT", "ETIMEDOUT"),
            "no answer within 4 s from port 4506 (master_port) and port 4505 (publish_port)",
        ),
    ],
)
def test_a_master_that_is_not_reached_is_named_with_port_and_reason(
    faults: tuple[str, str], words: str
) -> None:
    told = unreached(checks(*faults))
    assert told == f"The guest does not reach its master '192.0.2.1': {words}."


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_words(fault: str) -> None:
    assert fault not in unreached(checks(fault, ""))


def test_a_guest_that_reaches_its_master_is_told_apart_from_one_that_was_not_asked() -> None:
    assert unreached(checks("", "")) == unreached([]) == reached([]) == ""
    assert reached(checks("", "")) == (
        "The guest reaches its master '192.0.2.1': "
        "port 4506 (master_port) and port 4505 (publish_port)."
    )


def test_of_several_masters_those_are_named_that_are_not_reached() -> None:
    told = unreached([*checks("", "", master="good"), *checks("EAI", "EAI", master="bad")])
    assert told.startswith("The guest does not reach its master 'bad': the name cannot be resolved")
    assert "good" not in told
