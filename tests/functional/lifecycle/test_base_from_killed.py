"""A base whose worker died is cleared up after, or left to whoever has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab.lab import Lab
from saltext.kvmclone.config import base_keys
from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.errors import (
    ChecksumMismatch,
    CreateInProgress,
    KvmCloneError,
)
from saltext.kvmclone.hosts import gc
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.lifecycle import base_from
from tests.support.made_bases import Make
from tests.support.web import Site
from tests.support.world import World, sha256

_CHILD = """
import sys, time
from saltext.kvmclone.config import base_keys
from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.hosts import make_base
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.lifecycle import base_from
step = sys.argv[1]
def stop(*_arguments, **_keys):
    print("here", flush=True)
    time.sleep(600)
if step == "download":
    base_from.download.fetch = stop
elif step == "convert":
    base_from.journal.volumes.copying.convert = stop
elif step == "seed":
    base_from.seed_image.write = stop
elif step == "wait":
    base_from.base_setup.wait = stop
keys = eval(sys.argv[4])
request, origin = base_keys.request(Catalogue(), sys.argv[2], sys.argv[3], keys, "kvm01")
make_base.make(LocalHost("qemu:///system", "kvm01"), request, origin)
"""


def killed(lab: Lab, packages: Path, step: str, source: str, name: str, digest: str) -> int:
    """Have a process make a base, and kill it at a step; return its process id."""
    keys = {
        "pool": lab.pool, "networks": [{"network": lab.network}], "memory": "128MiB", "cpus": 1,
        "domain_type": lab.domain_type, "packages": str(packages), "sha256": digest,
    }  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, step, source, name, repr(keys)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "here\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    return child.pid


@pytest.mark.guest
@pytest.mark.parametrize("step", ["download", "convert", "seed", "wait"])
def test_after_a_kill_gc_removes_everything(
    world: World, host: LocalHost, site: Site, disk: Path, packages: Path, step: str
) -> None:
    before = world.footprint()
    site.files["/d"], name = disk, world.name("base")
    killed(world.lab, packages, step, f"{site.url}/d", name, sha256(disk))
    assert world.exists(name)
    listed = gc.collect(host)
    assert {row.kind for row in listed} == {"domain", "volume"}
    assert gc.collect(host, apply=True)
    assert world.footprint() == before


@pytest.mark.usefixtures("instant")
def test_the_same_again_clears_what_a_dead_worker_left(
    world: World, host: LocalHost, make: Make, site: Site, disk: Path, packages: Path
) -> None:
    site.files["/d"], name = disk, world.name("base")
    killed(world.lab, packages, "download", f"{site.url}/d", name, sha256(disk))
    given = {"pool": world.lab.pool, "networks": [{"network": world.lab.network}]}
    given |= {"sha256": sha256(disk), "memory": "128MiB", "domain_type": world.lab.domain_type}
    request, origin = base_keys.request(Catalogue(), f"{site.url}/d", name, given, "kvm01")
    before = world.footprint()
    assert host.expected_base(request, origin).name == name
    assert world.footprint() == before
    made = make(name, f"{site.url}/d", sha256=sha256(disk))
    assert [file.name for file in world.lab.pool_path.glob(f"{name}*")] == [
        Path(made.disks[0].path).name
    ]


def test_a_worker_that_lives_is_left_alone(
    world: World, host: LocalHost, make: Make, site: Site, disk: Path
) -> None:
    site.files["/d"], name = disk, world.name("base")
    told: list[KvmCloneError] = []

    def second() -> None:
        if not told:
            told.append(KvmCloneError("being asked"))
            for attempt in (lambda: make(name, str(disk)), lambda: host.destroy(name)):
                with pytest.raises(CreateInProgress) as busy:
                    attempt()
                told.append(busy.value)

    site.before = second
    with pytest.raises(ChecksumMismatch):
        make(name, f"{site.url}/d", sha256="0" * 64)
    assert len(told) == 3
    assert not world.exists(name)


def test_a_worker_that_lost_its_machine_stops_downloading(
    world: World, host: LocalHost, make: Make, site: Site, disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(base_from, "_OWNER_POLL_S", 0.0)
    site.files["/d"], name = disk, world.name("base")

    def forced() -> None:
        record = world.record(name)
        assert record is not None
        host.destroy(name, token=record.worker.token)

    site.before = forced
    before = world.footprint()
    with pytest.raises(KvmCloneError):
        make(name, f"{site.url}/d", sha256=sha256(disk))
    assert world.footprint() == before
