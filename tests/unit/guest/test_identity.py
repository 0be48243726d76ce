"""The identity reset, run for real on a folder by every shell that is here."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from saltext.kvmclone import errors
from saltext.kvmclone.guest import identity, identity_script
from saltext.kvmclone.guest.channel import Result
from tests.support.identities import KEYS, outcome, reset


def test_a_bare_guest_says_for_each_step_why_there_is_nothing_to_do(guest):
    done = reset(guest)
    skipped = {step.name: step.why for step in done.steps if step.outcome == "skipped"}
    assert set(skipped) == {
        "cloud_init",
        "machine_id",
        "dbus_machine_id",
        "hosts",
        "machine_info",
        "ssh_host_keys",
        "salt_identity",
        "dhcp_state",
        "network_cards",
        "storage_names",
        "random_seed",
        "journal",
    }
    assert all(skipped.values())
    assert outcome(done)["hostname"] == "done"
    assert done.host_keys == ()


def test_the_whole_reset_is_one_command(guest):
    reset(guest)
    assert guest.calls == 1


def test_a_run_that_its_caller_lost_is_ended_by_the_next(guest):
    with subprocess.Popen(["sleep", "30"]) as lost:
        guest.put("/run/kvm-clone-reset", f"{lost.pid}\n")
        guest.put(f"/proc/{lost.pid}/comm", "sh\n")
        reset(guest)
        assert lost.wait(5) == -9
    assert not guest.has("/run/kvm-clone-reset")


def test_what_has_the_number_of_a_lost_run_by_now_is_left_alone(guest):
    with subprocess.Popen(["sleep", "30"]) as other:
        guest.put("/run/kvm-clone-reset", f"{other.pid}\n")
        guest.put(f"/proc/{other.pid}/comm", "sleep\n")
        reset(guest)
        assert other.poll() is None
        other.kill()


# --- machine-id -------------------------------------------------------------------------


def test_machine_id_and_its_dbus_copy_are_new_and_equal(guest):
    guest.put("/etc/machine-id", "0" * 32 + "\n", 0o444)
    guest.put("/var/lib/dbus/machine-id", "0" * 32 + "\n")
    reset(guest)
    assert guest.text("/etc/machine-id") == guest.text("/var/lib/dbus/machine-id")
    assert re.fullmatch("[0-9a-f]{32}\n", guest.text("/etc/machine-id"))
    assert guest.text("/etc/machine-id") != "0" * 32 + "\n"
    assert (guest.root / "etc/machine-id").stat().st_mode & 0o777 == 0o444


def test_two_resets_give_two_machine_ids(guest):
    guest.put("/etc/machine-id", "x\n")
    reset(guest)
    first = guest.text("/etc/machine-id")
    reset(guest)
    assert guest.text("/etc/machine-id") != first


def test_a_dbus_machine_id_that_is_a_link_stays_one(guest):
    guest.put("/etc/machine-id", "x\n")
    (guest.root / "var/lib/dbus").mkdir(parents=True)
    link = guest.root / "var/lib/dbus/machine-id"
    link.symlink_to(guest.root / "etc/machine-id")
    assert outcome(reset(guest))["dbus_machine_id"] == "skipped"
    assert link.is_symlink()


# --- host name --------------------------------------------------------------------------


def test_the_host_name_is_set_and_takes_the_old_one_s_place_in_hosts(guest):
    guest.put("/etc/hostname", "base\n")
    guest.put(
        "/etc/hosts",
        "127.0.0.1\tlocalhost\n# base is a comment\n127.0.1.1\tbase.example.org base\n"
        "10.0.0.7 database base2 * # a glob\n\n::1 localhost",
    )
    reset(guest, "web1")
    assert guest.text("/etc/hostname") == "web1\n"
    assert guest.text("/proc/sys/kernel/hostname") == "web1"
    assert guest.text("/etc/hosts").splitlines() == [
        "127.0.0.1\tlocalhost",
        "# base is a comment",
        "127.0.1.1 web1.example.org web1",
        "10.0.0.7 database base2 * # a glob",
        "",
        "::1 localhost",
    ]


@pytest.mark.parametrize("line", ["127.0.1.1 base", "127.0.1.1 base.old.org base"])
def test_a_full_name_stands_first_in_its_line(guest, line):
    guest.put("/etc/hostname", "base\n")
    guest.put("/etc/hosts", line + "\n")
    reset(guest, "web1.example.org")
    assert guest.text("/etc/hosts") == "127.0.1.1 web1.example.org web1\n"


def test_a_guest_called_localhost_keeps_its_localhost(guest):
    guest.put("/etc/hostname", "localhost\n")
    guest.put("/etc/hosts", "127.0.0.1 localhost localhost.localdomain\n")
    reset(guest, "web1")
    assert guest.text("/etc/hosts") == (
        "127.0.0.1 localhost localhost.localdomain\n127.0.1.1 web1\n"
    )


def test_repeating_a_reset_adds_nothing_to_hosts(guest):
    guest.put("/etc/hosts", "127.0.0.1 localhost\n")
    reset(guest, "web1.example.org")
    once = guest.text("/etc/hosts")
    reset(guest, "web1.example.org")
    assert guest.text("/etc/hosts") == once


def test_a_name_too_long_for_the_kernel_is_cut_to_its_first_label(guest):
    name = "a" * 40 + "." + "b" * 40
    reset(guest, name)
    assert guest.text("/etc/hostname") == "a" * 40 + "\n"


# --- ssh host keys ----------------------------------------------------------------------


def test_the_kinds_of_host_keys_that_exist_are_replaced_and_ed25519_added(guest):
    for name in ("rsa_key", "rsa_key.pub", "dsa_key", "dsa_key.pub", "rsa_key-cert.pub"):
        guest.put(f"/etc/ssh/ssh_host_{name}", "old", 0o600)
    done = reset(guest)
    assert sorted(os.listdir(guest.root / "etc/ssh")) == [
        "ssh_host_ed25519_key",
        "ssh_host_ed25519_key.pub",
        "ssh_host_rsa_key",
        "ssh_host_rsa_key.pub",
    ]
    assert [key.type for key in done.host_keys] == ["ssh-ed25519", "ssh-rsa"]
    for kind, key in zip(("ed25519", "rsa"), done.host_keys, strict=True):
        path = guest.root / f"etc/ssh/ssh_host_{kind}_key"
        assert path.stat().st_mode & 0o777 == 0o600
        shown = subprocess.run(
            ["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True
        )
        assert shown.stdout.split()[:2] == [key.type, key.blob]
        assert guest.text(f"/etc/ssh/ssh_host_{kind}_key.pub").startswith(key.line)


def test_a_guest_without_ssh_server_gets_no_host_keys(guest):
    guest.put("/etc/ssh/ssh_config", "")
    assert outcome(reset(guest))["ssh_host_keys"] == "skipped"
    assert os.listdir(guest.root / "etc/ssh") == ["ssh_config"]


def test_host_keys_elsewhere_are_replaced_too(guest):
    for kind, type_ in (("ed25519", "ssh-ed25519"), ("rsa", "ssh-rsa")):
        guest.put(f"/etc/other/{kind}", "old", 0o600)
        guest.put(f"/etc/other/{kind}.pub", f"{type_} AAAA root@base\n")
    guest.put("/etc/ssh/ssh_host_ed25519_key", "old")
    guest.put("/etc/ssh/sshd_config", "HostKey /etc/other/ed25519\n  hostkey /etc/other/rsa\n")
    done = reset(guest)
    assert {key.type for key in done.host_keys} == {"ssh-ed25519", "ssh-rsa"}
    assert guest.text("/etc/other/rsa") == KEYS[2].private.rstrip("\n") + "\n"
    assert guest.text("/etc/other/ed25519.pub").startswith(KEYS[0].public.line)
    assert done.warnings == ()


def test_a_host_key_of_a_kind_that_nothing_tells_is_pointed_out(guest):
    guest.put("/etc/ssh/ssh_host_rsa_key", "old")
    guest.put("/etc/other/key", "old")
    guest.put("/etc/ssh/sshd_config", "# HostKey /x\n  hostkey /etc/other/key\n")
    done = reset(guest)
    assert outcome(done)["ssh_other_keys"] == "skipped"
    assert "/etc/other/key" in done.warnings[0]
    guest.put("/etc/ssh/sshd_config", "HostKey /etc/ssh/ssh_host_rsa_key\n")
    assert "ssh_other_keys" not in outcome(reset(guest))


def test_a_running_sshd_is_told_once_the_keys_are_there(guest):
    guest.put("/etc/ssh/ssh_host_rsa_key", "old")
    # Whoever runs these tests may ignore the signal (nohup), and a child would inherit that.
    with subprocess.Popen(["env", "--default-signal=HUP", "sleep", "30"]) as sshd:
        guest.put("/run/sshd.pid", f"{sshd.pid}\n")
        guest.put(f"/proc/{sshd.pid}/comm", "sshd\n")
        assert outcome(reset(guest))["sshd_reload"] == "done"
        assert sshd.wait(5) == -1  # SIGHUP


def test_a_stale_pid_file_hits_nobody(guest):
    guest.put("/etc/ssh/ssh_host_rsa_key", "old")
    with subprocess.Popen(["sleep", "30"]) as other:
        guest.put("/run/sshd.pid", f"{other.pid}\n")
        guest.put(f"/proc/{other.pid}/comm", "sleep\n")
        assert outcome(reset(guest))["sshd_reload"] == "skipped"
        assert other.poll() is None
        other.kill()


def test_an_sshd_that_is_starting_is_reloaded_by_systemd(guest):
    guest.put("/etc/ssh/ssh_host_rsa_key", "old")
    guest.put("/lib/systemd/system/ssh.service")
    (guest.root / "run/systemd/system").mkdir(parents=True)
    reset(guest)
    assert guest.services == ["systemctl --no-block try-reload-or-restart ssh.service"]


# --- Salt -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sign", "asked"),
    [
        ("/etc/systemd/system/multi-user.target.wants/salt-minion.service", 1),
        ("/sys/fs/cgroup/system.slice/salt-minion.service", 1),
        ("/elsewhere", 0),
    ],
    ids=["enabled", "running", "idle"],
)
def test_a_minion_that_runs_or_will_is_stopped(guest, sign, asked):
    (guest.root / "run/systemd/system").mkdir(parents=True)
    guest.put("/lib/systemd/system/salt-minion.service")
    guest.put(sign)
    assert outcome(reset(guest))["salt_identity"] == "done"
    assert guest.services == ["systemctl stop salt-minion.service"] * asked


def test_a_foreign_minion_is_forgotten_but_not_its_configuration(guest):
    guest.put("/etc/salt/minion_id", "base\n")
    for name in ("minion.pem", "minion.pub", "minion_master.pub"):
        guest.put(f"/etc/salt/pki/minion/{name}", "old")
    guest.put("/var/cache/salt/minion/proc/1", "old")
    guest.put("/etc/salt/minion", "master: there\nid: base\n# id: comment\n")
    guest.put("/etc/salt/minion.d/x.conf", "id: base\nnested:\n  id: stays\n")
    guest.put("/etc/salt/minion.d/y.conf", "log_level: info\n")
    assert outcome(reset(guest))["salt_identity"] == "done"
    assert not guest.has("/etc/salt/minion_id")
    assert os.listdir(guest.root / "etc/salt/pki/minion") == []
    assert os.listdir(guest.root / "var/cache/salt/minion") == []
    assert guest.text("/etc/salt/minion") == "master: there\n# kvm_clone: id: base\n# id: comment\n"
    assert guest.text("/etc/salt/minion.d/x.conf") == (
        "# kvm_clone: id: base\nnested:\n  id: stays\n"
    )
    assert guest.text("/etc/salt/minion.d/y.conf") == "log_level: info\n"


def test_a_minion_s_keys_and_cache_are_found_where_its_configuration_puts_them(guest):
    guest.put("/etc/salt/minion", "pki_dir: '/srv/pki'  # ours\ncachedir: /srv/cache\n")
    for path in ("pki/minion.pem", "cache/grains.cache.p", "cache/proc/1", "cache/other"):
        guest.put(f"/srv/{path}", "old")
    assert outcome(reset(guest))["salt_identity"] == "done"
    left = [f for _, _, names in os.walk(guest.root / "srv") for f in names]
    assert left == ["other"]


def test_a_master_s_signing_key_stays_and_its_cached_key_goes(guest):
    for name in ("minion_master.pub", "master_sign.pub"):
        guest.put(f"/etc/salt/pki/minion/{name}", "old")
    reset(guest)
    assert os.listdir(guest.root / "etc/salt/pki/minion") == ["master_sign.pub"]


def test_a_salt_master_in_the_guest_is_pointed_out_and_left_alone(guest):
    guest.put("/etc/salt/pki/master/master.pem", "old")
    done = reset(guest)
    assert "Salt master" in done.warnings[0]
    assert guest.has("/etc/salt/pki/master/master.pem")


# --- the rest ---------------------------------------------------------------------------


def test_dhcp_leases_random_seed_and_cloud_instance_go(guest):
    for path in (
        "/var/lib/dhcp/dhclient.eth0.leases",
        "/var/lib/dhcpcd/duid",
        "/var/lib/NetworkManager/internal-x-eth0.lease",
        "/var/lib/NetworkManager/secret_key",
        "/run/systemd/netif/leases/2",
        "/var/lib/systemd/random-seed",
        "/var/lib/cloud/instances/i-1/obj.pkl",
        "/var/lib/cloud/data/instance-id",
    ):
        guest.put(path, "old")
    (guest.root / "etc/cloud/cloud.cfg.d").mkdir(parents=True)
    (guest.root / "var/lib/cloud/instance").symlink_to("/nowhere")
    done = outcome(reset(guest))
    assert [done[name] for name in ("dhcp_state", "random_seed", "cloud_init")] == ["done"] * 3
    files = [f for _, _, names in os.walk(guest.root / "var/lib") for f in names]
    assert files == []
    assert not guest.has("/var/lib/cloud/instance")
    assert "ssh_deletekeys: false" in guest.text("/etc/cloud/cloud.cfg.d/zz-kvm-clone.cfg")

    assert reset(guest).warnings == ()


def test_storage_servers_see_another_client(guest):
    guest.put(
        "/etc/iscsi/initiatorname.iscsi", "## c\nInitiatorName=iqn.1993-08.org.debian:01:ab\n"
    )
    guest.put("/etc/nvme/hostnqn", "nqn.2014-08.org.nvmexpress:uuid:old\n")
    guest.put("/etc/nvme/hostid", "old\n")
    assert outcome(reset(guest))["storage_names"] == "done"
    name = guest.text("/etc/iscsi/initiatorname.iscsi")
    assert re.fullmatch(r"## c\nInitiatorName=iqn\.1993-08\.org\.debian:01:[0-9a-f]{12}\n", name)
    uuid = guest.text("/etc/nvme/hostid").strip()
    assert len(uuid) == 36
    assert guest.text("/etc/nvme/hostnqn").strip().endswith(uuid)


def test_the_pretty_name_of_the_base_goes_and_the_rest_stays(guest):
    guest.put("/etc/machine-info", "PRETTY_HOSTNAME=Base\nCHASSIS=vm\n")
    assert outcome(reset(guest))["machine_info"] == "done"
    assert guest.text("/etc/machine-info") == "CHASSIS=vm\n"


def test_the_journal_goes_on_under_the_new_machine_id(guest):
    (guest.root / "run/systemd/system").mkdir(parents=True)
    guest.put("/run/log/journal/0123/system.journal")
    assert outcome(reset(guest))["journal"] == "done"
    assert guest.services == ["systemctl --no-block restart systemd-journald.service"]


STEPS = re.search(r"main\(\) \{\n(.*)    say end\n\}", identity_script.MAIN, re.DOTALL)[1].split()


@pytest.mark.parametrize("last", STEPS)
def test_a_reset_that_was_interrupted_after_any_step_can_be_repeated(guest, last, monkeypatch):
    files = {
        "/etc/hostname": "base\n",
        "/etc/hosts": "127.0.0.1 localhost\n127.0.1.1 base\n",
        "/etc/machine-id": "x\n",
        "/etc/ssh/ssh_host_rsa_key": "old",
        "/etc/salt/minion_id": "base\n",
        "/etc/salt/minion": "id: base\n",
        "/var/lib/cloud/instances/i/x": "old",
        "/var/lib/systemd/random-seed": "old",
    }
    for path, text in files.items():
        guest.put(path, text)
    whole = identity_script.MAIN
    monkeypatch.setattr(
        identity_script,
        "MAIN",
        whole.replace(f"    {last}\n", f"    {last}\n    kill -9 $$\n"),
    )
    with pytest.raises(errors.CommandFailed):
        reset(guest, "web1")
    monkeypatch.setattr(identity_script, "MAIN", whole)
    reset(guest, "web1")
    assert guest.text("/etc/hosts") == "127.0.0.1 localhost\n127.0.1.1 web1\n"
    assert guest.text("/etc/hostname") == "web1\n"
    assert re.fullmatch("[0-9a-f]{32}\n", guest.text("/etc/machine-id"))
    assert guest.text("/etc/ssh/ssh_host_rsa_key") == KEYS[2].private
    assert guest.text("/etc/salt/minion") == "# kvm_clone: id: base\n"
    assert not guest.has("/etc/salt/minion_id")
    assert not guest.has("/var/lib/cloud/instances/i")


def test_steps_that_a_fork_does_not_need_or_not_yet_are_left_out(guest):
    guest.put("/etc/salt/minion_id", "put there since\n")
    done = identity.reset(guest, "web1", taken=identity_script.NOT_IN_A_FORK)
    assert {step.name for step in done.steps}.isdisjoint(identity_script.NOT_IN_A_FORK)
    assert len(done.steps) == len(reset(guest, "web1").steps) - 3


def test_a_step_that_cannot_be_done_fails_the_reset_and_is_named(guest):
    (guest.root / "etc/hostname").mkdir(parents=True)
    with pytest.raises(errors.CommandFailed, match="hostname: it cannot be set"):
        reset(guest)


def test_a_script_that_breaks_off_is_no_success_and_shows_no_key():
    class Broken:
        name = "agent"

        def run(self, command, **_):
            return Result(0, "kvm-clone: done machine_id\n" + KEYS[0].private, "")

    with pytest.raises(errors.CommandFailed) as caught:
        identity.reset(Broken(), "x", keys=KEYS)
    assert KEYS[0].private.splitlines()[1] not in str(caught.value)


# --- which machine it is ----------------------------------------------------------------

UUID = "01234567-89ab-cdef-0123-456789abcdef"


CARD = "52:54:00:12:34:56"
WHO = "00:00:00:00:00:00\n{card}\n{uuid}\n"


class Dmi:
    """A machine that shows a uuid to root, or to everybody, and has one card."""

    name = "ssh"

    def __init__(self, shown: str, *, root_only: bool = False, card: str = CARD) -> None:
        self.shown, self.root_only, self.card = shown, root_only, card
        self.as_root: list[bool] = []

    def run(self, command, *, as_root=True, **_):
        self.as_root.append(as_root)
        uuid = f"uuid {self.shown}" if self.shown else "no uuid"
        if self.shown and self.root_only and not as_root:
            uuid = "uuid "
        return Result(0, WHO.format(card=self.card, uuid=uuid), "")


@pytest.mark.parametrize(
    "shown", [UUID, UUID.upper(), "67452301-ab89-efcd-0123-456789abcdef"], ids=["", "upper", "le"]
)
def test_the_clone_is_recognised_by_its_firmware_uuid_in_either_byte_order(shown):
    machine = Dmi(shown)
    assert identity.verify_guest(machine, UUID) == "dmi"
    assert machine.as_root == [False], "who is root needs no second look"


def test_another_machine_is_refused_with_a_way_out():
    with pytest.raises(errors.WrongGuest) as caught:
        identity.verify_guest(Dmi("11111111-89ab-cdef-0123-456789abcdef"), UUID)
    assert "qemu-guest-agent" in caught.value.hint


def test_sudo_gets_its_password_only_where_the_mac_address_is_the_clone_s():
    machine = Dmi(UUID, root_only=True)
    assert identity.verify_guest(machine, UUID, {CARD}) == "dmi"
    assert machine.as_root == [False, True]
    other = Dmi(UUID, root_only=True, card="52:54:00:ff:ff:ff")
    with pytest.raises(errors.WrongGuest, match="MAC addresses 52:54:00:ff:ff:ff"):
        identity.verify_guest(other, UUID, {CARD})
    assert other.as_root == [False]


def test_without_firmware_table_the_mac_address_speaks_or_nothing():
    assert identity.verify_guest(Dmi(""), UUID, {CARD}) == "mac"
    assert identity.verify_guest(Dmi(""), UUID) == "unverifiable"


def test_this_machine_is_asked_in_words_that_a_real_shell_understands(guest):
    cards = [path.read_text().strip() for path in Path("/sys/class/net").glob("*/address")]
    if not (Path("/sys/class/dmi/id/product_uuid").exists() or any(a.strip("0:") for a in cards)):
        assert identity.verify_guest(guest, UUID, {"52:54:00:00:00:01"}) == "unverifiable"
        return
    with pytest.raises(errors.WrongGuest):
        identity.verify_guest(guest, UUID, {"52:54:00:00:00:01"})
