"""One scratch world on the real libvirtd for all tests here; every test cleans up after itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import salt.loader

from lab.common import LIBVIRT_URI
from lab.lab import Lab
from saltext.kvmclone.operations import LocalHost
from tests.functional.world import Salt, World, minion_opts, quick


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with Lab() as world:
        yield world


@pytest.fixture
def world(lab: Lab, request: pytest.FixtureRequest) -> Iterator[World]:
    number = request.session.stash.setdefault(_COUNT, 0) + 1
    request.session.stash[_COUNT] = number
    world = World(lab, f"{lab.name[-4:]}t{number}")
    yield world
    world.tidy()


_COUNT: pytest.StashKey[int] = pytest.StashKey()


@pytest.fixture
def host() -> LocalHost:
    return LocalHost(LIBVIRT_URI, label="kvm01")


@pytest.fixture
def base(world: World) -> str:
    """The plainest base: one qcow2 disk."""
    return world.base()


@pytest.fixture
def clone_of(world: World, host: LocalHost) -> Callable[..., str]:
    """Makes a finished clone (shut off) and answers with its name."""

    def make(base: str, word: str = "clone", **keys: Any) -> str:
        name = world.name(word)
        host.clone(quick(name, base, **keys))
        return name

    return make


@pytest.fixture
def make_salt(tmp_path: Path) -> Callable[..., Salt]:
    """Loads the plugins from the checkout into a minion's loader; keywords are its opts."""

    def make(**extra: Any) -> Salt:
        opts = minion_opts(tmp_path)
        opts.update(extra)
        functions = salt.loader.minion_mods(opts, context={})
        states = salt.loader.states(opts, functions, {}, None, context={})
        return Salt(opts, functions, states)

    return make


@pytest.fixture
def salt_minion(make_salt: Callable[..., Salt]) -> Salt:
    return make_salt()


@pytest.fixture
def salt_test_mode(make_salt: Callable[..., Salt]) -> Salt:
    """The same with ``test=True``."""
    return make_salt(test=True)
