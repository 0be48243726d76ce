"""What hints about warmed bases say is typed in the state in which they are given."""

from __future__ import annotations

import os
from typing import Any

import pytest

from lab.lab import connection
from saltext.kvmclone.errors import (
    ForeignDomain,
    HostError,
    HostUnreachable,
    PlanRefused,
    PoolFull,
)
from saltext.kvmclone.guest import warming
from saltext.kvmclone.hosts import warm_base
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.lifecycle import warm
from saltext.kvmclone.model.hints import AT_HOST, AT_MASTER
from tests.functional.lifecycle.test_warm import obliging
from tests.support import hint_readers
from tests.support.hints import Typist, hint, tries
from tests.support.world import CloneOf, World

pytestmark = pytest.mark.slow

__all__ = ["obliging"]

host = hint_readers.host


@pytest.fixture
def base(world: World) -> str:
    return world.base(agent=True, options="tiny.nodhcp")


@tries("clone_view.no_clone")
def test_what_was_saved_is_removed_by_the_name_of_its_base(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    saved = host.warm(base).machine
    typist(hint(ForeignDomain, lambda: host.destroy(saved), "holds the saved memory"))
    assert not world.exists(saved)


@tries("warm_findings.find")
@pytest.mark.parametrize("host", [AT_MASTER], indirect=True)
def test_what_was_saved_of_a_base_that_is_gone(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    saved = host.warm(base).machine
    with connection() as conn:
        conn.lookupByName(base).undefine()
    assert not host.tree()["bases"][base]["exists"]
    (found,) = [one for one in host.doctor() if one["kind"] == "warm-unusable"]
    assert "the base is gone" in found["message"]
    typist(found["hint"])
    assert not world.exists(saved)


@tries("warm._require_base")
@pytest.mark.parametrize("host", [AT_HOST], indirect=True)
def test_a_clone_that_is_to_be_warmed(
    host: LocalHost, base: str, clone_of: CloneOf, typist: Typist
) -> None:
    clone = clone_of(base)
    told = typist(hint(PlanRefused, lambda: host.warm(clone), "is no base"))
    assert f'"{base}"' in told


@tries("warm._require_room", "warm._save")
@pytest.mark.parametrize("host", [AT_HOST], indirect=True)
def test_a_pool_without_room_and_a_file_that_appears(
    world: World, host: LocalHost, base: str, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(warm, "_RESERVE", 2**60)
        told = typist(hint(PoolFull, lambda: host.warm(base), "may take"))
    assert "Filesystem" in told

    path = world.lab.pool_path / f"{base}.warm1-memory.save"

    def appears(*_args: Any) -> tuple[str, ...]:
        path.write_text("somebody's")
        return ()

    monkeypatch.setattr(warming, "make_ready", appears)
    told = typist(hint(HostError, lambda: host.warm(base), "cannot be made"))
    assert path.name in told
    assert path.read_text() == "somebody's"


@tries("warm_base._removed")
@pytest.mark.parametrize("host", [AT_HOST], indirect=True)
def test_what_is_left_where_the_answer_was_lost(
    world: World, host: LocalHost, base: str, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: Any, **_keys: Any) -> Any:
        raise HostUnreachable("No answer.", "Repeat it.")

    def refuses(*_args: Any) -> Any:
        raise HostError("It does not work.", "Mend it.")

    with monkeypatch.context() as patched:
        patched.setattr(warming, "make_ready", fails)
        patched.setattr(warm, "undo_stored", lambda *_args: None)
        patched.setattr(LocalHost, "clear", refuses)
        with pytest.raises(HostUnreachable) as caught:
            warm_base.warm(host, base)
    told = typist(caught.value.message)
    assert f"{base}.warm1" in told
    assert os.path.exists(world.disks(f"{base}.warm1")[0])
