"""Bootstrapping over the guest agent, with real Debian guests and everything that can fail."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.common import LIBVIRT_URI, PASSWORD
from lab.lab import Lab
from saltext.kvmclone.errors import ChannelError, CommandFailed, DeployFailed
from saltext.kvmclone.guest import identity, salt_minion
from saltext.kvmclone.guest import master_ports as asked_ports
from saltext.kvmclone.guest.agent import NEEDED
from saltext.kvmclone.guest.channel import Channel
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.lifecycle import bootstrap, master_ports, wait_for_address
from saltext.kvmclone.master import keys
from saltext.kvmclone.model.guest_minion import GuestMinion
from saltext.kvmclone.model.request import Login, Request, Secrets
from tests.support.debian_guests import PAIR, Guest, boot, until, without_salt
from tests.support.hints import commands, tries

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Iterator[Guest]:
    """One guest with agent and sshd for all tests here; its identity is still its base's."""
    base = lab.debian_base(f"{lab.name}-agent")
    host = LocalHost(LIBVIRT_URI, label="kvm01")
    made = boot(lab, host, base, f"{lab.name}-agent-1", reset_identity=False)
    yield made
    host.destroy(made.name, force=True)


def test_keys_are_written_and_the_minion_starts_without_any_script(guest: Guest) -> None:
    clone = guest.bootstrap("keys", script_text="exit 9", script_named=True, inline_script=("x",))
    assert clone.stage == "enrolled"
    assert any("preflight_cmds" in warning for warning in clone.warnings)
    assert guest.said("cat /etc/salt/minion_id") == guest.name
    assert guest.said("stat -c %a /etc/salt/pki/minion/minion.pem") == "400"
    assert "192.0.2.1" in guest.said("cat /etc/salt/minion.d/zzz-kvm-clone.conf")
    until(lambda: guest.said("systemctl is-active salt-minion || true") == "active")


def test_the_host_keys_are_on_record_although_nothing_was_reset(guest: Guest) -> None:
    guest.save(host_keys=())
    guest.bootstrap("agent")
    told = guest.said("cat /etc/ssh/ssh_host_*_key.pub").splitlines()
    assert set(guest.record().host_keys) == {" ".join(line.split()[:2]) for line in told}


def test_ssh_is_strict_from_the_first_contact_on_where_there_is_an_agent(guest: Guest) -> None:
    guest.save(host_keys=(), warnings=())
    clone = guest.bootstrap("ssh")
    assert clone.warnings == ()
    assert len(guest.record().host_keys) == 3


def test_a_script_that_restarts_the_agent_is_told_apart_from_one_that_fails(guest: Guest) -> None:
    script = "systemctl restart qemu-guest-agent; sleep 60"
    started = time.monotonic()
    for way in ("agent", "auto"):  # half a deployment is not repeated over ssh either
        with pytest.raises(ChannelError, match="guest agent") as caught:
            guest.bootstrap(way, script_text=script, script_named=True)
        assert "qemu-guest-agent" in caught.value.hint
        until(lambda: guest.lab.agent(guest.name, "guest-ping") is not None)
    assert time.monotonic() - started < 100
    assert guest.said("ls -A /tmp | grep saltcloud || true") == ""


def test_a_script_that_hangs_ends_in_time_and_leaves_nothing(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(salt_minion.enrol.__kwdefaults__, "timeout", 4.0)
    with pytest.raises(DeployFailed, match="within 4 s"):
        guest.bootstrap("agent", script_text="sleep 4711", script_named=True)
    until(lambda: guest.said("ls -A /tmp | grep saltcloud || true") == "", 10)
    until(lambda: guest.said("ps ax | grep '[4]711' || true") == "", 10)


@tries("domain.DomainHandle.agent")
def test_an_agent_that_never_answers_is_passed_by_over_ssh(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saltext.kvmclone.guest.agent.AGENT_MESSAGE_TIMEOUT_S", 3.0)
    guest.shell("pkill -STOP qemu-ga")
    try:
        with pytest.raises(ChannelError, match=r"does not answer\. ") as caught:
            guest.bootstrap("agent")
        (command,) = commands(caught.value.hint)
        assert "Active: active" in guest.shell(command)
        assert "block-rpcs" not in caught.value.hint, "nothing is forbidden"
        clone = guest.bootstrap("auto")
    finally:
        guest.shell("pkill -CONT qemu-ga")
    assert clone.stage == "enrolled"
    assert any("Used ssh" in warning for warning in clone.warnings)


def test_a_reset_that_the_agent_cannot_do_is_done_over_ssh(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where SELinux lets the agent run commands, and these change nothing."""
    reset = identity.reset

    def confined(channel: Channel, hostname: str, **options: Any) -> identity.Reset:
        if channel.name == "agent":
            raise CommandFailed("machine_id: /etc/machine-id cannot be written")
        return reset(channel, hostname, **options)

    monkeypatch.setattr(identity, "reset", confined)
    # A loaded guest restarts its network late: an old address counts again before that.
    late = identity._SOON.replace(
        "sleep 0.3", f"sleep {wait_for_address.ADDRESS_RENEWAL_S + 5:.0f}"
    )
    assert late != identity._SOON
    monkeypatch.setattr(identity, "_SOON", late)
    request = replace(guest.request, reset_identity=True)
    with pytest.raises(CommandFailed, match="machine_id"):
        guest.bootstrap("agent", request)
    clone = guest.bootstrap("auto", request)
    assert any("machine_id" in warning for warning in clone.warnings)
    assert guest.record().identity == "reset"
    assert guest.said("hostname") == guest.name
    assert guest.said("hostname -I").split()[0] == clone.address


def test_an_agent_that_comes_late_is_waited_for(guest: Guest) -> None:
    guest.shell(
        "systemctl stop qemu-guest-agent; "
        "systemd-run --quiet --on-active=8 systemctl start qemu-guest-agent"
    )
    assert guest.bootstrap("agent").stage == "enrolled"


# --- what the guest says of its master ------------------------------------------------------------


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a guest answer that shares its processor with others."""
    monkeypatch.setattr(master_ports, "AGENT_ANSWER_TIMEOUT_S", 30.0)
    monkeypatch.setattr(master_ports, "SSH_TIMEOUT_S", 60.0)
    monkeypatch.setattr(asked_ports, "COMMAND_TIMEOUT_S", 60.0)


def ports(guest: Guest, **deploy: Any) -> list[tuple[int, str]]:
    """What the guest says of each port."""
    request = replace(guest.request, deploy=replace(guest.request.deploy, **deploy))
    told = guest.host.check_master(request, Secrets(password=PASSWORD), 4505)
    return [(one.port, one.fault) for one in told.ports]


@pytest.mark.usefixtures("patient")
def test_the_guest_says_which_port_of_its_master_it_reaches(guest: Guest) -> None:
    with socket.create_server((guest.lab.gateway, 0)) as server:
        port = server.getsockname()[1]
        wrong = {"master": guest.lab.gateway, "master_port": 4507, "publish_port": port}
        guest.bootstrap("keys", minion_config=wrong)
        found = [(4507, "ECONNREFUSED"), (port, "")]
        assert ports(guest) == found
        assert ports(guest, bootstrap="ssh") == found, "it has an agent all the same"

        guest.shell("systemctl stop qemu-guest-agent")
        try:
            until(lambda: not told_host_keys(guest), 10)
            assert ports(guest) == found, "over ssh"
            assert ports(guest, bootstrap="agent") == []
            guest.save(host_keys=())
            assert ports(guest) == [], "no first contact for that"
        finally:
            guest.shell("systemctl start qemu-guest-agent")
            until(lambda: told_host_keys(guest), 30)


def told_host_keys(guest: Guest) -> tuple[str, ...]:
    with Host(LIBVIRT_URI) as host:
        return bootstrap.told_host_keys(host.domain(guest.name))


@pytest.mark.usefixtures("patient")
def test_a_guest_without_a_way_to_its_master_says_so(guest: Guest) -> None:
    guest.bootstrap("keys", minion_config={"master": "192.0.2.1"})
    guest.said("ip route add unreachable 192.0.2.1")
    try:
        assert ports(guest) == [(4506, "EHOSTUNREACH"), (4505, "EHOSTUNREACH")]
    finally:
        guest.said("ip route del unreachable 192.0.2.1")


def test_a_guest_says_which_id_and_key_its_minion_has(guest: Guest) -> None:
    guest.bootstrap("keys")
    secrets = Secrets(password=PASSWORD)

    def told() -> GuestMinion:
        return guest.host.check_master(guest.request, secrets, 4505)

    assert (told().minion_id, told().public_key) == (guest.name, PAIR.public.strip())
    other = keys.generate(2048).public
    guest.bootstrap("keys", public_key_pem=other, minion_id="base1")
    assert (told().minion_id, told().public_key) == ("base1", other.strip())
    guest.said("rm /etc/salt/pki/minion/minion.pub")
    assert told().public_key == ""


# --- what the base forbids ------------------------------------------------------------------------


def forbid(root: Path) -> None:
    folder = root / "etc/qemu"
    folder.mkdir(exist_ok=True)
    forbidden = "guest-exec,guest-exec-status"
    (folder / "qemu-ga.conf").write_text(f"[general]\nblacklist={forbidden}\n")
    without_salt(root)


@pytest.fixture(scope="module")
def restricted(lab: Lab) -> Iterator[Guest]:
    """A guest without Salt, whose agent runs no commands, as RHEL ships it."""
    base = lab.debian_base(f"{lab.name}-forbid", change=forbid)
    host = LocalHost(LIBVIRT_URI, label="kvm01")
    made = boot(lab, host, base, f"{lab.name}-forbid-1")
    yield made
    host.destroy(made.name, force=True)


def test_forbidden_commands_are_named_with_the_way_to_allow_them(restricted: Guest) -> None:
    with pytest.raises(ChannelError, match="disables guest-exec, guest-exec-status") as caught:
        restricted.bootstrap("agent")
    for word in ("BLACKLIST_RPC", "--block-rpcs", "--allow-rpcs", "bootstrap: ssh"):
        assert word in caught.value.hint
    assert set(NEEDED) > {"guest-exec", "guest-exec-status"}


def test_auto_goes_over_ssh_instead_with_the_host_keys_that_the_agent_still_tells(
    restricted: Guest,
) -> None:
    base_keys = restricted.shell("cat /etc/ssh/ssh_host_*_key.pub")
    request: Request = replace(restricted.request, login=Login("lab", sudo=True))
    with pytest.raises(DeployFailed, match="no salt-minion") as caught:
        restricted.bootstrap("keys", request)
    assert "Install Salt in the base" in caught.value.hint
    record = restricted.record()
    assert record.identity == "reset", "what was done before the failure is on record"
    assert not any("first contact" in warning for warning in record.warnings)
    assert not any(key in base_keys for key in record.host_keys)

    clone = restricted.bootstrap("auto", request, script_text="id -u >/ran\n", script_named=True)
    assert clone.stage == "enrolled"
    assert restricted.shell("cat /ran") == "0"
    said = " ".join(clone.warnings)
    assert "Used ssh, since the guest agent's configuration disables guest-exec" in said
    assert "first contact" not in said


def test_a_guest_whose_agent_may_not_run_anything_is_asked_over_ssh(restricted: Guest) -> None:
    script = "mkdir -p /etc/salt; echo 'master: 192.0.2.1' >/etc/salt/minion\n"
    restricted.bootstrap("auto", script_text=script, script_named=True)
    assert {port for port, _fault in ports(restricted)} == {4505, 4506}
