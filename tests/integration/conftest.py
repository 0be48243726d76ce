"""What the integration tests share: one lab, and a Salt world beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from salt import config

from lab.lab import Lab
from lab.salt import SaltWorld
from tests.support.hints import Typist, typist_of


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A libvirtd to work with, a network and a pool; all gone afterwards."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def salt(lab: Lab, request: pytest.FixtureRequest) -> Iterator[SaltWorld]:
    """A master and the KVM host's minion ``kvm01``, with the checkout in ``module_dirs``."""
    folder = lab.folder / f"salt-{request.module.__name__.rpartition('.')[2]}"
    with SaltWorld(folder, address=lab.gateway, owner=lab.name) as world:
        configure(world)
        world.add_minion("kvm01")
        yield world


@pytest.fixture
def opts(world: SaltWorld) -> dict[str, Any]:
    """The configuration of the master of ``world``, which each file makes as it needs it."""
    return dict(config.master_config(str(world.conf / "master")))


@pytest.fixture
def typist(world: SaltWorld, tmp_path: Path) -> Typist:
    """Types what a hint says, at that master."""
    return typist_of(world, tmp_path)


def configure(world: SaltWorld, **profile: str | bool) -> None:
    """A provider that works through ``kvm01``, and a profile ``tiny`` of it."""
    # With a url Salt's own driver would take it too, where there still is one.
    provider = {"driver": "libvirt", "host": "kvm01", "url": "qemu:///system"}
    world.write_cloud("providers", "kvm.conf", {"kvm": provider})
    keys = {"provider": "kvm", "base_domain": "base-tiny", "deploy": False, **profile}
    world.write_cloud("profiles", "tiny.conf", {"tiny": keys})


@contextmanager
def master_keys(world: SaltWorld, **keys: Any) -> Iterator[None]:
    """Keys of ``kvm_clone:`` in the master's configuration, which each command reads anew."""
    path = world.conf / "master"
    before = path.read_text()
    path.write_text(before + yaml.safe_dump({"kvm_clone": keys}))
    try:
        yield
    finally:
        path.write_text(before)
