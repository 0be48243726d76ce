"""A person sees what was asked for by event as a table, with times in ISO form."""

from __future__ import annotations

import dataclasses
from typing import Any

from saltext.kvmclone.display import requests
from saltext.kvmclone.model import units
from saltext.kvmclone.model.hints import AT_HOST
from tests.unit.display.examples import NOW, screen

REASON = "'ttl' is more than the rule allows: at most 12h"


def entry(**keys: Any) -> dict[str, Any]:
    return {
        "token": "0" * 32, "minion_id": "ci01", "name": "ci01-7", "profile": "ci", "keys": {},
        "rule": "", "state": "made", "reason": "", "asked": NOW, "begun": NOW, "digest": "",
        "uuid": "", "address": "192.168.122.9", "told": True, **keys,
    }  # fmt: skip


def test_requests_and_bells_on_the_master() -> None:
    answer = {
        "requests": [entry(), entry(name="big", state="refused", address="", reason=REASON)],
        "bells": [{"bell": "release", "who": "ci01", "tries": 2}],
        "working": False,
    }
    at = units.short_moment(NOW)
    assert requests.on_master(answer, screen("asked")) == [
        f"{'ASKED':<16}  BY    NAME    PROFILE  STATE    ADDRESS",
        f"{at}  ci01  ci01-7  ci       made     192.168.122.9",
        f"{at}  ci01  big     ci       refused",
        "  'ttl' is more than the rule allows: at most 12h",
        "Not looked at yet: release of ci01, tried 2 times",
        "Hint: No worker is running. Start one: salt-run kvmclone.work_off",
    ]


def test_nothing_was_asked_for() -> None:
    answer: dict[str, Any] = {"requests": [], "bells": [], "working": False}
    assert requests.on_master(answer, screen("asked")) == ["Nothing was asked for."]
    assert requests.on_minion([], screen("asked")) == ["Nothing was asked for."]


def test_a_minion_sees_its_own_requests() -> None:
    found = [
        {"token": "a", "bell": "request", "name": "ci01-7", "at": NOW, "profile": "ci", "keys": {},
         "answer": {"verdict": "refused", "reason": REASON}, "told": NOW},
        {"token": "b", "bell": "release", "name": "ci01-6", "at": NOW},
    ]  # fmt: skip
    at = units.short_moment(NOW)
    assert requests.on_minion(found, screen("asked")) == [
        f"{'ASKED':<16}  FOR        NAME    PROFILE  ANSWER   ADDRESS",
        f"{at}  a machine  ci01-7  ci       refused",
        "  'ttl' is more than the rule allows: at most 12h",
        f"{at}  its end    ci01-6           waiting",
    ]


def test_who_asks_is_told_what_happens_next_and_where_to_look() -> None:
    here = dataclasses.replace(screen("ask", "ci01-7", "ci"), ours=AT_HOST)
    lines = requests.noted("0123456789abcdef", here)
    assert lines[0].startswith("ci01-7: the master was asked for a machine (request 01234567).")
    assert lines[-1] == "Hint: See what came of it: salt-call kvm_clone.asked"
