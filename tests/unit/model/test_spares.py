"""Spares have names by a pattern, and a digest of what their profile asked; they are shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from saltext.kvmclone.errors import InvalidName
from saltext.kvmclone.model import spares
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.plain import from_plain
from saltext.kvmclone.model.request import Request, Secrets
from saltext.kvmclone.model.spares import Claim, Stock
from tests.unit.display.examples import clone

REQUEST = Request("web1", "base", profile="ci", host="kvm01", ttl=3600.0)


def test_a_name_is_made_of_its_pattern() -> None:
    assert Stock().pattern("ci") == "ci-{id}"
    assert spares.name_of("ci-{id}.example.org", "0a1b2c") == "ci-0a1b2c.example.org"


@pytest.mark.parametrize("pattern", ["ci", "{id}-{id}", "ci_{id}", "-{id}", "x" * 60 + "{id}", ""])
def test_a_pattern_that_gives_no_name_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidName):
        spares.name_of(pattern, "0a1b2c")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "web2"}, {"host": "kvm02"}, {"ttl": 7200.0}, {"spare": "0123"},
        {"claim": Claim("alice", 5.0)}, {"stock": Stock(5, "x-{id}")}, {"overrides": {"ttl": "2h"}},
    ],
)  # fmt: skip
def test_what_every_spare_of_a_profile_has_of_its_own_makes_no_other_profile(
    changes: dict[str, Any],
) -> None:
    digest = Secrets().profile_digest_of(REQUEST)
    assert Secrets().profile_digest_of(replace(REQUEST, **changes)) == digest


def test_what_makes_another_machine_of_a_spare_makes_another_profile() -> None:
    seed = Secrets(seed=(("user-data", "x"),))
    digests = {
        Secrets().profile_digest_of(REQUEST),
        Secrets().profile_digest_of(replace(REQUEST, memory=2**30)),
        Secrets().profile_digest_of(replace(REQUEST, base_domain="other")),
        seed.profile_digest_of(REQUEST),
    }
    assert len(digests) == 4


def test_the_ttl_of_a_spare_runs_from_its_claim() -> None:
    spare = replace(REQUEST, spare="0123")
    assert (spare.in_stock, spare.expires) == (True, 0.0)
    claimed = replace(spare, claim=Claim("alice", 1000.0))
    assert (claimed.in_stock, claimed.expires) == (False, 4600.0)
    assert replace(claimed, ttl=None).expires == 0.0


def test_a_clone_says_what_it_is_as_a_spare_exactly_where_it_is_one() -> None:
    made = from_plain(Clone, clone())
    assert not {"spare", "claim", "claimed"} & set(made.as_dict())
    stock = replace(made, spare="0123").as_dict()
    assert stock["spare"] is True and not {"claim", "claimed"} & set(stock)
    taken = replace(made, spare="0123", claim=Claim("alice", 5.5)).as_dict()
    for told in (made.as_dict(), stock, taken):
        assert Clone.from_dict(told).as_dict() == told
    for wrong in ({**stock, "spare": "0123"}, {**taken, "claimed": True}, {**taken, "by": "x"}, []):
        with pytest.raises(ValueError, match=r"instead of|not known"):
            Clone.from_dict(wrong)
    assert taken["claimed"] == {"by": "alice", "at": 5.5} and not {"claim", "spare"} & set(taken)
