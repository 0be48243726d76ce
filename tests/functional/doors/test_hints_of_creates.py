"""A create that is refused says what to type, and then it is possible."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from lab.common import LIBVIRT_URI
from lab.lab import connection
from saltext.kvmclone.errors import (
    AlreadyExists,
    CloneInUse,
    CreateInProgress,
    KeptAfterFailure,
    PlanRefused,
)
from saltext.kvmclone.hosts import gc
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.request import InterfaceChanges
from saltext.kvmclone.system import processes
from tests.support.hints import Typist, commands, tries
from tests.support.networks import network
from tests.support.open_images import open_in_a_tool
from tests.support.refusals import Change, both, conflict, refusal
from tests.support.storage import storage_pool
from tests.support.world import World, quick

pytestmark = pytest.mark.slow


@tries("clone_view.already_exists")
def test_a_name_that_is_taken(world: World, host: LocalHost, base: str, typist: Typist) -> None:
    request = quick(world.name(), base)
    host.clone(request)
    typist(refusal(AlreadyExists, lambda: host.clone(request)))
    host.clone(request)


@both
@tries("clone_view.kept")
def test_a_create_that_was_kept(
    world: World, host: LocalHost, base: str, change: Change, typist: Typist
) -> None:
    request = quick(world.name(), base)
    host.clone(request)
    change(request.name, failed="It was too slow.", goal="addressed")
    hint = refusal(KeptAfterFailure, lambda: host.clone(request))
    assert len(commands(hint)) == 2, "resume, or destroy"
    typist(hint, *[one for one in commands(hint) if "destroy" in one])
    host.clone(request)


@tries("clone_view.in_progress", "destroy._require_idle")
@pytest.mark.parametrize("life", ["dead", "alive", "elsewhere"])
def test_work_of_another(
    world: World, host: LocalHost, base: str, change: Change, typist: Typist, life: str
) -> None:
    request = quick(world.name(), base)
    host.clone(request)
    with subprocess.Popen(["sleep", "60"]) as child:
        started = processes._started(child.pid)
        worker = replace(processes.this_process(), pid=child.pid, started=started)
        if life == "elsewhere":
            worker = replace(worker, host="kvm99", boot="boot/1", machine="machine")
        if life != "alive":
            child.kill()
            child.wait()
        change(request.name, worker=worker, goal="addressed")
        hint = refusal(CreateInProgress, lambda: host.clone(request))
        typist(hint)
        if life == "alive":
            child.wait(10)
            typist(refusal(CreateInProgress, lambda: host.clone(request)))
    host.clone(request)


@tries("gc.collect")
def test_a_leftover_of_another_machine(
    world: World, host: LocalHost, base: str, change: Change, typist: Typist
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    away = replace(processes.this_process(), host="kvm99", boot="boot/1", machine="machine")
    change(name, worker=away, goal="addressed")
    typist(refusal(CreateInProgress, lambda: gc.collect(host, name)))
    assert gc.collect(host, name) == []
    assert not world.exists(name)


@tries("disks.check_volume")
def test_a_volume_of_that_name(world: World, host: LocalHost, base: str, typist: Typist) -> None:
    request = quick(world.name(), base)
    host.clone(request)
    with connection() as conn:
        conn.lookupByName(request.name).undefine()
    typist(conflict(host, request, "exists already"))
    host.clone(request)


@both
@tries("disks._pool")
def test_a_base_in_no_pool(world: World, host: LocalHost, outside: Path, typist: Typist) -> None:
    base = world.base()
    folder = outside / f"images-{world.token}"
    folder.mkdir()
    disk = world.disks(base)[0]
    moved = disk.rename(folder / disk.name)
    with connection() as conn:
        xml = conn.lookupByName(base).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        conn.defineXML(xml.replace(str(disk), str(moved)))
    request = quick(world.name(), base)
    typist(conflict(host, request, "in no active storage pool"))
    try:
        host.clone(request)
        host.destroy(request.name)
    finally:
        with connection() as conn:
            conn.storagePoolLookupByName(folder.name).destroy()
        shutil.rmtree(folder)


@both
@tries("disks.usable_pool", "disk_sources._no_image")
def test_a_pool_that_is_off(
    world: World, host: LocalHost, base: str, outside: Path, typist: Typist
) -> None:
    request = quick(world.name(), base, pool=f"pool-{world.token}")
    with storage_pool(request.pool, outside / request.pool, active=False):
        typist(conflict(host, request, "not started"))
        host.clone(request)
        host.destroy(request.name)
    typist(conflict(host, replace(request, pool="none-such"), "no storage pool"))


@both
@tries("disk_sources._no_image")
def test_a_base_whose_pool_is_off(
    world: World, host: LocalHost, outside: Path, typist: Typist
) -> None:
    base = world.base()
    name = f"pool-{world.token}"
    request = quick(world.name(), base, pool=world.lab.pool)
    with storage_pool(name, outside / name):
        disk = world.disks(base)[0]
        moved = disk.rename(outside / name / disk.name)
        with connection() as conn:
            conn.storagePoolLookupByName(name).refresh()
            domain = conn.lookupByName(base)
            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            plain = f"<source file='{disk}'/>"
            assert plain in xml
            xml = xml.replace(plain, f"<source pool='{name}' volume='{moved.name}'/>")
            conn.defineXML(
                xml.replace(
                    "<disk type='file' device='disk'>", "<disk type='volume' device='disk'>"
                )
            )
            conn.storagePoolLookupByName(name).destroy()
        typist(conflict(host, request, "not started"))
        host.clone(request)
        host.destroy(request.name)


@both
@tries("interfaces._check", "reservation._unable", "reservation._without_network")
@pytest.mark.parametrize("keys", [{}, {"ip_source": "reserve"}])
def test_a_network_that_is_off(
    world: World, host: LocalHost, base: str, typist: Typist, keys: dict[str, str]
) -> None:
    with network(world.lab.name) as net:
        net.stop()
        wish = InterfaceChanges(network=net.name)
        request = quick(world.name(), base, networks=(wish,), **keys)
        conflicts = host.plan(request)["conflicts"]
        assert conflicts
        for one in conflicts[:1]:
            typist(one)
        host.clone(request)
        host.destroy(request.name)
    (found,) = [c for c in host.plan(request)["conflicts"] if "no network" in c][:1]
    typist(found)


@both
@tries("planner._base_conflicts", "planner.base_is_on", "protect.check")
@pytest.mark.guest
@pytest.mark.parametrize("protect", [False, True])
def test_a_base_that_is_saved(
    world: World, host: LocalHost, base: str, typist: Typist, protect: bool
) -> None:
    world.lab.start(base)
    with connection() as conn:
        conn.lookupByName(base).managedSave()
    request = quick(world.name(), base, protect=protect)
    typist(
        refusal(PlanRefused, lambda: host.clone(request)),
        f"virsh -c {LIBVIRT_URI} managedsave-remove",
    )
    host.clone(request)
    host.destroy(request.name)


@both
@tries(
    "planner._base_conflicts", "planner.base_is_on", "protect.check", "create._require_base_at_rest"
)
@pytest.mark.guest
def test_a_base_that_runs(world: World, host: LocalHost, base: str, typist: Typist) -> None:
    world.lab.start(base)
    world.lab.wait_for_lease(base)
    request = quick(world.name(), base)
    hint = refusal(PlanRefused, lambda: host.clone(request))
    for _ in range(20):  # a guest that has just booted may not hear it
        if world.state(base) == "shutoff":
            break
        typist(hint)
        subprocess.run(["sleep", "1"], check=True)
    host.clone(request)


@both
@tries("disk_sources._header")
def test_a_disk_that_is_marked_as_corrupt(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    disk, request = world.disks(base)[0], quick(world.name(), base)
    with disk.open("r+b") as image:
        image.seek(72)
        image.write((2).to_bytes(8, "big"))  # incompatible features: corrupt
    typist(conflict(host, request, "corrupt"))
    host.clone(request)


@both
@tries("disk_sources.judge", "destroy.require_unheld")
def test_a_disk_that_somebody_has_open(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    request, other = quick(world.name(), base), quick(world.name("other"), base)
    with open_in_a_tool(world.disks(base)[0]):
        typist(conflict(host, request, "open for writing"))
    host.clone(other)
    with open_in_a_tool(world.disks(other.name)[0]):
        hint = refusal(CloneInUse, lambda: host.destroy(other.name))
        typist(hint)
    host.destroy(other.name)


@both
@tries("disk_sources._chain")
def test_a_backing_file_of_an_untold_format(world: World, host: LocalHost, typist: Typist) -> None:
    base = world.base(chain=1)
    top = world.disks(base)[0]
    with top.open("r+b") as image:  # the extension that names it is no longer one
        data = image.read(512)
        at = data.index(b"\xe2\x79\x2a\xca")
        image.seek(at)
        image.write(b"\x00\x00\x00\x00")
    request = quick(world.name(), base)
    (warning,) = [one for one in host.plan(request)["warnings"] if "rebase" in one]
    typist(warning)
    assert not [one for one in host.plan(request)["warnings"] if "rebase" in one]
