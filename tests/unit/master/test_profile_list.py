"""The list of profiles says what is wrong with them, and when nothing refills their spares."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.master import profile_list, spares_notes
from saltext.kvmclone.master.spares_notes import Notes
from tests.support.catalogues import catalogue_of

REFILL = "Once: salt-run kvmclone.work_off"
#: What a profile with spares has to have besides.
SPARES = {"spares": 2, "spare_names": "ci-{id}", "ttl": "1h"}


def listing(folder: Path, keys: dict[str, Any], looked: float = 0.0) -> dict[str, Any]:
    """Return the list for a master that last looked at its spares then; 0 for never."""
    opts = {"cachedir": str(folder)}
    spares_notes.write(opts, Notes(looked=looked))
    return profile_list.listing(opts, catalogue_of(keys))


def test_profiles_and_providers_are_listed_without_a_warning(tmp_path: Path) -> None:
    told = listing(tmp_path, {"cpus": 2})
    assert told["profiles"]["small"]["cpus"] == 2
    assert "local-kvm" in told["providers"]
    assert (told["warnings"], told["problems"], told["retcode"]) == ([], [], 0)


def test_a_problem_is_listed_and_changes_the_exit_code(tmp_path: Path) -> None:
    told = listing(tmp_path, {"cpus": "many"})
    assert "cpus" in told["problems"][0]
    assert told["retcode"] == 1


def test_spares_that_nothing_refills_are_a_warning(tmp_path: Path) -> None:
    told = listing(tmp_path, SPARES)
    assert told["problems"] == []
    assert REFILL in told["warnings"][-1]
    assert told["retcode"] == 0


@pytest.mark.parametrize("keys", [SPARES, {**SPARES, "spares": 0}, {}])
def test_there_is_no_such_warning_where_they_are_refilled_or_none_is_wanted(
    tmp_path: Path, keys: dict[str, Any]
) -> None:
    looked = time.time() if keys.get("spares") else 0.0
    assert not [one for one in listing(tmp_path, keys, looked)["warnings"] if REFILL in one]
