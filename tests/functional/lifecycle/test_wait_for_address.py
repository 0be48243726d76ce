"""Promises about waiting: it ends when something happens, and asks little until then."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt
import pytest

from lab import libvirtd
from lab.common import CHECKOUT, LIBVIRT_URI, wait_until
from lab.lab import connection
from saltext.kvmclone.errors import (
    AddressTimeout,
    ChannelError,
    GuestStopped,
    HostUnreachable,
    KvmCloneError,
)
from saltext.kvmclone.guest.agent import AgentChannel
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor import connection as connection_module
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.events import Watch
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.request import Wait
from tests.support.world import CloneOf, World, quick

pytestmark = pytest.mark.guest


#: Nothing but an event ends a pause of this length in time.
LONG = Wait(timeout=120, interval=60)


class Waiting(threading.Thread):
    """A wait for a clone's address beside the test, and when and how it ended."""

    def __init__(self, name: str, base: str, wait: Wait) -> None:
        super().__init__(daemon=True)
        self.host = LocalHost(LIBVIRT_URI, label="kvm01")
        self.request = quick(name, base, wait=wait)
        self.ended = 0.0
        self.clone: Clone | None = None
        self.error: KvmCloneError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.clone = self.host.wait_for_address(self.request)
        except KvmCloneError as error:
            self.error = error
        self.ended = time.monotonic()

    def finish(self, timeout: float) -> None:
        self.join(timeout)
        assert not self.is_alive(), "the wait goes on"


def booted(host: LocalHost, clone_of: CloneOf, base: str) -> tuple[str, Waiting]:
    """A clone that has just been switched on, and somebody who waits for it."""
    name = clone_of(base)
    host.boot(name)
    return name, Waiting(name, base, LONG)


def when_off(name: str) -> float:
    """When the domain stopped, looked at every 10 ms."""
    with connection() as conn:
        domain = conn.lookupByName(name)
        wait_until(lambda: not domain.isActive(), "the end of the guest", 30, interval=0.01)
    return time.monotonic()


def qemu_of(name: str) -> int:
    return int(Path(f"/run/libvirt/qemu/{name}.pid").read_text(encoding="ascii"))


#: A boot sector that waits three seconds and then tells the panic device of a panic, as a kernel
#: does that has one. The BIOS starts it; there is no system beneath.
PANIC = (
    bytes.fromhex(
        "b4 86"  # mov ah, 0x86      BIOS int 15h: wait cx:dx microseconds
        "b9 2d 00"  # mov cx, 0x2d
        "ba c0 c6"  # mov dx, 0xc6c0
        "cd 15"  # int 0x15
        "ba 05 05"  # mov dx, 0x505     the ISA panic device's port
        "b0 01"  # mov al, 1         "panicked"
        "ee"  # out dx, al
        "f4 eb fd"  # hlt; and again
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)


def panicking(world: World, on_crash: str = "destroy") -> str:
    """A base that panics three seconds after it was switched on."""
    base = world.base(fmt="raw", devices="<panic model='isa'/>")
    with world.disks(base)[0].open("r+b") as disk:
        disk.write(PANIC)
    xml = world.xml(base)
    system = xml.find("os")
    assert system is not None
    fate = xml.find("on_crash")
    assert fate is not None
    fate.text = on_crash
    for tag in ("kernel", "initrd", "cmdline"):
        element = system.find(tag)
        assert element is not None
        system.remove(element)
    with connection() as conn:
        conn.defineXML(ElementTree.tostring(xml, encoding="unicode"))
    return base


# --- a guest that stops -------------------------------------------------------------------------


def test_a_guest_that_powers_off_is_told_within_a_second(
    world: World, host: LocalHost, clone_of: CloneOf
) -> None:
    base = world.base(options="tiny.nodhcp tiny.poweroff=3")
    name, waiting = booted(host, clone_of, base)
    off = when_off(name)
    waiting.finish(5)
    assert waiting.ended - off < 1.0
    assert isinstance(waiting.error, GuestStopped)
    assert "is shutoff (the guest powered off)" in waiting.error.message
    assert "--console" in waiting.error.hint


def test_a_guest_whose_qemu_dies_is_told_within_a_second(
    world: World, host: LocalHost, clone_of: CloneOf
) -> None:
    base = world.base(options="tiny.nodhcp")
    name, waiting = booted(host, clone_of, base)
    time.sleep(1.0)
    os.kill(qemu_of(name), signal.SIGKILL)
    killed = time.monotonic()
    waiting.finish(5)
    assert waiting.ended - killed < 1.0
    assert isinstance(waiting.error, GuestStopped)
    assert "its QEMU died" in waiting.error.message


def test_a_guest_that_panics_is_told_within_a_second(
    world: World, host: LocalHost, clone_of: CloneOf
) -> None:
    base = panicking(world)
    name, waiting = booted(host, clone_of, base)
    off = when_off(name)
    waiting.finish(5)
    assert waiting.ended - off < 1.0
    assert isinstance(waiting.error, GuestStopped)
    # libvirt says "crashed" first, and "shutoff" once it has taken QEMU away.
    assert re.search(r"is (shutoff \(the guest )?crashed", waiting.error.message)


def test_a_guest_that_is_kept_as_it_crashed_is_told_within_a_second_and_listed_so(
    world: World, host: LocalHost, clone_of: CloneOf
) -> None:
    base = panicking(world, on_crash="preserve")
    name, waiting = booted(host, clone_of, base)
    with connection() as conn:
        domain = conn.lookupByName(name)
        crashed = lambda: domain.state()[0] == libvirt.VIR_DOMAIN_CRASHED  # noqa: E731
        wait_until(crashed, "the panic", 30, interval=0.01)
    panicked = time.monotonic()
    waiting.finish(5)
    assert waiting.ended - panicked < 1.0
    assert isinstance(waiting.error, GuestStopped)
    assert "is crashed" in waiting.error.message
    assert host.show(name).state == "crashed"
    assert {clone.name: clone.state for clone in host.list_clones()}[name] == "crashed"
    for action in ("start", "reboot"):
        with pytest.raises(GuestStopped) as caught:
            host.power(name, action)
        assert f"salt-run kvmclone.stop {name}" in caught.value.hint
    started = time.monotonic()
    assert host.power(name, "stop").state == "shutoff"
    assert time.monotonic() - started < 10  # nobody in there was asked
    host.destroy(name)
    assert not world.exists(name)


def test_an_agent_that_connects_ends_the_pause(
    world: World, host: LocalHost, clone_of: CloneOf
) -> None:
    name = clone_of(world.base(agent=True, options="tiny.nodhcp tiny.agent=10"))
    host.boot(name)
    with Host(LIBVIRT_URI) as connected:
        handle = connected.domain(name)
        with Watch(handle, LONG) as watch:
            watch.due()
            assert watch.rest()
            assert watch.due()
            rang = time.monotonic()
            wait_until(
                lambda: domain_xml.read(handle.live()).agent_connected, "the agent to show", 5
            )
    assert time.monotonic() - rang < 2.0


# --- how much is asked --------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "most"), [("ip-learning", 37), ("qemu-agent", 16)])
def test_a_wait_in_vain_asks_little(
    world: World, host: LocalHost, clone_of: CloneOf, source: str, most: int
) -> None:
    """
    Five looks a second for a lease, nothing for an agent; all else is told by events. Two calls at
    the end tell whether there could have been a lease.
    """
    base = world.base(options="tiny.nodhcp", agent=True)
    name = clone_of(base)
    host.boot(name)
    with pytest.raises(AddressTimeout):
        host.wait_for_address(quick(name, base, ip_source=source, wait=Wait(timeout=4)))
    assert host.calls <= most


# --- processes ----------------------------------------------------------------------------------


def test_a_process_that_forked_after_a_wait_still_waits_well(
    world: World, host: LocalHost, clone_of: CloneOf
) -> None:
    """Salt forks for every job; a loop in the parent would swallow the child's events."""
    base = world.base()
    running = clone_of(base, "running")
    host.boot(running)
    mortal = world.base("mortal", options="tiny.nodhcp tiny.poweroff=4")
    dying = clone_of(mortal, "dying")
    host.boot(dying)
    script = f"""
        import os, sys, threading
        from saltext.kvmclone.errors import GuestStopped
        from saltext.kvmclone.hosts.local import LocalHost
        from saltext.kvmclone.hypervisor.host import Host
        from saltext.kvmclone.model.request import Wait
        from tests.support.world import quick
        host = LocalHost({LIBVIRT_URI!r}, label="kvm01")
        host.show({running!r})
        assert threading.active_count() == 1, "a loop that nobody asked for"
        assert host.wait_for_address(quick({running!r}, {base!r})).address
        assert threading.active_count() == 2
        child = os.fork()
        if child:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        try:
            with Host({LIBVIRT_URI!r}) as connected:
                assert not connected.listen()
            assert host.wait_for_address(quick({running!r}, {base!r})).address
            try:
                host.wait_for_address(quick({dying!r}, {mortal!r}, wait=Wait(timeout=30)))
            except GuestStopped:
                os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        os._exit(1)
    """
    env = {**os.environ, "PYTHONPATH": f"{CHECKOUT}/_utils:{CHECKOUT}"}
    words = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(
        words, env=env, cwd=CHECKOUT, capture_output=True, text=True, timeout=90, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- a daemon that goes away --------------------------------------------------------------------


def _admin(*words: str) -> str:
    command = ["virt-admin", "-q", "-c", "libvirtd:///system", *words]
    # A client of somebody else may be gone before it is asked about.
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _throw_us_out() -> None:
    """Let the daemon close every connection of this process, and of no other."""
    for line in _admin("client-list", "libvirtd").splitlines():
        number = line.split()[0] if line.split() else ""
        if number.isdigit():
            told = _admin("client-info", "libvirtd", number)
            if re.search(rf"unix_process_id\s*:\s*{os.getpid()}\b", told):
                _admin("client-disconnect", "libvirtd", number)


def test_a_connection_that_breaks_in_the_middle_is_made_again(
    world: World, host: LocalHost, clone_of: CloneOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon throws us out, as it does when it is stopped in good order."""
    base = world.base(options="tiny.nodhcp tiny.poweroff=6")
    name = clone_of(base)
    host.boot(name)
    opened: list[Host] = []
    real = Host._open

    def noted(self: Host) -> None:
        real(self)
        opened.append(self)

    monkeypatch.setattr(Host, "_open", noted)
    waiting = Waiting(name, base, LONG)
    time.sleep(1.0)
    count = len(opened)
    _throw_us_out()
    wait_until(lambda: len(opened) > count, "another connection", 5)
    off = when_off(name)
    waiting.finish(5)
    assert isinstance(waiting.error, GuestStopped)
    assert waiting.ended - off < 1.0  # and events come over the new connection too


def test_a_call_into_a_connection_that_just_broke_is_no_refusal(
    world: World, clone_of: CloneOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libvirt may still call it alive when the first write into it has failed."""
    name = clone_of(world.base())
    monkeypatch.setattr(Host, "_alive", lambda _self: True)
    with Host(LIBVIRT_URI) as connected:
        handle = connected.domain(name)
        _throw_us_out()
        with pytest.raises(HostUnreachable):
            handle.state()


def test_an_error_is_told_as_it_happened_whatever_python_frees_meanwhile(
    world: World, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last domain of a broken connection, freed, speaks into it once more, and fails."""
    with Host(LIBVIRT_URI) as broken:
        old = [broken.domain(base).raw]
        _throw_us_out()
        with pytest.raises(HostUnreachable):
            broken.node_name()
    hear = connection_module._hear

    def freeing(context: Any, error: tuple[Any, ...]) -> None:
        hear(context, error)
        old.clear()

    monkeypatch.setattr(connection_module, "_hear", freeing)
    with Host(LIBVIRT_URI) as connected:
        assert connected.domain(base).record() is None, "it has none, and that is no failure"
    assert not old


def test_what_only_looks_is_asked_again_when_its_connection_breaks(
    world: World, host: LocalHost, clone_of: CloneOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = clone_of(world.base())
    real, breaks = Host.each_domain, iter([True, False])

    def broken_once(self: Host, look: Any) -> Any:
        if next(breaks):
            _throw_us_out()
        return real(self, look)

    monkeypatch.setattr(Host, "each_domain", broken_once)
    assert name in [clone.name for clone in host.list_clones()]
    assert next(breaks, None) is None, "it was asked twice"


def test_a_daemon_that_never_comes_back_is_told_at_the_deadline(
    world: World, host: LocalHost, clone_of: CloneOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = world.base(options="tiny.nodhcp")
    name = clone_of(base)
    host.boot(name)

    def gone(self: Host) -> None:
        raise HostUnreachable("nobody answers")

    with Host(LIBVIRT_URI) as connected:
        handle = connected.domain(name)
        with Watch(handle, Wait(timeout=2)) as watch:
            monkeypatch.setattr(Host, "_open", gone)
            started = time.monotonic()
            with pytest.raises(HostUnreachable):
                watch.reconnect()
            assert 1.0 < time.monotonic() - started < 10


def test_a_daemon_that_is_killed_and_restarted_in_the_middle_is_survived(
    world: World, host: LocalHost, clone_of: CloneOf
) -> None:
    if not libvirtd.is_ours():
        pytest.skip("the libvirtd that runs here is not the lab's, so it is not killed")
    base = world.base()
    name = clone_of(base)
    with connection() as conn:
        conn.lookupByName(name).createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    waiting = Waiting(name, base, Wait(timeout=60))
    time.sleep(1.0)
    libvirtd.crash()
    with connection() as conn:  # only now it boots, and asks for its address
        conn.lookupByName(name).resume()
    waiting.finish(40)
    assert waiting.error is None
    assert waiting.clone is not None
    assert waiting.clone.address == world.lab.lease(name)
    record = world.record(name)
    assert record is not None
    assert record.stage == "addressed"


def test_a_reset_goes_on_through_an_agent_that_is_not_ready_and_a_daemon_that_is_killed(
    world: World, host: LocalHost, clone_of: CloneOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A libvirtd that was just restarted tells of an agent before it can be talked to. The reset goes
    on in the guest; it is made once more, and the record tells the second.
    """
    kills = libvirtd.is_ours()
    base = world.lab.debian_base(world.name("debian"))
    name = clone_of(base)
    ask, asked = DomainHandle.agent, list[str]()

    def disturbed(self: DomainHandle, request: dict[str, Any], timeout: float) -> Any:
        asked.append(request["execute"])
        if len(asked) <= 2:
            raise ChannelError("not connected", "wait")
        if kills and asked[-1] == "guest-exec-status" and asked.count(asked[-1]) == 1:
            libvirtd.crash()
        return ask(self, request, timeout)

    monkeypatch.setattr(DomainHandle, "agent", disturbed)
    host.boot(name)
    clone = host.wait_for_address(quick(name, base, wait=Wait(timeout=240)))
    assert asked[:3] == ["guest-info"] * 3
    if kills:
        assert asked.count("guest-exec") > 2, "the reset, once more, and the network"
    assert clone.warnings == ()
    record = world.record(name)
    assert record is not None
    assert record.identity == "reset"
    with Host(LIBVIRT_URI) as connected, AgentChannel(connected.domain(name).agent) as channel:
        served = channel.run("cat /etc/ssh/ssh_host_ed25519_key.pub", timeout=30).output
        held = channel.run("hostname -I", timeout=30).output
    assert served.split()[1] in " ".join(record.host_keys)
    assert clone.address in held.split()
