"""A minion that kept the key or the id of its base is told by name, and no other is."""

from __future__ import annotations

from pathlib import Path

import pytest
import salt.config
import yaml

from saltext.kvmclone.master import keys
from saltext.kvmclone.master.keys import MinionKeys
from saltext.kvmclone.master.other_key import OtherKey
from saltext.kvmclone.model.guest_minion import GuestMinion

OURS, OTHER = (keys.generate(2048).public for _ in range(2))


@pytest.fixture
def store(tmp_path: Path) -> MinionKeys:
    """A master's keys, with that of ``web1`` accepted."""
    path = tmp_path / "master"
    folders = {"root_dir": str(tmp_path), "pki_dir": str(tmp_path / "pki")}
    path.write_text(yaml.safe_dump({**folders, "cachedir": str(tmp_path / "cache")}))
    for folder in ("minions", "minions_pre", "minions_denied", "minions_rejected"):
        (tmp_path / "pki" / folder).mkdir(parents=True)
    (tmp_path / "cache").mkdir()
    found = MinionKeys(dict(salt.config.master_config(str(path))))
    found.accept("web1", OURS)
    return found


def guest(minion_id: str = "web1", key: str = OURS) -> GuestMinion:
    return GuestMinion(minion_id, key.strip())


def said(store: MinionKeys, told: GuestMinion) -> str:
    return OtherKey(store, "web1").sentence(told)


def knocked(tmp_path: Path) -> None:
    """A minion with another key was refused under that id."""
    (tmp_path / "pki/minions_denied/web1").write_text(OTHER)


@pytest.mark.parametrize("told", [guest(), guest(key=""), guest(""), GuestMinion()])
def test_of_a_minion_that_may_well_come_nothing_is_said(
    store: MinionKeys, told: GuestMinion
) -> None:
    assert said(store, told) == ""


def test_another_key_in_the_guest_is_told_with_both_fingerprints(store: MinionKeys) -> None:
    text = said(store, guest(key=OTHER))
    assert f"another key ({store.fingerprint(OTHER)})" in text
    assert f"made for 'web1' ({store.fingerprint(OURS)})" in text
    assert "calls itself" not in text
    assert said(store, guest("base1", OTHER)).endswith("It calls itself 'base1' and not 'web1'.")


def test_the_right_key_under_another_id_is_told_as_well(store: MinionKeys) -> None:
    assert said(store, guest("base1")) == "The minion in the guest calls itself 'base1' and not " \
        "'web1'."  # fmt: skip


def test_where_the_guest_tells_no_key_the_master_says_what_it_refused(
    store: MinionKeys, tmp_path: Path
) -> None:
    knocked(tmp_path)
    text = said(store, GuestMinion())
    assert f"({store.fingerprint(OTHER)}) asked to be let in as 'web1'" in text
    assert said(store, guest()) == "", "the base's knocked before it was given ours"


def test_a_key_that_somebody_removed_meanwhile_is_held_against_nobody(
    store: MinionKeys, tmp_path: Path
) -> None:
    assert store.remove("web1", store.fingerprint(OURS))
    knocked(tmp_path)
    assert said(store, guest(key=OTHER)) == ""
