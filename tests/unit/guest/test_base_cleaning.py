"""What makes a guest ready to be a base, run for real on a folder by every shell that is here."""

from __future__ import annotations

import re
import subprocess

import pytest

from saltext.kvmclone import errors
from saltext.kvmclone.guest import base_cleaning, base_cleaning_script, hostkeys, salt_minion_script
from saltext.kvmclone.guest.channel import Result

KEYS = hostkeys.generate()
MARK = salt_minion_script.GRAINS_MARK
DROP_IN = f"/etc/salt/minion.d/{salt_minion_script.DROP_IN}"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(hostkeys, "generate", lambda: KEYS)


@pytest.fixture
def used(guest):
    """A clone as it is after it was reset and enrolled, and used for a while."""
    for path, text in {
        "/etc/hostname": "web1\n",
        "/etc/hosts": "127.0.0.1 localhost\n127.0.1.1 web1\n10.0.0.7 web10\n",
        "/etc/machine-id": "0" * 32 + "\n",
        "/var/lib/dbus/machine-id": "0" * 32 + "\n",
        "/etc/ssh/ssh_host_ed25519_key": "the clone's",
        "/etc/ssh/ssh_host_ed25519_key.pub": "the clone's",
        "/etc/salt/minion_id": "web1\n",
        "/etc/salt/minion": "# kvm_clone: id: base\nlog_level: info\n",
        DROP_IN: "master: salt\n",
        "/etc/salt/minion.d/own.conf": "id: web1\nstartup_states: highstate\n",
        "/etc/salt/grains": f"{MARK}\nrole: web\n",
        "/etc/salt/pki/minion/minion.pem": "a key",
        "/etc/salt/pki/minion/master_sign.pub": "configuration",
        "/var/cache/salt/minion/proc/1": "a job",
        "/var/log/salt/minion": "web1 said",
        "/var/lib/cloud/instances/nocloud/sem/x": "",
        "/var/lib/cloud/data/upgraded-network": "",
        "/var/lib/cloud/sem/once": "",
        "/var/lib/cloud/seed/nocloud/user-data": "of the image",
        "/var/lib/cloud/scripts/per-boot/image.sh": "of the image",
        "/etc/cloud/cloud.cfg.d/zz-kvm-clone.cfg": "preserve_hostname: true",
        "/etc/cloud/cloud.cfg.d/99-kvm-clone.cfg": "preserve_hostname: true",
        "/etc/cloud/cloud.cfg.d/05_logging.cfg": "of the distribution",
        "/var/log/cloud-init.log": "x",
        "/var/log/cloud-init-output.log": "x",
        "/var/lib/dhcp/dhclient.eth0.leases": "lease",
        "/var/lib/systemd/random-seed": "old",
        "/home/user/.bash_history": "kept",
    }.items():
        guest.put(path, text)
    (guest.root / "var/lib/cloud/instance").symlink_to("instances/nocloud")
    return guest


def clean(guest, *names: str) -> tuple[str, ...]:
    return base_cleaning.clean(guest, names or ("web1",))


def test_a_bare_guest_has_nothing_to_be_cleaned_of(guest):
    assert clean(guest) == ()
    assert guest.calls == 1


def test_the_machine_id_is_empty_and_its_dbus_copy_is_gone(used):
    clean(used)
    assert used.text("/etc/machine-id") == ""
    assert not used.has("/var/lib/dbus/machine-id")


def test_a_dbus_machine_id_that_is_a_link_stays(guest):
    guest.put("/etc/machine-id", "x")
    (guest.root / "var/lib/dbus").mkdir(parents=True)
    (guest.root / "var/lib/dbus/machine-id").symlink_to("/etc/machine-id")
    clean(guest)
    assert guest.has("/var/lib/dbus/machine-id")


def test_the_host_keys_are_new_so_that_an_sshd_starts_in_a_clone(used):
    clean(used)
    assert used.text("/etc/ssh/ssh_host_ed25519_key") == KEYS[0].private
    public = used.text("/etc/ssh/ssh_host_ed25519_key.pub")
    assert public == f"{KEYS[0].public.line} root@localhost\n"


def test_the_name_of_the_clone_goes_and_so_does_its_line_in_hosts(used):
    clean(used, "other", "web1")
    assert used.text("/etc/hostname") == "localhost\n"
    assert used.text("/etc/hosts") == "127.0.0.1 localhost\n10.0.0.7 web10\n"


@pytest.mark.parametrize("line", ["127.0.1.1 web1.example.org web1", "127.0.1.1\tweb1"])
def test_a_full_name_goes_as_well(guest, line):
    guest.put("/etc/hostname", "web1\n")
    guest.put("/etc/hosts", f"127.0.0.1 localhost\n{line}\n")
    clean(guest, "web1.example.org")
    assert guest.text("/etc/hostname") == "localhost\n"
    assert guest.text("/etc/hosts") == "127.0.0.1 localhost\n"


def test_a_name_that_is_not_the_clones_stays(used):
    hosts = used.text("/etc/hosts")
    clean(used, "db1")
    assert used.text("/etc/hostname") == "web1\n"
    assert used.text("/etc/hosts") == hosts


def test_nothing_of_the_minion_but_its_configuration_is_left(used):
    assert clean(used) == ()
    salt = used.root / "etc/salt"
    left = {str(path.relative_to(salt)) for path in salt.rglob("*") if path.is_file()}
    assert left == {"minion", "minion.d/own.conf", "pki/minion/master_sign.pub"}
    assert used.text("/etc/salt/minion") == "log_level: info\n"
    assert used.text("/etc/salt/minion.d/own.conf") == "startup_states: highstate\n"
    assert not used.has("/var/cache/salt/minion/proc")
    assert not used.has("/var/log/salt/minion")


def test_the_minion_is_stopped_and_its_service_stays_enabled(used):
    (used.root / "run/systemd/system").mkdir(parents=True)
    unit = used.put("/usr/lib/systemd/system/salt-minion.service")
    wants = used.root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "salt-minion.service").symlink_to(unit)
    clean(used)
    assert "systemctl stop salt-minion.service" in used.services
    assert not any("disable" in call for call in used.services)
    assert used.has("/etc/systemd/system/multi-user.target.wants/salt-minion.service")


def test_grains_that_are_the_bases_own_too_stay_with_a_word(used):
    used.put("/etc/salt/grains", "site: a\nrole: web\n")
    (warning,) = clean(used)
    assert "/etc/salt/grains stays" in warning
    assert used.has("/etc/salt/grains")


def test_grains_of_a_guest_that_we_did_not_enrol_stay_without_a_word(guest):
    guest.put("/etc/salt/grains", "site: a\n")
    assert clean(guest) == ()
    assert guest.has("/etc/salt/grains")


def test_the_next_boot_is_a_first_boot_for_cloud_init(used):
    clean(used)
    lib = used.root / "var/lib/cloud"
    left = {str(path.relative_to(lib)) for path in lib.rglob("*") if not path.is_dir()}
    assert left == {"scripts/per-boot/image.sh"}
    config = used.root / "etc/cloud/cloud.cfg.d"
    assert [path.name for path in config.iterdir()] == ["05_logging.cfg"]
    assert not used.has("/var/log/cloud-init.log")
    assert not used.has("/var/log/cloud-init-output.log")


def test_a_cloud_init_that_still_works_is_stopped(used):
    (used.root / "run/systemd/system").mkdir(parents=True)
    (used.root / "run/cloud-init").mkdir(parents=True)
    clean(used)
    assert "systemctl stop cloud-final.service" in used.services
    assert "systemctl stop cloud-init-local.service" in used.services


def test_one_that_cannot_be_stopped_fails_the_cleaning(used, monkeypatch):
    (used.root / "run/cloud-init").mkdir(parents=True)
    used.tool("sleep")
    with pytest.raises(errors.CommandFailed, match="cloud_init: cloud-init is still at work"):
        clean(used)


def test_leases_and_random_seeds_go_and_what_people_made_stays(used):
    (used.root / "run/systemd/system").mkdir(parents=True)
    clean(used)
    assert not used.has("/var/lib/dhcp/dhclient.eth0.leases")
    assert not used.has("/var/lib/systemd/random-seed")
    # Otherwise systemd saves a seed when the guest shuts down.
    assert "systemctl stop systemd-random-seed.service" in used.services
    assert used.text("/home/user/.bash_history") == "kept"


def test_a_second_cleaning_finds_nothing_more_to_do(used):
    clean(used)

    def content() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes()
            for path in used.root.rglob("*")
            if path.is_file() and "/." not in str(path.relative_to(used.root.parent))
        }

    first = content()
    assert clean(used) == ()
    assert content() == first


STEPS = re.search(r"main\(\) \{\n(.*)    say end\n\}", base_cleaning_script._FUNCTIONS, re.DOTALL)[
    1
]
STEPS = [line.strip() for line in STEPS.splitlines() if not line.strip().startswith("#")]


@pytest.mark.parametrize("last", STEPS)
def test_a_cleaning_that_breaks_off_after_any_step_is_no_success(used, last, monkeypatch):
    whole = base_cleaning_script._FUNCTIONS
    broken = whole.replace(f"    {last}\n", f"    {last}\n    exit 0\n")
    monkeypatch.setattr(base_cleaning_script, "_FUNCTIONS", broken)
    with pytest.raises(errors.CommandFailed, match="not cleaned completely"):
        clean(used)
    monkeypatch.setattr(base_cleaning_script, "_FUNCTIONS", whole)
    clean(used)
    assert used.text("/etc/machine-id") == ""


def test_a_step_that_cannot_be_done_fails_the_cleaning_and_is_named(used):
    (used.root / "etc/machine-id").unlink()
    (used.root / "etc/machine-id").mkdir()
    with pytest.raises(errors.CommandFailed, match="machine_id: /etc/machine-id cannot be written"):
        clean(used)


def test_data_that_cannot_be_written_out_is_a_failure(used):
    if "busybox" in used.shell:
        pytest.skip("it has a sync of its own, which nothing stands before")
    used.tool("sync", 1)
    with pytest.raises(errors.CommandFailed, match="sync"):
        clean(used)


def test_no_private_key_is_in_an_error():
    class Broken:
        name = "agent"

        def run(self, command, *, timeout, stdin=None, as_root=True):
            return Result(1, stdin.decode(), "")

    with pytest.raises(errors.CommandFailed) as caught:
        base_cleaning.clean(Broken(), ("web1",))
    assert KEYS[0].private.splitlines()[1] not in str(caught.value)


def test_the_script_has_no_error_of_syntax():
    text = base_cleaning_script.text(("a",), KEYS, "x", "u")
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)
