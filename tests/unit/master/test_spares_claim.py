"""A spare is destroyed for its own silence alone, and a fork is verified by its key."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from saltext.kvmclone.errors import MinionTimeout
from saltext.kvmclone.hosts.outcome import Outcome
from saltext.kvmclone.master import spares_claim, verify
from saltext.kvmclone.master.spares_claim import ClaimRequest, _Candidates, _Taking
from saltext.kvmclone.master.verify import NeverAsked, Verified
from tests.support.stock_hosts import FakeHost


class Master:
    """A master with two spares in stock, and the words that it asked minions for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.host, self.error = FakeHost("kvm01"), error
        self.words: list[str | None] = []
        self.destroyed: list[str] = []
        monkeypatch.setattr(verify, "verify", self._verify)
        monkeypatch.setattr(verify, "start", lambda *_: None)
        monkeypatch.setattr(spares_claim.progress, "fire", lambda *_: None)
        monkeypatch.setattr(spares_claim.fingerprints, "is_of", lambda *_: True)

    def _verify(self, *given: Any) -> Verified:
        self.words.append(given[5])
        if self.error is not None:
            raise self.error
        return Verified("3008.1", "uuid")

    def _destroy(self, name: str) -> Outcome:
        self.destroyed.append(name)
        return Outcome(name, "destroying")

    def claim(self, strategy: str = "quick") -> Outcome | None:
        """Claim one of the spares, which were made so; make none."""
        spares = [self.host.put(one, spare="1", strategy=strategy) for one in ("ci-1", "ci-2")]
        taking = object.__new__(_Taking)
        keys = SimpleNamespace(accepted=lambda _id: "key")
        taking.fleet = SimpleNamespace(opts={}, keys=keys, destroy=self._destroy)  # type: ignore
        taking.wanted = ClaimRequest("ci", "root", wait=False)
        taking.ttl, taking.hosts = 60.0, {"kvm01": self.host}  # type: ignore[dict-item]
        taking.candidates = _Candidates([("kvm01", one) for one in spares])
        return taking.one(0)


def test_where_the_master_asks_nobody_the_stock_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    master = Master(monkeypatch, NeverAsked("No job was published.", "Start the master."))
    outcome = master.claim()
    assert outcome is not None and isinstance(outcome.error, NeverAsked)
    assert master.destroyed == [] and len(master.words) == 1
    assert f"kvmclone.release {outcome.name}" in outcome.error.hint


def test_a_spare_that_is_silent_itself_is_destroyed(monkeypatch: pytest.MonkeyPatch) -> None:
    master = Master(monkeypatch, MinionTimeout("It is silent."))
    assert master.claim() is None
    assert sorted(master.destroyed) == ["ci-1", "ci-2"]


@pytest.mark.parametrize(("strategy", "word"), [("quick", None), ("instant", "")])
def test_a_fork_is_verified_by_its_key_alone(
    monkeypatch: pytest.MonkeyPatch, strategy: str, word: str | None
) -> None:
    master = Master(monkeypatch)
    outcome = master.claim(strategy)
    assert outcome is not None and outcome.error is None
    assert master.words == [word]
