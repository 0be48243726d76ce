"""A push finds out what stands in its way before it touches anything: a base, another push."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from saltext.kvmclone.errors import (
    CopyFailed,
    CreateInProgress,
    MissingProgram,
    PlanRefused,
    PoolFull,
)
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.base_copy import BaseOffer
from saltext.kvmclone.system import copy_folder, fetching
from saltext.kvmclone.system.fetching import FetchFailed, Source
from tests.functional.lifecycle.test_fetch_base import (  # noqa: F401
    Transport,
    base,
    files,
    host,
    offer,
    transport,
)
from tests.support.world import World


def test_a_base_goes_only_once_another_can_be_fetched_in_its_place(
    world: World,
    host: LocalHost,  # noqa: F811
    transport: Transport,  # noqa: F811
    offer: BaseOffer,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = transport.name
    host.fetch_base(offer)
    old = world.xml(name).findtext("uuid")
    here, disk = world.disks(name)[0].stat().st_blocks * 512, offer.files[0]
    with pytest.raises(PlanRefused, match="no base can be"):
        host.prepare_copy(offer)
    for wrong, error in (
        (replace(disk, pool="nowhere"), PlanRefused),
        (replace(disk, allocation=2**60), PoolFull),
    ):
        with pytest.raises(error):
            host.prepare_copy(replace(offer, files=(wrong, *offer.files[1:])), instead=True)

    def cut(source: Source, name: str, path: str) -> None:
        raise FetchFailed("the network is cut")

    with monkeypatch.context() as broken:
        broken.setattr(fetching, "try_out", cut)
        with pytest.raises(CopyFailed, match="network is cut"):
            host.fetch_base(offer, instead=True)
    assert world.xml(name).findtext("uuid") == old and host.expect_base(name).digest
    # The room of what goes counts as free, and its names are no obstacle.
    real, room = os.statvfs(world.lab.pool_path), disk.allocation + 2**21 - here
    full = os.statvfs_result((*real[:1], 1, *real[2:4], max(room, 0), *real[5:]))
    with monkeypatch.context() as broken:
        broken.setattr(os, "statvfs", lambda _path: full)
        assert host.prepare_copy(offer, instead=True)
    assert world.xml(name).findtext("uuid") == old
    assert host.fetch_base(offer, instead=True).digest == offer.digest
    assert world.xml(name).findtext("uuid") != old
    assert files(world, name) == [f"{name}-vda.qcow2", f"{name}_VARS.fd"]


def test_of_two_pushes_at_once_one_is_refused_and_the_other_completed(
    world: World,
    host: LocalHost,  # noqa: F811
    transport: Transport,  # noqa: F811
    offer: BaseOffer,  # noqa: F811
) -> None:
    name, refused = transport.name, []

    def another(file: str, _path: Path) -> None:
        if file != "vda":
            return
        for attempt in (
            lambda: host.expect_base(name),
            lambda: host.prepare_copy(replace(offer, copy="f" * 16)),
            lambda: host.prepare_copy(replace(offer, copy="f" * 16), instead=True),
            lambda: host.remove_base(name, apply=True),
        ):
            with pytest.raises(CreateInProgress) as caught:
                attempt()
            refused.append(caught.value.hint)

    transport.before = another
    assert host.fetch_base(offer).digest == offer.digest
    assert len(refused) == 4 and all(refused)
    assert copy_folder.all_copies() == []


def test_a_host_that_lacks_a_program_says_so_beforehand(
    host: LocalHost,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetching, "missing", lambda: ["rsync"])
    with pytest.raises(MissingProgram, match="rsync") as caught:
        host.expect_base("any")
    assert "rsync" in caught.value.hint
