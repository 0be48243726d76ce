"""Promises about many at once, from several processes: all succeed, and no two are alike."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab.common import CHECKOUT, LIBVIRT_URI
from lab.lab import connection
from saltext.kvmclone.errors import CreateInProgress, KvmCloneError, PlanRefused
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hosts.outcome import Outcome
from saltext.kvmclone.inventory import file_usage_scan
from saltext.kvmclone.model.request import Request
from tests.support.world import World, at_once, full, quick, sha256

pytestmark = pytest.mark.slow

PROCESSES = 5
EACH = 4

PROGRAM = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
sys.path[:0] = ['_utils', '.']
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.request import Request, Wait

url, base, strategy, start, names = json.loads(sys.argv[1])

def one(name):
    request = Request(
        name=name, base_domain=base, clone_strategy=strategy, wait=Wait(timeout=480)
    )
    return provision.create(LocalHost(url, 'kvm01'), request, start=start).as_dict()

with ThreadPoolExecutor(len(names)) as pool:
    print(json.dumps(list(pool.map(one, names))))
"""


def many(base: str, batches: list[list[str]], strategy: str, start: bool) -> list[dict[str, Any]]:
    """Creates from as many processes as there are batches, all at the same moment."""
    running = []
    for names in batches:
        order = json.dumps([LIBVIRT_URI, base, strategy, start, names])
        words = [sys.executable, "-c", PROGRAM, order]
        running.append(
            subprocess.Popen(
                words, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    told: list[dict[str, Any]] = []
    for process in running:
        out, err = process.communicate(timeout=560)
        assert process.returncode == 0, err
        told += json.loads(out)
    return told


@pytest.mark.guest
@pytest.mark.slow
def test_twenty_at_once_are_twenty_machines(world: World) -> None:
    base = world.base()
    sums = [sha256(path) for path in world.disks(base)]
    batches = [[world.name(f"many{p}x{n}") for n in range(EACH)] for p in range(PROCESSES)]
    clones = many(base, batches, "quick", start=True)
    assert [clone["error"] for clone in clones if "error" in clone] == []
    assert len(clones) == PROCESSES * EACH
    assert {clone["stage"] for clone in clones} == {"addressed"}
    for key in ("name", "uuid", "address"):
        assert len({clone[key] for clone in clones}) == len(clones), key
    cards = [world.xml(clone["name"]).find("./devices/interface/mac") for clone in clones]
    assert len({card.get("address") for card in cards if card is not None}) == len(clones)
    assert [sha256(path) for path in world.disks(base)] == sums


@pytest.mark.parametrize("strategy", ["quick", "full"])
def test_twenty_that_are_only_made_are_all_whole(
    world: World, host: LocalHost, strategy: str
) -> None:
    base = world.base(disks=["qcow2", "raw"])
    before = world.footprint()
    batches = [[world.name(f"many{p}x{n}") for n in range(EACH)] for p in range(PROCESSES)]
    clones = many(base, batches, strategy, start=False)
    assert [clone["error"] for clone in clones if "error" in clone] == []
    paths = {disk["path"] for clone in clones for disk in clone["disks"]}
    assert len(paths) == 2 * len(clones)
    assert all(Path(path).exists() for path in paths)
    for clone in clones:
        host.destroy(clone["name"])
    assert world.footprint() == before


def test_many_that_are_destroyed_at_once_share_their_looks_and_leave_nothing(
    world: World, host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = world.base(disks=2)
    before = world.footprint()
    names = [world.name(f"gone{number}") for number in range(12)]
    for name in names:
        assert provision.create(host, quick(name, base), start=False).error is None
    looks: list[None] = []
    scanned = file_usage_scan._scanned
    monkeypatch.setattr(
        file_usage_scan, "_scanned", lambda host: (looks.append(None), scanned(host))[1]
    )
    destroyed = at_once(*[partial(LocalHost(host.url).destroy, name) for name in names])
    assert [clone.name for clone in destroyed] == names
    assert world.footprint() == before
    assert len(looks) < 2 * len(names), "each would look twice by itself"


def test_of_many_creates_of_one_name_one_clone_comes(world: World, host: LocalHost) -> None:
    base = world.base(disks=2)
    before = world.footprint()
    name = world.name()
    clones = many(base, [[name], [name], [name], [name]], "quick", start=False)
    # Those that came while it was made got it; those that came later are told that it is there.
    errors = [clone["error"]["type"] for clone in clones if "error" in clone]
    assert set(errors) <= {"AlreadyExists"}
    uuids = {clone.get("uuid") or clone["error"]["clone"]["uuid"] for clone in clones}
    assert len(uuids) == 1
    host.destroy(name)
    assert world.footprint() == before


def race(*runs: Callable[[], object]) -> list[object]:
    """Everything at the same moment; what each came to, an error of ours included."""

    def one(run: Callable[[], object]) -> object:
        try:
            return run()
        except KvmCloneError as error:
            return error

    return at_once(*[partial(one, run) for run in runs])


@pytest.mark.parametrize("head_start", [0.0, 0.02, 0.05, 0.1])
def test_of_create_and_destroy_one_wins_and_the_other_explains(
    world: World, host: LocalHost, head_start: float
) -> None:
    base = world.base(disks=3)
    before = world.footprint()
    name = world.name()

    def destroy() -> object:
        time.sleep(head_start)
        return LocalHost(host.url).destroy(name)

    created, destroyed = race(
        lambda: provision.create(LocalHost(host.url), quick(name, base), start=False), destroy
    )
    assert isinstance(created, Outcome)
    if isinstance(destroyed, KvmCloneError):
        assert destroyed.hint
        assert created.error is None
        host.destroy(name)
    else:
        assert created.error is None or created.error.hint
    assert not world.exists(name)
    assert world.footprint() == before


def test_of_two_destroys_both_end_well_or_one_explains(
    world: World, host: LocalHost, base: str
) -> None:
    before = world.footprint()
    name = world.name()
    host.clone(quick(name, base))
    ends = race(*[lambda: LocalHost(host.url).destroy(name)] * 2)
    failed = [end for end in ends if isinstance(end, KvmCloneError)]
    assert len(failed) <= 1
    assert all(error.hint for error in failed)
    assert world.footprint() == before


@pytest.mark.guest
@pytest.mark.parametrize("make", [quick, full])
@pytest.mark.parametrize("head_start", [0.0, 0.02, 0.05, 0.1])
def test_of_create_and_a_base_that_starts_one_wins_and_the_other_explains(
    world: World, host: LocalHost, head_start: float, make: Callable[..., Request]
) -> None:
    base = world.base()
    name = world.name()

    def start_base() -> object:
        time.sleep(head_start)
        with connection() as conn:
            return conn.lookupByName(base).create()

    created, _ = race(
        lambda: provision.create(LocalHost(host.url), make(name, base), start=False), start_base
    )
    assert isinstance(created, Outcome)
    if created.error is not None:
        assert isinstance(created.error, (PlanRefused, CreateInProgress))
        assert base in created.error.message
        assert not world.exists(name)
    elif make is quick:
        assert host.show(name).drift, "the base came second, and every look at the clone says so"
