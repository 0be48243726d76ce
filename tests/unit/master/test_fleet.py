"""What a map asks for, of machines that are there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import salt.config

from saltext.kvmclone.errors import AlreadyExists
from saltext.kvmclone.hosts.outcome import Outcome
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.plain import from_plain
from saltext.kvmclone.model.spares import Claim
from saltext.kvmclone.reactor.intake import expect_highstate
from tests.unit.display.examples import clone

THERE = from_plain(Clone, clone())


@pytest.mark.parametrize(
    ("there", "is_it"),
    [
        (THERE, True),
        (replace(THERE, profile="other"), False),
        (replace(THERE, spare="0123"), False),
        (replace(THERE, spare="0123", claim=Claim("alice", 5.0)), True),
    ],
)
def test_a_machine_of_a_map_that_is_there_is_answered_for_unless_anybody_may_claim_it(
    there: Clone, is_it: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same profile, that is; of another one, and of a spare in stock, it is an error."""
    file = tmp_path / "some.map"
    file.write_text("web: [web1]\n")
    error = AlreadyExists("it is there", clone=there.as_dict())
    monkeypatch.setattr(Fleet, "resolve", lambda *_arguments: None)
    monkeypatch.setattr(Fleet, "_create", lambda *_arguments: Outcome("web1", "", None, error))
    master = tmp_path / "master"
    master.write_text(f"{{root_dir: {tmp_path}, cachedir: {tmp_path}, pki_dir: {tmp_path}}}")
    (outcome,) = Fleet(salt.config.master_config(str(master)), expect_highstate).map(str(file))
    assert (outcome.error is None) is is_it
