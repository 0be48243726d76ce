"""Bootstrapping over ssh, with a real Debian guest that has no agent."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.common import LIBVIRT_URI, PASSWORD
from lab.lab import Lab
from saltext.kvmclone.errors import KvmCloneError, WrongGuest
from saltext.kvmclone.guest import hostkeys, identity
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.lifecycle import bootstrap, ssh_trust, wait_for_address
from saltext.kvmclone.model.request import Login, Secrets
from tests.support.debian_guests import Guest, boot, fingerprints

pytestmark = pytest.mark.guest

LOGINS = "journalctl -u ssh --no-pager -o cat | grep -c ^Accepted || true"


def noexec(root: Path) -> None:
    """/tmp on a file system from which nothing may be executed."""
    (root / "etc/fstab").write_text("tmpfs /tmp tmpfs noexec,nosuid,mode=1777 0 0\n")


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Iterator[Guest]:
    """One guest without an agent for all tests here, fresh from its base."""
    base = lab.debian_base(f"{lab.name}-bare", agent=False, change=noexec)
    host = LocalHost(LIBVIRT_URI, label="kvm01")
    made = boot(lab, host, base, f"{lab.name}-bare-1", login=Login("lab", sudo=True))
    yield made
    host.destroy(made.name, force=True)


def test_the_first_contact_is_said_and_from_the_reset_on_the_keys_are_ours(guest: Guest) -> None:
    assert guest.record().host_keys == ()
    of_base = guest.shell("cat /etc/ssh/ssh_host_*_key.pub /etc/machine-id")
    clone = guest.bootstrap("auto")
    record = guest.record()
    assert (clone.stage, record.identity) == ("enrolled", "reset")
    warning = next(text for text in clone.warnings if "first contact" in text)
    assert "only its MAC address vouches for it" in warning
    assert "The password was sent" in warning

    shown = guest.shell("cat /etc/ssh/ssh_host_*_key.pub; for f in /etc/ssh/ssh_host_*_key; do "
                        "ssh-keygen -y -f $f | cut -d' ' -f1,2; done")  # fmt: skip
    assert not any(line in of_base for line in shown.splitlines())
    assert all(shown.count(line) == 2 for line in record.host_keys), "both halves are new"
    scanned = subprocess.run(
        ["ssh-keyscan", "-T", "60", clone.address], capture_output=True, text=True, check=True
    ).stdout
    served = {" ".join(line.split()[1:3]) for line in scanned.splitlines() if line[0] != "#"}
    assert served == set(record.host_keys), "sshd serves exactly these"
    assert fingerprints(record.host_keys)
    assert guest.shell("cat /etc/machine-id") not in of_base


def test_a_whole_bootstrap_takes_one_connection(guest: Guest) -> None:
    before = int(guest.shell(LOGINS))
    clone = guest.bootstrap(
        "ssh",
        script_text="cat /etc/hostname >/root/seen; grep ' /tmp ' /proc/mounts >>/root/seen\n",
        script_named=True,
        deploy_command="sh /tmp/.saltcloud/deploy.sh",
        preflight_cmds=("true", "true"),
        inline_script=("true",),
    )
    seen = guest.shell("cat /root/seen; ls -A /tmp")
    after = int(guest.shell(LOGINS))
    assert clone.stage == "enrolled"
    assert seen.startswith(guest.name)
    assert "noexec" in seen
    assert ".saltcloud" not in seen
    assert after - before == 1 + 2, "one of ours, two of looking"


def test_a_deployment_begins_only_when_the_guest_has_its_new_address(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Under its new machine-id the guest asks for a lease as another machine, so it leaves the
    address at which it was reset. A loaded guest does so later than `RENEWAL_GRACE`, from
    when on the old address counts again: it is entered there. A deployment begun there hangs
    in a connection to an address that nobody has any more, and breaks after 30 s.

    Here the guest restarts its network as soon as a deployment runs, or where none begins, late.
    """
    begun = "/run/kvm-clone-test-deploys"
    late = wait_for_address.ADDRESS_RENEWAL_S + 10
    wait = f"timeout {late:.0f} sh -c 'until [ -e {begun} ]; do sleep 0.3; done'"
    slow = identity._SOON.replace("sleep 0.3", wait)
    assert slow != identity._SOON
    monkeypatch.setattr(identity, "_SOON", slow)
    old = guest.host.show(guest.name).address
    guest.save(identity="")
    clone = guest.bootstrap(
        "ssh",
        script_text=f"touch {begun}; hostname -I >/root/deployed; sleep 20\n",
        script_named=True,
    )
    assert clone.address != old, "else nothing could have broken"
    assert guest.shell("cat /root/deployed").split()[0] == clone.address


def test_a_private_key_is_preferred_and_the_warning_does_not_speak_of_a_password(
    guest: Guest, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "open sesame", "-f", key], check=True
    )
    public = key.with_suffix(".pub").read_text().strip()
    guest.shell(f"mkdir -p /root/.ssh; echo '{public}' >>/root/.ssh/authorized_keys")
    guest.save(host_keys=(), warnings=())
    request = replace(guest.request, login=Login("root"))
    clone = guest.bootstrap(
        "ssh",
        request,
        secrets=Secrets(private_key=key.read_text(), private_key_passphrase="open sesame"),
    )
    (warning,) = clone.warnings
    assert "first contact" in warning
    assert "password" not in warning
    assert len(guest.record().host_keys) == 1, "recorded, and strict from now on"


def test_a_machine_with_another_host_key_gets_no_login(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "WRONG_GUEST_TIMEOUT_S", 1.0)
    before = int(guest.shell(LOGINS))
    known = guest.record().host_keys
    guest.save(host_keys=tuple(key.public.line for key in hostkeys.generate()))
    try:
        with pytest.raises(WrongGuest) as caught:
            guest.bootstrap("auto")
        assert "changed" in caught.value.hint
        assert PASSWORD not in str(caught.value)
        assert int(guest.shell(LOGINS)) == before + 1, "only the looking"
    finally:
        guest.save(host_keys=known)


def test_another_guest_of_the_host_is_recognised_before_it_sees_a_password(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address of a clone that is off is held by this guest: by its key, then by its card."""
    monkeypatch.setattr(bootstrap, "WRONG_GUEST_TIMEOUT_S", 1.0)
    if not guest.record().host_keys:
        guest.bootstrap("auto")
    other = f"{guest.name}-other"
    asleep = replace(guest.request, name=other, reset_identity=False)
    guest.host.clone(asleep)
    double = Guest(guest.lab, guest.host, asleep)
    address = guest.host.show(guest.name).address
    double.save(address=address)
    before = int(guest.shell(LOGINS))
    try:
        with pytest.raises(WrongGuest, match=f"is '{guest.name}'"):
            double.bootstrap("ssh")
        monkeypatch.setattr(ssh_trust, "_cards_at", lambda _address: frozenset())
        with pytest.raises(WrongGuest, match=f"is '{guest.name}'"):
            double.bootstrap("ssh")
        assert int(guest.shell(LOGINS)) == before + 1, "only the looking"
    finally:
        guest.host.destroy(other, force=True)


def test_host_keys_go_with_the_clone(guest: Guest) -> None:
    known = guest.record().host_keys
    assert known
    guest.host.destroy(guest.name, force=True)
    try:
        with pytest.raises(KvmCloneError):
            guest.host.show(guest.name)
    finally:
        guest.host.clone(guest.request, goal="cloned")  # the fixture destroys it
    assert guest.record().host_keys == ()
