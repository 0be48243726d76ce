"""Enrolment: what lands in the guest, what runs there, and what never shows."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import time

import pytest
import yaml

from saltext.kvmclone import errors
from saltext.kvmclone.guest import salt_minion, salt_minion_script
from saltext.kvmclone.model.enrolment import Enrolment, GuestFile
from saltext.kvmclone.model.plain import from_plain, to_plain
from saltext.kvmclone.model.request import Secrets

PEM = """-----BEGIN RSA PRIVATE KEY-----
canarykeyline1
canarykeyline2
-----END RSA PRIVATE KEY-----
"""

ENROLMENT = Enrolment(
    minion_id="web1",
    minion_config={"master": "192.168.16.1", "master_port": 5506},
    grains={"clones-are-awesome": True},
    private_key_pem=PEM,
    public_key_pem="public\n",
    fingerprint="aa:bb",
    secrets=Secrets("canary-password", "canary-sudo", "canary-login-key", "canary-passphrase"),
)


def scripted(text: str, **fields) -> Enrolment:
    return dataclasses.replace(ENROLMENT, script_text=text, script_named=True, **fields)


@pytest.fixture
def minion_guest(guest):
    """A guest that has a minion of systemd's."""
    guest.put("/usr/lib/systemd/system/salt-minion.service")
    (guest.root / "run/systemd/system").mkdir(parents=True)
    return guest


@pytest.fixture(autouse=True)
def nothing_is_left_in_tmp():
    before = set(os.listdir("/tmp"))
    yield
    left = {name for name in set(os.listdir("/tmp")) - before if name.startswith(".saltcloud")}
    assert left == set()


# --- a guest that has its minion --------------------------------------------------------


def test_an_installed_minion_gets_its_identity_and_is_started(minion_guest):
    minion_guest.put("/etc/salt/minion", "master: other\n")
    minion_guest.put("/etc/salt/pki/minion/minion_master.pub", "other master")
    report = salt_minion.enrol(
        minion_guest, dataclasses.replace(ENROLMENT, master_sign_pub="sign\n")
    )
    assert report == salt_minion.Report("systemd")
    assert minion_guest.text("/etc/salt/minion_id") == "web1\n"
    assert minion_guest.text("/etc/salt/pki/minion/minion.pem") == PEM
    assert minion_guest.text("/etc/salt/pki/minion/minion.pub") == "public\n"
    assert minion_guest.text("/etc/salt/pki/minion/master_sign.pub") == "sign\n"
    assert not minion_guest.has("/etc/salt/pki/minion/minion_master.pub")
    assert yaml.safe_load(minion_guest.text("/etc/salt/grains")) == ENROLMENT.grains
    assert minion_guest.text("/etc/salt/minion") == "master: other\n"
    drop_in = yaml.safe_load(minion_guest.text("/etc/salt/minion.d/zzz-kvm-clone.conf"))
    assert drop_in == {"master": "192.168.16.1", "master_port": 5506, "id": "web1"}
    assert minion_guest.services == [
        "systemctl --quiet --no-reload enable salt-minion.service",
        "systemctl --no-block restart salt-minion.service",
    ]


def test_the_private_key_is_for_root_alone(minion_guest):
    salt_minion.enrol(minion_guest, ENROLMENT)
    folder = minion_guest.root / "etc/salt/pki/minion"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "minion.pem").stat().st_mode & 0o777 == 0o400


def test_enrolling_again_replaces_the_key(minion_guest):
    salt_minion.enrol(minion_guest, ENROLMENT)
    salt_minion.enrol(minion_guest, dataclasses.replace(ENROLMENT, private_key_pem="second\n"))
    assert minion_guest.text("/etc/salt/pki/minion/minion.pem") == "second\n"


def test_it_takes_two_commands(minion_guest):
    salt_minion.enrol(minion_guest, ENROLMENT)
    assert minion_guest.calls == 2


def test_an_enabled_minion_is_not_enabled_again(minion_guest):
    minion_guest.put("/etc/systemd/system/multi-user.target.wants/salt-minion.service")
    salt_minion.enrol(minion_guest, ENROLMENT)
    assert minion_guest.services == ["systemctl --no-block restart salt-minion.service"]


def test_without_systemd_the_init_script_starts_it(guest):
    script = guest.put("/etc/init.d/salt-minion", f"#!/bin/sh\necho $1 >{guest.root}/init\n", 0o755)
    assert script.exists()
    assert salt_minion.enrol(guest, ENROLMENT).how == "init"
    assert guest.text("/init") == "restart\n"


def test_a_minion_that_does_not_start_is_a_failure(minion_guest):
    minion_guest.tool("systemctl", 5)
    with pytest.raises(errors.DeployFailed, match="starting the salt-minion"):
        salt_minion.enrol(minion_guest, ENROLMENT)


@pytest.mark.parametrize(
    ("own", "merged", "warned"),
    [
        ("role: db\nclones-are-awesome: false\n", {"role": "db", "clones-are-awesome": True}, 0),
        ("- not\n- grains\n", {"clones-are-awesome": True}, 1),
        ("a: [broken", {"clones-are-awesome": True}, 1),
    ],
)
def test_the_base_s_own_grains_stay_where_they_can_be_read(minion_guest, own, merged, warned):
    minion_guest.put("/etc/salt/grains", own)
    report = salt_minion.enrol(minion_guest, ENROLMENT)
    assert yaml.safe_load(minion_guest.text("/etc/salt/grains")) == merged
    assert len(report.warnings) == warned


def test_only_grains_that_are_ours_alone_are_marked_so(minion_guest):
    for _ in ("first", "again"):
        salt_minion.enrol(minion_guest, ENROLMENT)
        assert minion_guest.text("/etc/salt/grains").startswith(salt_minion_script.GRAINS_MARK)
    minion_guest.put("/etc/salt/grains", "role: db\n")
    salt_minion.enrol(minion_guest, ENROLMENT)
    assert salt_minion_script.GRAINS_MARK not in minion_guest.text("/etc/salt/grains")


def test_without_grains_the_base_s_own_are_not_touched(minion_guest):
    minion_guest.put("/etc/salt/grains", "role: db\n")
    salt_minion.enrol(minion_guest, dataclasses.replace(ENROLMENT, grains={}))
    assert minion_guest.text("/etc/salt/grains") == "role: db\n"


def test_keys_never_runs_a_script_even_where_one_is_named(minion_guest):
    report = salt_minion.enrol(minion_guest, scripted("exit 9", bootstrap="keys"))
    assert report.how == "systemd"


def test_keys_runs_nothing_of_the_profile_and_says_so(minion_guest):
    enrolment = scripted(
        "exit 9",
        bootstrap="keys",
        preflight_cmds=("exit 8",),
        inline_script=(f"touch {minion_guest.root}/ran",),
    )
    report = salt_minion.enrol(minion_guest, enrolment)
    assert len(report.warnings) == 1
    assert "preflight_cmds" in report.warnings[0]
    assert not minion_guest.has("/ran")


def test_a_base_that_keeps_its_keys_elsewhere_finds_those_that_count(minion_guest):
    minion_guest.put("/etc/salt/minion", "pki_dir: /srv/pki\n")
    salt_minion.enrol(minion_guest, ENROLMENT)
    drop_in = yaml.safe_load(minion_guest.text("/etc/salt/minion.d/zzz-kvm-clone.conf"))
    assert drop_in["pki_dir"] == f"{minion_guest.root}/etc/salt/pki/minion"


def test_none_does_nothing(guest):
    assert salt_minion.enrol(guest, dataclasses.replace(ENROLMENT, bootstrap="none")).how == "none"
    assert guest.calls == 0


# --- a guest that needs a script --------------------------------------------------------


@pytest.fixture
def empty(guest):
    (guest.tools / "salt-minion").unlink()
    if any(os.access(f"{p}/salt-minion", os.X_OK) for p in ("/usr/bin", "/usr/local/bin")):
        pytest.skip("this machine has a salt-minion of its own")
    return guest


@pytest.mark.parametrize("bootstrap", ["auto", "keys"])
def test_neither_minion_nor_script_is_an_error_that_says_what_to_do(empty, bootstrap):
    with pytest.raises(errors.DeployFailed) as caught:
        salt_minion.enrol(empty, dataclasses.replace(ENROLMENT, bootstrap=bootstrap))
    assert "Install Salt in the base" in caught.value.hint


def test_an_unnamed_script_runs_where_there_is_no_minion(empty):
    enrolment = dataclasses.replace(ENROLMENT, script_text=f"touch {empty.root}/ran\n")
    assert salt_minion.enrol(empty, enrolment).how == "script"
    assert empty.has("/ran")


# --- the deploy script's surroundings ---------------------------------------------------


def test_the_script_finds_its_files_beside_it(guest):
    script = f'cp -a "$(dirname "$0")" {guest.root}/copy; echo "$0 $*" >{guest.root}/args\n'
    salt_minion.enrol(guest, scripted(script, script_args="-F 'two words' \"$((1+1))\""))
    copy = guest.root / "copy"
    assert copy.stat().st_mode & 0o777 == 0o700
    assert yaml.safe_load((copy / "minion").read_text()) == {
        "master": "192.168.16.1",
        "master_port": 5506,
        "log_level": "info",
        "hash_type": "sha256",
        "id": "web1",
    }
    assert (copy / "minion.pem").read_text() == PEM
    assert (copy / "minion.pem").stat().st_mode & 0o777 == 0o600
    assert (copy / "minion.pub").read_text() == "public\n"
    assert yaml.safe_load((copy / "grains").read_text()) == ENROLMENT.grains
    zero, _, args = guest.text("/args").strip().partition(" ")
    assert zero.startswith("/tmp/.saltcloud-")
    assert zero.endswith("/deploy.sh")
    assert args == "-F two words 2"


def test_only_salt_s_own_script_is_told_the_folder(guest):
    script = f'echo "$0 $*" >{guest.root}/args\n'
    salt_minion.enrol(guest, scripted(script, is_bootstrap_script=True, script_args="-F"))
    zero, *rest = guest.text("/args").split()
    assert rest == ["-c", os.path.dirname(zero), "-F"]
    salt_minion.enrol(guest, scripted(script, script_args="-F"))
    assert guest.text("/args").split()[1:] == ["-F"]


def test_a_new_master_finds_its_keys_and_those_that_it_shall_accept(guest):
    script = (
        f'd=$(dirname "$0"); cat "$d/master.pem" "$d/preseed/web1" >{guest.root}/seen\n'
        f'stat -c %a "$d/master.pem" >>{guest.root}/seen\necho "$*" >{guest.root}/args\n'
    )
    beside = (
        GuestFile("master.pem", b"the master's\n", 0o600),
        GuestFile("preseed/web1", b"a minion's\n"),
    )
    flags = " -M -k {folder}/preseed"
    enrolment = scripted(script, is_bootstrap_script=True, beside=beside, flags=flags)
    salt_minion.enrol(guest, enrolment)
    assert guest.text("/seen") == "the master's\na minion's\n600\n"
    words = guest.text("/args").split()
    assert words == ["-c", words[1], "-M", "-k", f"{words[1]}/preseed"]
    assert not os.path.lexists(words[1])
    assert "the master's\n" in enrolment.hidden()


def test_the_documented_deploy_command_works_literally(guest):
    command = "sh /tmp/.saltcloud/deploy.sh"
    salt_minion.enrol(guest, scripted(f'echo "$0" >{guest.root}/ran\n', deploy_command=command))
    assert guest.text("/ran") == "/tmp/.saltcloud/deploy.sh\n"
    assert not os.path.lexists("/tmp/.saltcloud")


def test_a_command_that_only_looks_like_it_gets_a_folder_of_our_own(guest):
    enrolment = scripted("", deploy_command="echo /tmp/.saltcloud-x/deploy.sh")
    assert salt_minion.enrol(guest, enrolment).output == "/tmp/.saltcloud-x/deploy.sh"


@pytest.mark.parametrize("kind", ["link", "file", "foreign"])
def test_a_folder_that_somebody_else_put_there_is_refused_and_left_alone(guest, kind, tmp_path):
    path = "/tmp/.saltcloud"
    if kind == "link":
        os.symlink(tmp_path, path)
    elif kind == "file":
        open(path, "w").close()
    else:
        os.mkdir(path)
        os.chown(path, 4242, 4242)
    try:
        with pytest.raises(errors.DeployFailed, match="not ours"):
            salt_minion.enrol(guest, scripted("exit 0", deploy_command=f"sh {path}/deploy.sh"))
        assert os.path.lexists(path)
    finally:
        os.rmdir(path) if kind == "foreign" else os.unlink(path)


def test_our_own_folder_from_an_earlier_attempt_is_replaced(guest):
    os.mkdir("/tmp/.saltcloud")
    open("/tmp/.saltcloud/stale", "w").close()
    script = "test ! -e /tmp/.saltcloud/stale"
    salt_minion.enrol(guest, scripted(script, deploy_command="sh /tmp/.saltcloud/deploy.sh"))


def test_the_environment_reaches_the_script_whatever_it_holds(guest):
    value = 'it\'s $HOME `id` "x"\nsecond line'
    script = f'printf %s "$ODD" >{guest.root}/value\n'
    salt_minion.enrol(guest, scripted(script, script_env={"ODD": value}))
    assert guest.text("/value") == value


@pytest.mark.parametrize("name", ["A-B", "1A", "A B", "A;id", ""])
def test_a_name_that_is_no_variable_is_refused_before_anything_is_sent(guest, name):
    with pytest.raises(errors.DeployFailed, match="script_env"):
        salt_minion.enrol(guest, scripted("exit 0", script_env={name: "x"}))
    assert guest.calls == 0


def test_commands_run_before_and_after_in_order(guest):
    log = shlex.quote(f"{guest.root}/log")
    enrolment = scripted(
        f"echo deploy >>{log}",
        preflight_cmds=(f"echo one >>{log}", f"echo 'two' >>{log}"),
        inline_script=(f"echo three >>{log}",),
    )
    assert salt_minion.enrol(guest, enrolment).warnings == ()
    assert guest.text("/log").split() == ["one", "two", "deploy", "three"]


def test_a_preflight_command_that_fails_ends_it(guest):
    enrolment = scripted(f"touch {guest.root}/ran", preflight_cmds=("true", "echo no room; exit 4"))
    with pytest.raises(errors.DeployFailed, match="status 4") as caught:
        salt_minion.enrol(guest, enrolment)
    assert "no room" in caught.value.message
    assert not guest.has("/ran")


def test_an_inline_command_that_fails_is_a_warning(guest):
    report = salt_minion.enrol(guest, scripted("true", inline_script=("exit 3", "echo last")))
    assert report.warnings == ("inline_script: 'exit 3' ended with exit status 3.",)
    assert report.output == "last"


def test_files_arrive_whole_with_their_mode_in_folders_that_are_made(guest):
    data = bytes(range(256)) * 500
    path = f"{guest.root}/new folder/it's"
    salt_minion.enrol(guest, scripted("true", files=(GuestFile(path, data, 0o750),)))
    assert (guest.root / "new folder/it's").read_bytes() == data
    assert (guest.root / "new folder/it's").stat().st_mode & 0o777 == 0o750


def test_a_file_that_cannot_be_written_names_file_map(guest):
    enrolment = scripted("true", files=(GuestFile("/proc/nowhere/file", b"x"),))
    with pytest.raises(errors.DeployFailed, match="file_map: /proc/nowhere/file"):
        salt_minion.enrol(guest, enrolment)


# --- failures ---------------------------------------------------------------------------


def test_a_script_that_fails_shows_its_last_lines(guest):
    with pytest.raises(errors.DeployFailed, match="exit status 7") as caught:
        salt_minion.enrol(guest, scripted("seq 1 500; echo the reason >&2; exit 7"))
    lines = caught.value.message.splitlines()
    assert lines[-1] == "the reason"
    assert len(lines) == 21


def test_a_script_cannot_speak_in_our_name(guest):
    script = "echo 'kvm-clone: failed start 1'; echo 'kvm-clone: output'; echo 'kvm-clone: x'"
    assert salt_minion.enrol(guest, scripted(script)).how == "script"


def test_a_daemon_that_a_script_leaves_behind_holds_nobody_up(guest):
    done = salt_minion.enrol(guest, scripted("sleep 30 & echo $!"), timeout=10)
    subprocess.run(["kill", done.output], check=True)


def test_a_script_that_hangs_ends_by_itself_and_leaves_nothing_although_nobody_waits(guest):
    script = f'echo "$(dirname "$0")" >{guest.root}/folder; sleep 60'
    with pytest.raises(errors.DeployFailed, match="within 1 s"):
        Forgetful(guest).enrol(scripted(script))
    folder = guest.text("/folder").strip()
    assert os.path.exists(f"{folder}/minion.pem")
    deadline = time.monotonic() + 8
    while os.path.exists(folder):
        assert time.monotonic() < deadline
        time.sleep(0.1)


class Forgetful:
    """What an ssh connection is to a command that hangs: it goes, and the command stays."""

    name = "ssh"

    def __init__(self, guest) -> None:
        self.guest = guest

    def enrol(self, enrolment) -> None:
        salt_minion.enrol(self, enrolment, timeout=1)

    def run(self, command, *, timeout, stdin=None, as_root=True):
        process = subprocess.Popen(
            [*self.guest.shell, "-c", command], stdin=subprocess.PIPE, env=self.guest.environment
        )
        process.stdin.write(stdin)
        process.stdin.close()
        time.sleep(timeout)
        raise errors.CommandFailed("it hangs")


def test_no_secret_is_in_a_message_a_report_or_a_repr(guest):
    script = (
        'cat "$(dirname "$0")/minion.pem"; echo canary-password canary-sudo canary-login-key'
        " canary-passphrase $API_TOKEN $FROM_A_STORE; exit $STATUS"
    )
    env = {"API_TOKEN": "canary-token", "FROM_A_STORE": "canary-sdb-value", "STATUS": "0"}
    enrolment = scripted(script, script_env=env)
    report = salt_minion.enrol(guest, enrolment)
    with pytest.raises(errors.DeployFailed) as caught:
        salt_minion.enrol(guest, dataclasses.replace(enrolment, script_env={**env, "STATUS": "1"}))
    for text in (repr(report), str(caught.value), repr(enrolment)):
        assert "canary" not in text


def test_no_secret_is_in_a_command_line(guest):
    texts = []
    run = guest.run
    guest.run = lambda command, **options: texts.append(command) or run(command, **options)
    salt_minion.enrol(guest, scripted("true", script_env={"X": "canary-env"}))
    assert "canary" not in "".join(texts)


# --- the journey ------------------------------------------------------------------------


def test_an_enrolment_survives_the_journey():
    enrolment = scripted(
        "#!/bin/sh\n",
        script_env={"A": "b"},
        preflight_cmds=("x",),
        inline_script=("y", "z"),
        files=(GuestFile("/a", bytes(range(256)), 0o600),),
        beside=(GuestFile("master.pem", b"secret", 0o600),),
        flags=" -M",
    )
    assert travelled(enrolment) == enrolment


def travelled(enrolment):
    return from_plain(Enrolment, json.loads(json.dumps(to_plain(enrolment))))


def test_a_secret_is_struck_out_however_a_shell_writes_it(guest):
    secret = 'it\'s "100%" $x \\ sécret: #y '
    script = 'set -x; env | grep ^PLAIN; printf "%s\\n" "$PLAIN"; exit 1'
    for shell in ("sh", "bash"):
        enrolment = scripted(
            script, script_env={"PLAIN": secret}, deploy_command="SHELL /tmp/.saltcloud/deploy.sh"
        )
        enrolment = dataclasses.replace(
            enrolment, deploy_command=enrolment.deploy_command.replace("SHELL", shell)
        )
        with pytest.raises(errors.DeployFailed, match="exit status 1") as caught:
            salt_minion.enrol(guest, enrolment)
        assert "sécret" not in caught.value.message
        assert "100%" not in caught.value.message


def test_what_came_out_of_a_store_is_struck_out_wherever_it_stands(guest):
    secrets = Secrets(password="abc", stored=("canary one", "canary-2"))
    enrolment = scripted(
        "echo abc, $SHORT; cat $(dirname $0)/minion; exit 1",
        script_env={"SHORT": "canary-2"},
        minion_config={"x": "canary one"},
        secrets=secrets,
    )
    with pytest.raises(errors.DeployFailed) as caught:
        salt_minion.enrol(guest, travelled(enrolment))
    assert "canary" not in caught.value.message
    assert "abc" not in caught.value.message
    failing = scripted("true", inline_script=("echo canary one; false",), secrets=secrets)
    assert "canary" not in "".join(salt_minion.enrol(guest, failing).warnings)


def test_half_a_secret_at_the_beginning_of_a_long_output_is_not_told(guest):
    token = "token-" + 40 * "canary"
    script = 'echo "$TOKEN"; i=0; while [ $i -lt 16 ]; do i=$((i+1)); printf "%01013d\\n" $i; done'
    with pytest.raises(errors.DeployFailed) as caught:
        salt_minion.enrol(guest, scripted(f"{script}; exit 1", script_env={"TOKEN": token}))
    assert "canary" not in caught.value.message
    assert caught.value.message.endswith("016")
