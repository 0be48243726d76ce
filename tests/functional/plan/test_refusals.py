"""Promises about bad input: one clear error with a hint, and nothing is written."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from salt.exceptions import CommandExecutionError

from lab.common import LIBVIRT_URI
from lab.lab import connection
from saltext.kvmclone.errors import (
    AlreadyExists,
    HostError,
    HostUnreachable,
    InvalidName,
    KvmCloneError,
    NotFound,
    PlanRefused,
)
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.request import Request
from tests.support.world import CloneOf, Salt, World, full, quick


@contextmanager
def refused(
    world: World, kind: type[KvmCloneError], *words: str
) -> Iterator[pytest.ExceptionInfo[KvmCloneError]]:
    """One error of this kind, with a hint and these words; nothing is changed by it."""
    before = world.footprint()
    with pytest.raises(kind) as info:
        yield info
    for word in words:
        assert word in str(info.value)
    assert info.value.hint
    assert world.footprint() == before


BAD_NAMES = ["a/b", "a\nb", "-rf", "x" * 300, "<x>", "", "a b", "ä", "a..b", 7, True, None, 1.5]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name)[:12])
@pytest.mark.parametrize("function", ["create", "plan", "destroy", "start", "show"])
def test_a_bad_name_is_refused_before_anything_happens(
    salt_minion: Salt, function: str, name: object
) -> None:
    keys = {"base_domain": "there-is-none"} if function in ("create", "plan") else {}
    # An url that cannot be reached: had anything been asked, this would be another error.
    with pytest.raises(CommandExecutionError, match=InvalidName.__name__):
        salt_minion(f"kvm_clone.{function}", name, url="qemu+tcp://127.0.0.1:1/system", **keys)


@pytest.mark.parametrize(
    ("forward", "named"),
    [
        ("<forward mode='bridge'/><bridge name='lo'/>", "forward mode 'bridge'"),
        ("<forward mode='private'><interface dev='lo'/></forward>", "forward mode 'private'"),
        ("", "it has no <dhcp>"),
    ],
)
def test_a_network_that_leases_nothing_is_not_learned_from(
    world: World, host: LocalHost, forward: str, named: str
) -> None:
    name = f"silent-{world.token}"
    with connection() as conn:
        network = conn.networkDefineXML(f"<network><name>{name}</name>{forward}</network>")
    try:
        card = f"<interface type='network'><source network='{name}'/></interface>"
        base = world.base(interfaces=0, devices=card, agent=True)
        request = quick(world.name(), base, ip_source="ip-learning")
        with refused(world, PlanRefused, f"'{name}' hands out none ({named})", "qemu-agent"):
            host.clone(request)
        for source in ("auto", "qemu-agent", "arp"):
            assert host.plan(replace(request, ip_source=source))["conflicts"] == []
    finally:
        with connection():
            network.undefine()


def test_an_agent_that_has_no_channel_is_not_waited_for(
    world: World, host: LocalHost, base: str
) -> None:
    with refused(world, PlanRefused, "'ip_source: auto'", "org.qemu.guest_agent.0"):
        host.clone(quick(world.name(), base, ip_source="qemu-agent"))


def test_a_missing_base_is_named(world: World, host: LocalHost) -> None:
    with refused(world, NotFound, "'there-is-none'", "virsh"):
        host.clone(quick(world.name(), "there-is-none"))


@pytest.mark.guest
@pytest.mark.parametrize("make", [quick, full])
def test_a_running_base_is_refused_with_the_way_to_stop_it(
    world: World, host: LocalHost, base: str, make: Callable[..., Request]
) -> None:
    world.lab.start(base)
    with refused(world, PlanRefused, "is running", f"virsh -c {LIBVIRT_URI} shutdown {base}"):
        host.clone(make(world.name(), base))


@pytest.mark.guest
def test_a_paused_base_is_refused(world: World, host: LocalHost, base: str) -> None:
    world.lab.start(base)
    with connection() as conn:
        conn.lookupByName(base).suspend()
    with refused(world, PlanRefused, "is paused"):
        host.clone(quick(world.name(), base))


@pytest.mark.guest
def test_a_base_with_saved_memory_is_refused(world: World, host: LocalHost, base: str) -> None:
    world.lab.start(base)
    with connection() as conn:
        conn.lookupByName(base).managedSave()
    with refused(world, PlanRefused, f"virsh -c {LIBVIRT_URI} managedsave-remove {base}"):
        host.clone(quick(world.name(), base))


def test_a_name_that_a_foreign_domain_has_is_refused(
    world: World, host: LocalHost, base: str
) -> None:
    foreign = world.base("foreign")
    with refused(world, PlanRefused, f"'{foreign}' exists already"):
        host.clone(quick(foreign, base))


def test_a_clone_that_is_there_already_is_carried_by_the_error(
    world: World, host: LocalHost, base: str
) -> None:
    request = quick(world.name(), base)
    made = host.clone(request)
    with refused(world, AlreadyExists, f"'{request.name}' exists already") as info:
        host.clone(request)
    error = info.value
    assert isinstance(error, AlreadyExists)
    assert error.clone is not None
    assert error.clone["uuid"] == made.uuid
    assert error.clone["disks"] == made.as_dict()["disks"]


def test_a_clone_that_is_there_already_is_told_so_without_its_base(
    world: World, host: LocalHost, base: str
) -> None:
    request = full(world.name(), base)
    host.clone(request)
    with connection() as conn:
        conn.lookupByName(base).undefine()
    with pytest.raises(AlreadyExists):
        host.clone(request)


@pytest.mark.parametrize("known", [True, False], ids=["known to libvirt", "put there by hand"])
@pytest.mark.parametrize("make", [quick, full])
def test_a_volume_that_is_there_already_is_never_overwritten(
    world: World, host: LocalHost, base: str, make: Callable[..., Request], known: bool
) -> None:
    name = world.name()
    taken = world.lab.pool_path / f"{name}-vda.qcow2"
    taken.write_bytes(b"somebody's data")
    if known:
        world.refresh()
    with refused(world, PlanRefused, str(taken), f"virsh -c {LIBVIRT_URI} vol-delete"):
        host.clone(make(name, base))
    assert taken.read_bytes() == b"somebody's data"


def test_an_nvram_file_that_is_there_already_is_never_overwritten(
    world: World, host: LocalHost
) -> None:
    base = world.base(uefi=True)
    name = world.name()
    taken = world.lab.folder / f"nvram/{name}.fd"
    taken.write_bytes(b"somebody's variables")
    host.clone(quick(name, base))
    host.destroy(name)
    assert taken.read_bytes() == b"somebody's variables"


def test_all_conflicts_are_named_at_once(world: World, host: LocalHost) -> None:
    base = world.base(
        devices="<filesystem type='mount'><source dir='/srv'/><target dir='srv'/></filesystem>"
    )
    name = world.name()
    (world.lab.pool_path / f"{name}-vda.qcow2").write_bytes(b"")
    with refused(world, PlanRefused, "leave_out: [filesystem0]", f"{name}-vda.qcow2"):
        host.clone(quick(name, base))


def test_a_missing_pool_is_named(world: World, host: LocalHost, base: str) -> None:
    with refused(world, PlanRefused, "'no-such-pool'", "pool-list"):
        host.clone(quick(world.name(), base, pool="no-such-pool"))


def test_a_pool_that_is_too_small_is_seen_by_the_plan(
    world: World, host: LocalHost, small_pool: str
) -> None:
    base = world.base(fmt="raw")
    world.filled(base, mebibytes=20)
    request = full(world.name(), base, pool=small_pool)
    (conflict,) = host.plan(request)["conflicts"]
    assert "MiB free" in conflict
    with refused(world, PlanRefused, "MiB free", "clone_strategy: quick"):
        host.clone(request)


def test_room_that_somebody_took_meanwhile_is_seen_by_the_plan(
    world: World, host: LocalHost, small_pool: str
) -> None:
    base = world.base(fmt="raw", disks=2)
    for index in (0, 1):
        world.filled(base, index, mebibytes=6)
    request = full(world.name(), base, pool=small_pool)
    assert host.plan(request)["conflicts"] == []
    # Behind libvirt's back: what it last counted as free is not free any more.
    (world.lab.folder / small_pool / "competing").write_bytes(b"x" * 8 * 2**20)
    with refused(world, PlanRefused, "8 MiB free and the copies need 12 MiB"):
        host.clone(request)


def test_what_a_chain_occupies_is_counted_whole(
    world: World, host: LocalHost, small_pool: str
) -> None:
    base = world.base(chain=2)
    for number, path in enumerate(world.lab.pool_path.glob(f"{base}-0*")):
        words = ["qemu-io", "-f", "qcow2", "-c", f"write -P {number} {number * 8}M 7M", str(path)]
        subprocess.run(words, check=True, capture_output=True)
    with refused(world, PlanRefused, "MiB free and the copies need 2"):
        host.clone(full(world.name(), base, pool=small_pool))


def test_a_pool_that_is_no_folder_is_refused_as_a_destination(
    world: World, host: LocalHost, base: str
) -> None:
    name = f"{world.lab.name}-scsi-{world.token}"
    with connection() as conn:
        conn.storagePoolDefineXML(
            f"<pool type='logical'><name>{name}</name><source><name>none</name></source>"
            "<target><path>/dev/none</path></target></pool>"
        )
    try:
        with refused(world, PlanRefused, "type 'logical'", "directory pool"):
            host.clone(quick(world.name(), base, pool=name))
    finally:
        with connection() as conn:
            conn.storagePoolLookupByName(name).undefine()


def test_an_unreachable_host_says_how_to_try_it_by_hand(world: World) -> None:
    url = "qemu+tcp://127.0.0.1:1/system"
    with refused(world, HostUnreachable, url, "virsh -c"):
        LocalHost(url).clone(quick(world.name(), "any"))


def test_a_second_name_is_not_tried_as_a_host_without_a_word(salt_minion: Salt) -> None:
    with pytest.raises(CommandExecutionError, match="If 'web2' is a machine: one name per call"):
        salt_minion("kvm_clone.start", "web1", "web2")


def test_a_clone_that_cannot_start_names_where_to_look(
    world: World, host: LocalHost, clone_of: CloneOf
) -> None:
    name = clone_of(world.base())
    world.disks(name)[0].unlink()
    with pytest.raises(HostError) as told:
        host.boot(name)
    assert "kvmclone.doctor" in told.value.hint
    assert f"/var/log/libvirt/qemu/{name}.log" in told.value.hint


def test_libvirts_schema_is_asked_unless_told_otherwise(
    world: World, host: LocalHost, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saltext.kvmclone.lifecycle import journal

    real = journal.embed

    def embed_something_unknown(root: object, record: object) -> None:
        real(root, record)
        root.set("unheard", "of")

    monkeypatch.setattr(journal, "embed", embed_something_unknown)
    with refused(world, HostError, "schema", "validate_xml: no"):
        host.clone(quick(world.name("checked"), base))
    assert host.clone(quick(world.name("unchecked"), base, validate_xml=False)).stage == "cloned"


@pytest.mark.parametrize("inside", ["<log file='{}' append='off'/>", ""])
def test_a_clone_never_writes_into_a_file_that_was_there(
    world: World, host: LocalHost, base: str, tmp_path: Path, inside: str
) -> None:
    """A log of the host may be called like the clone, or another machine's socket."""
    name = world.name()
    theirs = tmp_path / name
    theirs.write_text("theirs")
    path = tmp_path / base
    serial = (
        f"<serial type='pty'>{inside.format(path)}</serial>"
        if inside
        else f"<serial type='unix'><source mode='bind' path='{path}'/></serial>"
    )
    definition = world.xml(base)
    devices = definition.find("devices")
    assert devices is not None
    for old in (*devices.findall("serial"), *devices.findall("console")):
        devices.remove(old)
    devices.append(ElementTree.fromstring(serial))
    with connection() as conn:
        conn.defineXML(ElementTree.tostring(definition, encoding="unicode"))
    host.clone(quick(name, base))
    with connection() as conn:
        xml = conn.lookupByName(name).XMLDesc()
    assert f"'{theirs}-2'" in xml
    assert f"'{theirs}'" not in xml
    assert theirs.read_text() == "theirs"
