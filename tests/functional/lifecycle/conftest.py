"""What tests of several files of this folder share: bases made of images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.config import base_keys
from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.hosts import make_base
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.lifecycle import base_from, finish_base
from saltext.kvmclone.model.made_base import MadeBase
from saltext.kvmclone.system import download
from tests.support.made_bases import MIB, Make
from tests.support.web import Site, served
from tests.support.world import World


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(download, "FIRST_PAUSE_S", 0.01)
    made = Site()
    with served(made):
        yield made


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk that boots nothing: a partition table, and some content."""
    path = tmp_path_factory.mktemp("images") / "disk.raw"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
        file.write(b"\xf4" + b"\0" * 509 + b"\x55\xaa")
        file.seek(MIB)
        file.write(os.urandom(2 * MIB))
    return path


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    (folder / "qemu-guest-agent.deb").write_bytes(b"no package")
    return folder


@pytest.fixture
def make(world: World, host: LocalHost, packages: Path) -> Make:
    def made(name: str, source: str, **keys: Any) -> MadeBase:
        given: dict[str, Any] = {
            "pool": world.lab.pool,
            "networks": [{"network": world.lab.network}],
            "domain_type": world.lab.domain_type,
            "memory": "128MiB",
            "cpus": 1,
            "packages": str(packages),
            "timeout": 3,
            **keys,
        }
        request, origin = base_keys.request(Catalogue(), source, name, given, "kvm01")
        return make_base.make(host, request, origin)

    return made


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that is done at once, and is not even started."""

    def booted(making: Any) -> tuple[str, ...]:
        making._found("installed")
        return ("cloud-init complains: of nothing",)

    monkeypatch.setattr(base_from._Making, "_boot", booted)
    monkeypatch.setattr(finish_base, "clean_and_shut_off", lambda *_arguments: ())


@pytest.fixture
def nothing_left(world: World) -> Iterator[None]:
    """Whatever the test does leaves neither a machine nor a file of its own."""
    before = world.footprint()
    yield
    assert world.footprint() == before
