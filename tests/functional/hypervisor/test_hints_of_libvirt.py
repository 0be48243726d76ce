"""What hints about libvirt say is typed in the state in which they are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libvirt
import pytest

from lab import libvirtd
from lab.common import run, wait_until
from lab.lab import connection
from saltext.kvmclone.errors import (
    GuestStopped,
    HostError,
    HostUnreachable,
    NotFound,
    PlanRefused,
    PoolFull,
)
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor import networks, volumes
from saltext.kvmclone.hypervisor.constants import OPERATION_INVALID
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.request import InterfaceChanges
from tests.functional.hypervisor.test_busy_volumes import being_made  # noqa: F401
from tests.functional.lifecycle.test_full_pool import fill_before
from tests.functional.lifecycle.test_wait_for_address import panicking
from tests.support import hint_readers
from tests.support.hints import Typist, before, hint, tries
from tests.support.networks import Network, network
from tests.support.remote_url import libvirt_over_ssh
from tests.support.storage import file_system, storage_pool
from tests.support.world import World, full, quick

pytestmark = pytest.mark.slow

host = hint_readers.host


@pytest.fixture
def commands(host: LocalHost) -> Commands:
    return Commands(host.url, host.ours, host.label)


# --- the daemon ---------------------------------------------------------------------------------


@tries("connection._way_to_daemon")
def test_a_daemon_that_is_gone_is_started(base: str, host: LocalHost, typist: Typist) -> None:
    with libvirtd.stopped():
        told = hint(HostUnreachable, host.list_clones)
        assert "systemctl start libvirtd" in told, "which nobody hears without systemd"
        typist(told, "libvirtd -d")
        assert base in [one["name"] for one in host.bases()]


@tries("connection.Connection.call")
def test_a_connection_that_is_lost(
    base: str, host: LocalHost, commands: Commands, typist: Typist
) -> None:
    with Host(host.url, commands=commands) as opened, libvirtd.stopped():
        typist(hint(HostUnreachable, lambda: opened.find(base), "was lost"), "libvirtd -d")
        opened.reopen()
        assert opened.find(base) is not None


def test_a_daemon_far_away_that_does_not_answer() -> None:
    """Nobody mends it from here: what libvirt says is shown by its own tool, too."""
    told = hint(HostUnreachable, LocalHost("qemu+tcp://127.0.0.1:9/system").list_clones)
    assert told == "Try it by hand: virsh -c qemu+tcp://127.0.0.1:9/system list"


@tries("connection.Connection.call")
def test_a_refusal_of_libvirt_and_a_disk_that_is_full(
    world: World, host: LocalHost, commands: Commands, small_pool: str, typist: Typist
) -> None:
    with Host(host.url, commands=commands) as opened:
        typist(hint(HostError, lambda: opened.call(opened.raw.networkLookupByName, "none-such")))
        pool = opened.raw.storagePoolLookupByName(small_pool)
        size = 64 * 2**20
        xml = (
            f"<volume><name>{world.name()}.raw</name><capacity>{size}</capacity><allocation>{size}"
            "</allocation><target><format type='raw'/></target></volume>"
        )
        told = hint(HostError, lambda: opened.call(pool.createXML, xml, 0))
        assert small_pool in typist(told, "df -h")


@tries("hints.Commands.script", "connection.Connection.call")
def test_a_refusal_of_a_libvirt_far_away_is_looked_up_there(tmp_path: Path, typist: Typist) -> None:
    (tmp_path / "far").mkdir()
    with libvirt_over_ssh(tmp_path / "far") as url, Host(url) as opened:
        told = hint(HostError, lambda: opened.call(opened.raw.networkLookupByName, "none-such"))
        assert "root@127.0.0.1 'journalctl -u libvirtd'" in told
        typist(told)


# --- volumes ------------------------------------------------------------------------------------


@tries("volumes._refusal")
def test_a_file_that_appears_while_a_clone_is_made(
    world: World, host: LocalHost, base: str, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = quick(world.name(), base)
    stranger = world.lab.pool_path / f"{request.name}-vda.qcow2"
    before(monkeypatch, volumes, "create", lambda: stranger.write_bytes(b"of nobody"))
    told = hint(PlanRefused, lambda: host.clone(request), "appeared in the meantime")
    assert str(stranger) in typist(told)
    assert stranger.read_bytes() == b"of nobody"


@tries("volumes._refusal")
def test_over_a_remote_connection_its_pool_tells_of_it(
    world: World, far_host: LocalHost, base: str, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = quick(world.name(), base)
    stranger = world.lab.pool_path / f"{request.name}-vda.qcow2"
    before(monkeypatch, volumes, "create", lambda: stranger.write_bytes(b"of nobody"))
    told = hint(PlanRefused, lambda: far_host.clone(request), "appeared in the meantime")
    assert str(stranger) in typist(told)


@tries("volumes._refusal")
def test_a_disk_of_the_base_that_goes_away_while_a_clone_is_made(
    world: World, host: LocalHost, base: str, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = world.disks(base)[0]
    before(monkeypatch, volumes, "create", lambda: disk.rename(disk.with_suffix(".away")))
    told = hint(PlanRefused, lambda: host.clone(quick(world.name(), base)), "disappeared")
    assert disk.with_suffix(".away").name in typist(told), "it shows what is beside it"


@tries("volumes._without_pool")
@pytest.mark.parametrize("gone", [False, True])
def test_a_pool_that_is_stopped_or_removed_while_a_clone_is_made(
    world: World,
    host: LocalHost,
    base: str,
    outside: Path,
    typist: Typist,
    monkeypatch: pytest.MonkeyPatch,
    gone: bool,
) -> None:
    request = quick(world.name(), base, pool=f"pool-{world.token}")

    def away() -> None:
        with connection() as conn:
            pool = conn.storagePoolLookupByName(request.pool)
            pool.destroy()
            if gone:
                pool.undefine()

    with storage_pool(request.pool, outside / request.pool):
        before(monkeypatch, volumes, "create", away)
        printed = typist(hint(PlanRefused, lambda: host.clone(request), "in the meantime"))
        if gone:
            assert request.pool not in printed
            assert world.lab.pool in printed
        else:
            host.clone(request)
            host.destroy(request.name)


@tries("volumes._full")
def test_a_pool_that_runs_full(
    world: World, host: LocalHost, small_pool: str, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = world.base(fmt="raw")
    world.filled(base, mebibytes=4)
    with monkeypatch.context() as patch:
        fill_before(patch, "vda", world.lab.folder / small_pool, leave=2**20)
        told = hint(PoolFull, lambda: host.clone(full(world.name(), base, pool=small_pool)))
    assert small_pool in typist(told)


@tries("volumes.delete", "volumes._delete")
@pytest.mark.parametrize("known", [False, True])
def test_a_file_that_cannot_be_deleted(
    world: World,
    host: LocalHost,
    commands: Commands,
    outside: Path,
    typist: Typist,
    known: bool,
) -> None:
    folder = outside / f"fs-{world.token}"
    with file_system(folder, "ext4") as mounted, storage_pool(folder.name, mounted):
        run(["rm", "-rf", mounted / "lost+found"])
        path = mounted / f"{world.token}.raw"
        path.write_bytes(b"x")
        with Host(host.url, commands=commands) as opened:
            if known:
                assert volumes.lookup(opened, str(path)) is not None
            run(["mount", "-o", "remount,ro", mounted])
            told = hint(HostError, lambda: volumes.delete(opened, str(path)), "cannot be deleted")
            assert str(path if known else mounted) in typist(told)
            run(["mount", "-o", "remount,rw", mounted])
            assert volumes.delete(opened, str(path))


@tries("volumes.delete")
def test_a_file_of_a_remote_host_that_no_pool_holds(
    world: World, far_host: LocalHost, commands: Commands, outside: Path, typist: Typist
) -> None:
    path = outside / world.token
    with Host(far_host.url, commands=commands) as opened:
        told = hint(HostError, lambda: volumes.delete(opened, str(path)), "no storage pool")
        assert world.lab.pool in typist(told)


@tries("volumes._delete")
def test_a_volume_that_libvirt_still_writes(
    host: LocalHost,
    commands: Commands,
    being_made: Path,  # noqa: F811
    typist: Typist,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(volumes, "VOLUME_BUSY_TIMEOUT_S", 0.0)
    with Host(host.url, commands=commands) as opened:
        told = hint(HostError, lambda: volumes.delete(opened, str(being_made)), "still writing")
        assert being_made.name in told
        typist(told)
        monkeypatch.setattr(volumes, "VOLUME_BUSY_TIMEOUT_S", 60.0)
        assert volumes.delete(opened, str(being_made))


# --- networks -----------------------------------------------------------------------------------


@tries("networks._add", "networks._require_free")
@pytest.mark.parametrize("gone", [False, True])
def test_a_network_that_is_stopped_or_removed_while_a_clone_is_made(
    world: World,
    host: LocalHost,
    base: str,
    typist: Typist,
    monkeypatch: pytest.MonkeyPatch,
    gone: bool,
) -> None:
    with network(world.lab.name) as net:
        request = _reserving(world, base, net)

        def away() -> None:
            with connection() as conn:
                raw = conn.networkLookupByName(net.name)
                raw.destroy()
                if gone:
                    raw.undefine()

        before(monkeypatch, networks, "reserve", away)
        printed = typist(hint(HostError, lambda: host.clone(request), f"'{net.name}' is"))
        if gone:
            assert net.name not in printed
            assert world.lab.network in printed
        else:
            host.clone(request)
            host.destroy(request.name)


@tries("networks._add")
def test_a_network_that_takes_no_entry(
    world: World, host: LocalHost, base: str, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    with network(world.lab.name) as net:
        monkeypatch.setattr(networks, "_update", _refused)
        request = _reserving(world, base, net)
        told = hint(HostError, lambda: host.clone(request), "did not reserve")
        assert net.cidr.rsplit(".", 1)[0] in typist(told)


@tries("networks.release")
def test_a_network_that_does_not_give_an_entry_back(
    world: World, host: LocalHost, base: str, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    with network(world.lab.name) as net:
        request = _reserving(world, base, net)
        host.clone(request)
        with monkeypatch.context() as patch:
            patch.setattr(networks, "_update", _refused)
            told = hint(HostError, lambda: host.destroy(request.name), "did not delete")
        assert net.entries()
        typist(told)
        assert net.entries() == net.entries(stored=True) == set()
        host.destroy(request.name)


def _reserving(world: World, base: str, net: Network) -> Any:
    wish = InterfaceChanges(network=net.name)
    return quick(world.name(), base, networks=(wish,), ip_source="reserve")


def _refused(_host: Host, _network: Any, command: int, *_rest: Any) -> None:
    """What libvirt answers while somebody else changes the network again and again."""
    raise HostError(f"the network changed before {command}", code=OPERATION_INVALID)


# --- domains ------------------------------------------------------------------------------------


@tries("domain.DomainHandle.look_up_again")
def test_a_machine_that_is_removed_while_it_is_worked_on(
    world: World, host: LocalHost, commands: Commands, base: str, typist: Typist
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    with Host(host.url, commands=commands) as opened:
        handle = opened.domain(name)
        host.destroy(name)
        printed = typist(hint(NotFound, handle.look_up_again))
    assert base in printed
    assert name not in printed


@pytest.mark.guest
@tries("power._crashed")
def test_a_guest_that_is_kept_as_it_crashed(world: World, host: LocalHost, typist: Typist) -> None:
    request = quick(world.name(), panicking(world, on_crash="preserve"))
    host.clone(request)
    host.boot(request.name)
    with connection() as conn:
        domain = conn.lookupByName(request.name)
        wait_until(lambda: domain.state()[0] == libvirt.VIR_DOMAIN_CRASHED, "the panic", 60)
    told = hint(GuestStopped, lambda: host.power(request.name, "start"))
    core = Path(f"/var/tmp/{request.name}.core")
    try:
        typist(told, "virsh ")
        assert core.stat().st_size
    finally:
        core.unlink(missing_ok=True)
    typist(told, "salt-run", "salt-call")
    with connection() as conn:
        assert conn.lookupByName(request.name).isActive()
