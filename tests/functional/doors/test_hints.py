"""
Every refusal has a way out that works: what its hint says is typed, word for word, in the state in
which it was given, and then what was refused is possible.

``tests/unit/test_hints.py`` holds that no hint of the library is forgotten.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from lab.common import LIBVIRT_URI
from lab.lab import connection
from saltext.kvmclone.errors import (
    AlreadyExists,
    CloneInUse,
    ConfigError,
    CreateInProgress,
    DamagedRecord,
    ForeignDomain,
    HostError,
    KeptAfterFailure,
    KvmCloneError,
    NotFound,
    OutOfReach,
    PlanRefused,
    Renamed,
)
from saltext.kvmclone.hosts import gc, provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.hints import AT_HOST, AT_MASTER
from saltext.kvmclone.model.record import Minion
from saltext.kvmclone.model.record_xml import NAMESPACE
from saltext.kvmclone.model.request import InterfaceChanges, Request
from saltext.kvmclone.system import processes
from tests.functional.lifecycle.test_adopt import old_clone
from tests.support.edited_definitions import respell
from tests.support.hints import Typist, commands, tries
from tests.support.networks import network
from tests.support.open_images import open_in_a_tool
from tests.support.storage import storage_pool
from tests.support.world import World, quick

pytestmark = pytest.mark.slow

Change = Callable[..., None]


@pytest.fixture
def host(request: pytest.FixtureRequest) -> LocalHost:
    """Most hints are read on the host alone here; see :data:`both`."""
    ours = getattr(request, "param", AT_HOST)
    return LocalHost(LIBVIRT_URI, label="kvm01", ours=ours)


#: The same refusal is read at the master, too, and names its commands.
both = pytest.mark.parametrize("host", [AT_MASTER, AT_HOST], indirect=True)


@pytest.fixture
def change(opened: Host) -> Change:
    """Changes the record of a clone."""

    def save(name: str, **changes: object) -> None:
        handle = opened.domain(name)
        record = handle.record()
        assert record is not None
        handle.save_record(replace(record, **changes))  # type: ignore[arg-type]

    return save


def refusal(kind: type[KvmCloneError], work: Callable[[], object]) -> str:
    """The hint that a refusal gives; where it is a plan's, the commands are in the message."""
    with pytest.raises(kind) as info:
        work()
    return f"{info.value.message}   {info.value.hint}"


def conflict(host: LocalHost, request: Request, words: str) -> str:
    """The conflict of a plan that says so."""
    (found,) = [one for one in host.plan(request)["conflicts"] if words in one]
    return str(found)


# --- a create that is refused -------------------------------------------------------------------


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


# --- a destroy that is refused ------------------------------------------------------------------


@both
@tries("destroy_foreign._judge", "hints.Commands.on_host")
def test_a_foreign_machine(world: World, host: LocalHost, base: str, typist: Typist) -> None:
    hint = refusal(ForeignDomain, lambda: host.destroy(base))
    disk = world.disks(base)[0]
    typist(hint, "force=True")
    assert not world.exists(base)
    assert disk.exists()


@tries("destroy_foreign._judge", "adopt.adopt")
def test_a_clone_of_the_old_driver(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    old = old_clone(world, base)
    hint = refusal(ForeignDomain, lambda: host.destroy(old))
    typist(hint, *[one for one in commands(hint) if "adopt" in one])
    typist(refusal(AlreadyExists, lambda: host.adopt(old)))
    host.destroy(old)
    foreign = world.base("foreign")
    hint = refusal(ForeignDomain, lambda: host.adopt(foreign))
    typist(hint.replace("base_domain=BASE", f"base_domain={base}"))


@both
@tries(
    "destroy._require_definition", "destroy_foreign._keeps", "hints.Commands.redefine",
    "hints.Commands.line",
)  # fmt: skip
@pytest.mark.guest
def test_a_clone_that_was_undefined_while_it_runs(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    host.boot(name)
    with connection() as conn:
        conn.lookupByName(name).undefine()
    typist(refusal(HostError, lambda: host.destroy(name)))
    host.destroy(name)
    assert not disk.exists()


@both
@tries("out_of_reach.refusal", "out_of_reach._way_to")
@pytest.mark.parametrize("lost", [False, True])
def test_a_disk_that_is_out_of_reach(
    world: World, host: LocalHost, base: str, outside: Path, typist: Typist, lost: bool
) -> None:
    name, folder = world.name(), outside / f"pool-{world.token}"
    with storage_pool(folder.name, folder):
        host.clone(quick(name, base, pool=folder.name))
        disk = world.disks(name)[0]
        away = folder.rename(folder.with_name(f"away-{world.token}"))
        hint = refusal(OutOfReach, lambda: host.destroy(name))
        if lost:
            typist(hint, "force=True")
            assert not world.exists(name)
        away.rename(folder)
        assert disk.exists()
        if not lost:
            typist(hint, "ls ")
            host.destroy(name)
            assert not disk.exists()


@tries("domain.DomainHandle._record")
def test_a_record_that_cannot_be_read(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    with connection() as conn:
        domain = conn.lookupByName(name)
        element = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
        broken = element.replace('created="', 'created="soon')
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, broken, "kvmclone", NAMESPACE, 2)
    typist(refusal(DamagedRecord, lambda: host.destroy(name)))
    typist(refusal(ForeignDomain, lambda: host.destroy(name)), "force=True")
    assert not world.exists(name)
    assert disk.exists()


@both
@tries("snapshots.in_the_way")
def test_a_protected_base_that_others_stand_on(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name, kid = world.name(), world.name("kid")
    host.clone(quick(name, base, protect=True))
    host.clone(quick(kid, name))
    over = world.disks(base)[0].with_name(f"over-{world.token}.qcow2")
    world.overlay(world.disks(base)[0], over)
    typist(refusal(CloneInUse, lambda: host.unprotect(base)))
    assert not world.exists(kid)
    assert not world.exists(name)
    typist(refusal(CloneInUse, lambda: host.unprotect(base)), "rm ")
    host.unprotect(base)


# --- what is not there --------------------------------------------------------------------------


@both
@tries("host.Host.domain", "record_store.clone_record", "hints.Commands.virsh")
def test_what_is_not_there_or_not_ours(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    assert base in typist(refusal(NotFound, lambda: host.show(name)))
    assert base in typist(refusal(ForeignDomain, lambda: host.show(base)))


@tries("domain.DomainHandle.start", "doctor._Examination._files")
def test_a_clone_that_cannot_start(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    """What it lacks is told by the doctor, with what to do."""
    name = world.name()
    host.clone(quick(name, base))
    world.disks(name)[0].unlink()
    (command,) = commands(refusal(HostError, lambda: host.boot(name)))
    assert "doctor" in command
    (found,) = [one for one in host.doctor() if one["name"] == name]
    typist(found["hint"])
    assert not world.exists(name)


@tries("gc.require_not_renamed")
def test_a_clone_that_was_renamed(
    world: World, host: LocalHost, base: str, change: Change, typist: Typist
) -> None:
    name, now = world.name(), world.name("now")
    host.clone(quick(name, base))
    change(name, minion=Minion(id=name), goal="cloned")
    with connection() as conn:
        conn.lookupByName(name).rename(now)
    hint = refusal(Renamed, lambda: gc.require_not_renamed(name, [], [host.list_clones()]))
    assert now in typist(hint)


@tries("provision.resume")
def test_nothing_to_resume(world: World, host: LocalHost, base: str, typist: Typist) -> None:
    name = world.name()
    host.clone(quick(name, base))

    def nothing(_item: object) -> object:
        raise AssertionError

    hint = refusal(ConfigError, lambda: provision.resume(host, name, nothing))  # type: ignore[arg-type]
    assert name in typist(hint)


# --- what the doctor says -----------------------------------------------------------------------


def finding(host: LocalHost, kind: str) -> dict[str, str]:
    (found,) = [one for one in host.doctor() if one["kind"] == kind]
    return found


@both
@tries("doctor._Examination._work")
def test_unfinished_work(
    world: World, host: LocalHost, base: str, change: Change, typist: Typist
) -> None:
    name, failed = world.name(), world.name("failed")
    for one in (name, failed):
        host.clone(quick(one, base))
    worker = replace(processes.this_process(), pid=2**22 + 1)  # there is none
    change(name, stage="destroying", goal="destroying", worker=worker)
    change(failed, failed="No.", goal="addressed")
    typist(finding(host, "unfinished")["hint"])
    typist(finding(host, "failed")["hint"])
    assert not world.exists(name)
    assert not world.exists(failed)


@tries("doctor._Examination._work")
@pytest.mark.parametrize("stage", ["destroying", "cloned"])
def test_unfinished_work_of_another_machine(
    world: World, host: LocalHost, base: str, change: Change, typist: Typist, stage: str
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    away = replace(processes.this_process(), host="kvm99", boot="boot/1", machine="machine")
    change(name, stage=stage, goal="addressed", worker=away)
    hint = finding(host, "unfinished")["hint"]
    typist(hint if "apply" in hint else f"{hint} apply=True")
    assert not world.exists(name)


@both
@tries("doctor._Examination._reattach", "overlays.delete")
def test_volumes_without_a_user(
    world: World, host: LocalHost, base: str, change: Change, typist: Typist
) -> None:
    name, undefined = world.name(), world.name("undefined")
    for one in (name, undefined):
        host.clone(quick(one, base))
        change(one, goal="cloned")
    disk, stray = world.disks(name)[0], world.disks(undefined)[0]
    world.detach(name, "vda")
    with connection() as conn:
        conn.lookupByName(undefined).undefine()
    typist(finding(host, "volume-unused")["hint"])
    assert world.disks(name) == [disk]
    typist(finding(host, "volume-without-clone")["hint"])
    assert not stray.exists()
    assert host.doctor() == []


@tries("doctor._Examination._copies", "doctor._Examination._damaged")
def test_copies_and_damaged_records(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    copy = world.copy_of(name)
    typist(finding(host, "copied-record")["hint"])
    assert not world.exists(copy)


@both
@tries("base_findings.protected_without_base", "protect._change")
def test_read_only_files_whose_base_is_gone(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    request = quick(name, base, clone_strategy="full", protect=True)
    host.clone(request)
    disk = world.disks(base)[0]
    with connection() as conn:
        conn.lookupByName(base).undefine()
    assert not disk.stat().st_mode & 0o222
    typist(finding(host, "protected-without-base")["hint"])
    assert disk.stat().st_mode & 0o200


@tries("base_findings.written", "doctor._Examination._drift", "doctor._Examination.findings")
@pytest.mark.guest
def test_bases_that_write(world: World, host: LocalHost, base: str, typist: Typist) -> None:
    name = world.name()
    host.clone(quick(name, base))
    world.lab.start(base)
    typist(finding(host, "base-running")["hint"])
    world.lab.start(base)
    with connection() as conn:
        conn.lookupByName(base).managedSave()
    typist(finding(host, "base-saved")["hint"])
    changed = [one for one in host.doctor() if one["kind"] == "base-changed"]
    for one in changed:
        typist(one["hint"])
    assert not {one["kind"] for one in host.doctor()} & {"base-running", "base-saved"}


@tries("base_findings.shared", "doctor._Examination._look_at")
def test_machines_that_share_a_bases_disk(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    machine = world.base("machine")
    respell(machine, world.disks(base)[0])
    assert str(world.disks(base)[0]) in typist(finding(host, "base-shared")["hint"])
