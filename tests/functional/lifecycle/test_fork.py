"""Forks of a warmed base, with a real guest: each is a machine of its own from the first on."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest

from lab.common import LIBVIRT_URI
from lab.lab import Lab
from saltext.kvmclone.errors import ForkFailed
from saltext.kvmclone.guest import fork_identity, fork_identity_script, salt_minion
from saltext.kvmclone.guest.agent import AgentChannel
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.enrolment import Enrolment
from saltext.kvmclone.model.record import BY_WORD, MEMORY, Minion
from saltext.kvmclone.model.request import Request, Wait
from tests.support.debian_guests import Guest, until

pytestmark = pytest.mark.guest

#: What two forks of one memory would have alike, a line each.
OWN = (
    "head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo; "
    "cat /proc/sys/kernel/random/uuid; python3 -c 'import uuid; print(uuid.uuid4())'; "
    "cat /etc/machine-id; cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub; hostname; "
    "cat /sys/class/dmi/id/product_uuid; hostname -I | cut -d' ' -f1; "
    "cat /sys/class/net/eth0/address"
)


#: A minion that tells, a line each, whether it was preloaded, and what it has drawn at random.
MINION = """#!/opt/salt/bin/python3
import sys
preloaded = "salt.minion" in sys.modules
import multiprocessing, os, platform, random, signal, ssl, tempfile
key = multiprocessing.current_process().authkey.hex()
told = [preloaded, platform.node(), random.random(), os.urandom(16).hex(), key]
told += [ssl.RAND_bytes(16).hex(), next(tempfile._get_candidate_names())]
with open("/run/told.new", "w") as file:
    print(*told, sep="\\n", file=file)
os.rename("/run/told.new", "/run/told")
signal.pause()
"""
ENROLMENT = Enrolment(
    minion_id="fork",
    minion_config={"master": "192.0.2.1"},
    grains={},
    private_key_pem="no key\n",
    public_key_pem="no key\n",
    fingerprint="aa:bb",
)


def with_a_minion_that_tells(root: Path) -> None:
    program = root / "usr/local/bin/salt-minion"
    program.unlink()
    program.write_text(MINION)
    program.chmod(0o755)


@pytest.fixture(scope="module")
def base(lab: Lab) -> Iterator[str]:
    """A Debian machine that is warmed."""
    host = LocalHost(LIBVIRT_URI, label="kvm01")
    name = lab.debian_base(f"{lab.name}-forked", change=with_a_minion_that_tells)
    warmed = host.warm(name)
    lab.own_domain(warmed.machine)
    assert warmed.warnings == ()
    yield name
    host.unwarm(name)


def asked(lab: Lab, base: str, word: str) -> Request:
    name = f"{base}-{word}"
    lab.own_domain(name)
    return Request(name, base, clone_strategy="instant", wait=Wait(timeout=240))


def left_of(lab: Lab, name: str) -> list[str]:
    """The files that a fork has left in its pool."""
    return [path.name for path in lab.pool_path.iterdir() if name in path.name]


@contextmanager
def senders(bridge: str) -> Iterator[set[str]]:
    """The MAC addresses from which packets come on a bridge."""
    seen: set[str] = set()
    over = Event()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as tap:
        tap.bind((bridge, 0))
        tap.settimeout(0.2)

        def listen() -> None:
            while not over.is_set():
                try:
                    packet = tap.recv(64)
                except TimeoutError:
                    continue
                seen.add(packet[6:12].hex(":"))

        thread = Thread(target=listen)
        thread.start()
        try:
            yield seen
        finally:
            over.set()
            thread.join()


def bridge_of(lab: Lab) -> tuple[str, str]:
    """The lab's bridge and its MAC address."""
    with Host(LIBVIRT_URI) as host:
        name = str(host.raw.networkLookupByName(lab.network).bridgeName())
    with open(f"/sys/class/net/{name}/address", encoding="ascii") as file:
        return name, file.read().strip()


def test_two_forks_share_nothing_and_stay_themselves_when_they_boot_again(
    lab: Lab, base: str, host: LocalHost
) -> None:
    requests = [asked(lab, base, word) for word in ("one", "two")]
    guests = [Guest(lab, host, request) for request in requests]
    bridge, its_own = bridge_of(lab)
    seen: list[list[str]] = []
    try:
        with senders(bridge) as heard:
            for guest in guests:
                # As a create does that goes on to a minion.
                host.clone(guest.request, goal="addressed")
                host.boot(guest.name)
                host.wait_for_address(guest.request)
                seen.append(guest.said(OWN).splitlines())
                before = time.time()
                its_time = float(guest.said("date +%s.%N"))
                assert before - 2 < its_time < time.time() + 2
        _is_known_by_its_word(host, guests[0])
        for guest, lines in zip(guests, seen, strict=True):
            clone, record = host.show(guest.name), guest.record()
            assert (clone.stage, clone.strategy, clone.base) == ("addressed", "instant", base)
            assert lines[5:8] == [guest.name, clone.uuid, clone.address]
            assert not any(volume.target == MEMORY for volume in record.volumes)
            assert guest.said("systemctl is-active ssh systemd-networkd") == "active\nactive"
            assert clone.warnings == ()
        assert not set(seen[0]) & set(seen[1])
        told = [_of_the_minion(guest, "True") for guest in guests]
        assert not set(told[0]) & set(told[1])
        assert [lines[0] for lines in told] == [guest.name for guest in guests]
        guests[0].said("rm /run/told; systemctl restart salt-minion")
        _told(guests[0], "False")
        assert heard <= {its_own, seen[0][8], seen[1][8]}
        assert left_of(lab, guests[0].name) == [f"{guests[0].name}-vda.qcow2"]
        host.destroy(guests[1].name)
        host.power(guests[0].name, "off")
        host.power(guests[0].name, "start")
        host.address_of(guests[0].name, 240)
        _until_agent(guests[0])
        assert guests[0].said(OWN).splitlines()[3:] == seen[0][3:]
        _told(guests[0], "False")
        live, stored = (domain_xml.read(xml) for xml in _definitions(guests[0].name))
        assert live.interfaces == stored.interfaces
    finally:
        for request in requests:
            _remove(host, request.name)


def test_a_fork_that_does_not_acknowledge_is_gone(
    lab: Lab, base: str, host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_identity_script, "reseed", lambda _now: "echo no; exit 1")
    request = asked(lab, base, "unseeded")
    outcome = provision.create(host, request)
    assert isinstance(outcome.error, ForkFailed)
    assert "did not acknowledge" in outcome.error.message
    assert "was removed" in outcome.error.message
    assert not host.exists(request.name)
    assert left_of(lab, request.name) == []


def _is_known_by_its_word(host: LocalHost, guest: Guest) -> None:
    """A fork is given a word at any time until it boots again, which is gone once that served."""
    assert host.give_word(guest.request, "a new word")
    assert guest.said(f"cat {fork_identity_script.WORD}") == "a new word"
    stage = guest.record().stage
    told = host.complete(guest.name, Minion("web1", "3008", "aa:bb", BY_WORD), {})
    assert (told.stage, told.warnings) == ("ready", ())
    assert guest.said(f"ls {fork_identity_script.WORD} 2>/dev/null || echo gone") == "gone"
    with Host(LIBVIRT_URI) as opened:
        opened.domain(guest.name).save_record(replace(guest.record(), stage=stage))


def _of_the_minion(guest: Guest, preloaded: str) -> list[str]:
    """Enrol a guest, and return what its minion tells."""
    with Host(LIBVIRT_URI) as opened:
        report = salt_minion.enrol(AgentChannel(opened.domain(guest.name).agent), ENROLMENT)
    assert report.how == "preloaded"
    return _told(guest, preloaded)


def _told(guest: Guest, preloaded: str) -> list[str]:
    """Return what a minion told, but the first line, which is given."""
    until(lambda: guest.said("ls /run | grep -x told; true") == "told")
    first, *others = guest.said("cat /run/told").splitlines()
    assert first == preloaded
    return others


def _definitions(name: str) -> tuple[str, str]:
    with Host(LIBVIRT_URI) as opened:
        handle = opened.domain(name)
        return handle.live(), handle.definition()


def _until_agent(guest: Guest) -> None:
    with Host(LIBVIRT_URI) as opened:
        fork_identity.ping(opened.domain(guest.name).agent, 120)


def _remove(host: LocalHost, name: str) -> None:
    if host.exists(name):
        host.destroy(name, force=True)
