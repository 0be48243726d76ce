"""A base that another one is to replace stays until that can be fetched."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from saltext.kvmclone.errors import CopyFailed, PlanRefused, PoolFull
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.base_copy import BaseOffer
from saltext.kvmclone.system import fetching
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
