"""The answer about a base says what its profile has and the base has not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from saltext.kvmclone.hosts import local_bases
from saltext.kvmclone.model.base_request import BaseRequest
from saltext.kvmclone.model.record import Record


@pytest.mark.parametrize("more", [0, 2])
def test_network_cards_that_are_left_out_are_warned_of(more: int) -> None:
    plan = SimpleNamespace(request=BaseRequest("debian12", "/d", further_cards=more))
    record = Record("u", "", "", "full")
    made = local_bases._described(plan, record, "kvm01", "", ("one",), {})  # type: ignore[arg-type]
    assert made.warnings[0] == "one"
    assert [f"{more} more of its profile" in words for words in made.warnings[1:]] == [True] * (
        more > 0
    )
