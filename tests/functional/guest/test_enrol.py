"""
A whole enrolment through a real sshd into this machine, as a deploy script meets it: every
key of a profile that concerns the guest, as root and through sudo, over one connection.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from saltext.kvmclone import errors
from saltext.kvmclone.guest import salt_minion, ssh
from saltext.kvmclone.model.enrolment import Enrolment, GuestFile
from saltext.kvmclone.model.request import Login, Secrets
from tests.support.sshd import PASSWORD, USER, Sshd

pytestmark = pytest.mark.slow

pytest.importorskip("paramiko")

#: Where everything that the script leaves is looked for; /tmp is another one inside.
SCRIPT = """\
#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
out=$OUT/seen
mkdir -p "$out"
cp -a "$here" "$out/folder"
{ echo "user=$(id -un)"; echo "args=$*"; echo "odd=$ODD"; echo "here=$here"
  echo "terminal=$(test -t 0 && echo yes || echo no)"
  echo "noexec=$(grep -c ' /tmp tmpfs .*noexec' /proc/mounts)"; } >"$out/facts"
cp "$here/deploy.sh" "$here/copy.sh" && chmod 755 "$here/copy.sh"
"$here/copy.sh" 2>"$out/executed" </dev/null
echo deploy >>"$OUT/order"
"""


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder that is not below /tmp, where the guest has a /tmp of its own."""
    folder = Path(tempfile.mkdtemp(prefix="kvmclone-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def guest(outside: Path, account: str) -> Iterator[Sshd]:
    """An sshd whose /tmp is mounted noexec, and nobody else's."""
    server = Sshd(outside)
    server.start(
        "unshare", "--mount", "sh", "-c",
        'mount -t tmpfs -o noexec,mode=1777 tmpfs /tmp && exec "$@"', "sh",
    )  # fmt: skip
    yield server
    server.stop()


def enrolment(outside: Path, **fields) -> Enrolment:
    order = outside / "order"
    return Enrolment(
        **{
            "minion_id": "web1",
            "minion_config": {"master": "192.168.16.1", "master_port": 5506},
            "grains": {"clones-are-awesome": True},
            "private_key_pem": "-----BEGIN X-----\ncanary-minion-key\n-----END X-----\n",
            "public_key_pem": "public\n",
            "script_text": SCRIPT,
            "script_named": True,
            "deploy_command": "sh /tmp/.saltcloud/deploy.sh",
            "script_args": "-F 'two words'",
            "script_env": {"OUT": str(outside), "ODD": "it's $HOME `id`"},
            "preflight_cmds": (f"echo preflight >>{order}",),
            "inline_script": (f"echo inline >>{order}", "exit 3"),
            "files": (
                GuestFile(f"{outside}/placed/file", bytes(range(256)) * 800, 0o640),
                GuestFile(f"{outside}/placed/tool", b"#!/bin/sh\necho tool\n", 0o755),
            ),
            **fields,
        }
    )


LOGINS = {
    "root": ("", {"username": "root", "sudo": False}),
    "nopasswd": (f"{USER} ALL=(ALL) NOPASSWD: ALL\n", {"sudo": True}),
    "password": (f"{USER} ALL=(ALL) ALL\n", {"sudo": True, "tty": False}),
    "requiretty": (
        f"{USER} ALL=(ALL) ALL\nDefaults:{USER} requiretty\n",
        {"sudo": True, "tty": True},
    ),
}


@pytest.mark.parametrize("kind", LOGINS)
def test_everything_that_a_profile_puts_into_a_guest_over_one_connection(
    guest, outside, sudoers, kind
):
    rule, words = LOGINS[kind]
    sudoers(rule or "# nobody\n")
    secrets = Secrets(password=PASSWORD)
    if kind == "root":
        key = outside / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        guest.authorize(key.with_suffix(".pub").read_text())
        secrets = Secrets(private_key=key.read_text())
    login = Login(**{"username": USER, "port": guest.port, **words})
    with ssh.connect("127.0.0.1", login, secrets, deadline=time.monotonic() + 20) as channel:
        report = salt_minion.enrol(channel, enrolment(outside))
        left = channel.run("ls -A /tmp", timeout=10).output

    assert guest.connections == 1
    assert report.how == "script"
    assert report.warnings == ("inline_script: 'exit 3' ended with exit status 3.",)
    assert left == "", "nothing is left in the guest"

    facts = dict(
        line.partition("=")[::2] for line in (outside / "seen/facts").read_text().splitlines()
    )
    assert facts == {
        "user": "root",
        "args": "-F two words",
        "odd": "it's $HOME `id`",
        "here": "/tmp/.saltcloud",
        "terminal": "no",
        "noexec": "1",
    }
    assert "denied" in (outside / "seen/executed").read_text(), "/tmp is noexec indeed"
    assert (outside / "order").read_text().split() == ["preflight", "deploy", "inline"]
    folder = outside / "seen/folder"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "minion.pem").read_text().count("canary-minion-key") == 1
    assert stat.S_IMODE((folder / "minion.pem").stat().st_mode) == 0o600
    placed = outside / "placed/file"
    assert placed.read_bytes() == bytes(range(256)) * 800
    assert (placed.stat().st_uid, stat.S_IMODE(placed.stat().st_mode)) == (0, 0o640)
    assert os.access(outside / "placed/tool", os.X_OK)


def test_a_folder_of_our_own_serves_where_no_command_names_one(guest, outside, sudoers):
    sudoers(LOGINS["nopasswd"][0])
    login = Login(USER, guest.port, sudo=True)
    secrets = Secrets(password=PASSWORD)
    with ssh.connect("127.0.0.1", login, secrets, deadline=time.monotonic() + 20) as channel:
        salt_minion.enrol(channel, enrolment(outside, deploy_command=""))
        assert channel.run("ls -A /tmp", timeout=10).output == ""
    assert "here=/tmp/.saltcloud-" in (outside / "seen/facts").read_text()


def test_no_secret_is_ever_in_a_process_list_or_a_log(guest, outside, sudoers):
    sudoers(LOGINS["password"][0])
    canaries = {
        "password": PASSWORD,
        "minion key": "canary-minion-key",
        "environment": "canary-environment",
    }
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                seen.update(name for name, word in canaries.items() if word in words)

    watcher = threading.Thread(target=watch)
    watcher.start()
    login = Login(USER, guest.port, sudo=True)
    secrets = Secrets(password=PASSWORD)
    wanted = enrolment(
        outside,
        script_text="sleep 0.5; cat $(dirname $0)/minion.pem; echo $TOKEN; exit 5",
        script_env={"OUT": str(outside), "TOKEN": "canary-environment"},
    )
    try:
        with (
            ssh.connect("127.0.0.1", login, secrets, deadline=time.monotonic() + 20) as channel,
            pytest.raises(errors.DeployFailed) as caught,
        ):
            salt_minion.enrol(channel, wanted)
    finally:
        over.set()
        watcher.join()
    assert seen == set()
    said = json.dumps([str(caught.value), caught.value.as_dict(), guest.log])
    assert not [name for name, word in canaries.items() if word in said]
