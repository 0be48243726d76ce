"""Nobody sees a secret: not in an answer, an event, a log, a cache, a process list or a file."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from lab.common import run, wait_until, write
from lab.demo import DEPLOY_SCRIPT
from lab.lab import Lab, connection
from lab.salt import Answer, SaltWorld
from tests.e2e import canaries
from tests.e2e.canaries import Canaries, Watch
from tests.e2e.conftest import Ear

guest = pytest.mark.guest

#: The user's own password opens ssh and root's opens sudo: two secrets that differ.
SUDO = "Defaults rootpw\nlab ALL=(ALL:ALL) ALL\n"

#: It says aloud what it was given, as scripts with ``set -x`` do, and fails.
TELLTALE = """\
#!/bin/sh
set -x
env
echo "the token is $TOKEN" >&2
exit 3
"""

#: What only lives in the guest's memory is laid beside what is on its disk.
GATHER = (
    "mkdir -p /var/look && journalctl --no-pager -o export >/var/look/journal; "
    "cp -r /run /tmp /dev/shm /var/look/ 2>/dev/null; dmesg >/var/look/dmesg; "
    "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ >/var/look/processes 2>/dev/null; sync"
)


@dataclass
class Told:
    """What a whole run let be seen."""

    canaries: Canaries
    answers: list[Answer]
    events: str
    watch: Watch
    host: dict[str, list[str]]
    guest: dict[str, list[str]]
    files: int


# --- the search can fail -------------------------------------------------------------------


@pytest.mark.parametrize(
    "disguise",
    [
        lambda secret: secret,
        lambda secret: json.dumps({"password": secret}),
        lambda secret: json.dumps({"password": json.dumps({"x": secret})}),
        lambda secret: yaml.safe_dump({"password": secret}),
        lambda secret: repr({"password": secret.encode()}),
        lambda secret: "=" + base64.b64encode(secret.encode()).decode(),
        lambda secret: base64.b64encode(b"x" + secret.encode() + b"y").decode(),
        lambda secret: base64.b64encode(b"xx" + secret.encode() + b"yy").decode(),
        lambda secret: secret.encode().hex(),
    ],
)
def test_a_leak_is_heard_in_every_disguise(disguise) -> None:  # type: ignore[no-untyped-def]
    for secret in (canaries.password(), canaries.login_key("over the hills")[0]):
        birds = Canaries(leaked=secret, other=canaries.password())
        assert birds.heard(f"before {disguise(secret)} after") == ["leaked"]


def test_a_leak_is_found_in_a_file_and_not_where_it_belongs(tmp_path: Path) -> None:
    secret = canaries.password()
    birds = Canaries(password=secret)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/job.p").write_bytes(b"\x81\xa8" + secret.encode() + b"\0")
    (tmp_path / "clean").write_text("nothing here")
    (tmp_path / "profile").write_text(secret)
    found = birds.heard_in_files([tmp_path], spared=[tmp_path / "profile"])
    assert found == {str(tmp_path / "deep/job.p"): ["password"]}


def test_a_leak_is_seen_in_a_process_list() -> None:
    birds = Canaries(argument=canaries.password(), environment=canaries.password())
    one, two = canaries.password(), canaries.password()
    birds = Canaries(argument=one, environment=two)
    with Watch() as watch:
        subprocess.run(
            [sys.executable, "-c", "import time; time.sleep(1)", one],
            env={**os.environ, "TOKEN": two},
            check=True,
        )
    assert sorted({name for seen in watch.seen for name in birds.heard(seen)}) == [
        "argument",
        "environment",
    ]


# --- a whole run ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """A create that fails in the guest and one that ends well, at log level debug."""
    secrets = {
        name: canaries.password()
        for name in ("password", "sudo_password", "passphrase", "token", "file", "direct")
    }
    private, public = canaries.login_key(secrets["passphrase"])
    birds = Canaries(private_key=private, **secrets)

    def change(root: Path) -> None:
        run(
            ["chpasswd", "-R", root, "-c", "SHA512"],
            input=f"lab:{secrets['password']}\nroot:{secrets['sudo_password']}\n",
        )
        write(root / "etc/sudoers.d/lab", SUDO, 0o440)
        keys = write(root / "home/lab/.ssh/authorized_keys", public + "\n", 0o600)
        owner = (root / "home/lab").stat()
        for path in (keys.parent, keys):
            os.chown(path, owner.st_uid, owner.st_gid)

    lab.debian_base("e2e-canary", agent=False, change=change)
    folder = lab.folder / "salt-secrets"
    debug = {"log_level_logfile": "debug"}
    places = [folder / "vault.yaml", folder / "own.conf", folder / "token.txt"]
    vault = {"vault": {"driver": "yaml", "files": [str(places[0])]}}
    with SaltWorld(
        folder, address=lab.gateway, owner=f"{lab.name}:secrets", master={**debug, **vault}
    ) as world:
        write(places[0], yaml.safe_dump({**secrets, "private_key": private}), 0o600)
        write(places[2], secrets["file"], 0o600)
        minion = {"master": world.address, "master_port": world.ret_port}
        common = {
            "provider": "kvm",
            "base_domain": "e2e-canary",
            "clone_strategy": "quick",
            "bootstrap": "ssh",
            "ssh_username": "lab",
            "minion": minion,
            "script_env": {"TOKEN": "sdb://vault/token"},
            "file_map": {str(places[2]): "/root/token.txt"},
        }
        provider = {"driver": "libvirt", "url": "qemu:///system", "host": "kvm01"}
        world.write_cloud("providers", "kvm.conf", {"kvm": provider})
        places[1] = world.write_cloud(
            "profiles",
            "canary.conf",
            {
                "fails": {
                    **common,
                    "script": "telltale",
                    "password": secrets["password"],
                    "sudo_password": secrets["sudo_password"],
                    "inline_script": [f"echo {secrets['direct']}"],
                },
                "works": {
                    **common,
                    "script": "place-and-start",
                    "private_key": "sdb://vault/private_key",
                    "private_key_passphrase": "sdb://vault/passphrase",
                    "sudo_password": "sdb://vault/sudo_password",
                },
            },
        )
        world.write_cloud("deploy", "telltale.sh", TELLTALE)
        world.write_cloud("deploy", "place-and-start.sh", DEPLOY_SCRIPT)
        world.add_minion("kvm01", debug)

        def ask(function: str, *words: str) -> Answer:
            words = ("--out=json", "-l", "debug", f"kvmclone.{function}", *words)
            return world.execute(world.command("salt-run", *words))

        scratch = tmp_path_factory.mktemp("guest")
        with Watch() as watch, Ear(world) as ear:
            answers = [ask("profiles"), ask("plan", "fails", "e2e-mute")]
            answers += [ask("create", "fails", "e2e-mute"), ask("create", "works", "e2e-sings")]
            try:
                assert [answer.retcode for answer in answers] == [0, 0, 1, 0], answers[-2:]
                failed = answers[2].data["clones"]["e2e-mute"]["error"]
                assert failed["type"] == "DeployFailed"
                assert "the token is" in failed["message"]
                answers.append(ask("show", "e2e-sings"))
                # Before the search: the files that it reads must be as the run left them.
                world.salt("e2e-sings", "cmd.run", GATHER, "python_shell=True")
                with connection() as libvirtd:
                    disk = answers[3].data["clones"]["e2e-sings"]["disks"][0]["path"]
                    domain = libvirtd.lookupByName("e2e-sings")
                    domain.shutdown()
                    wait_until(lambda: not domain.isActive(), "the guest to go off", 60)
                with canaries.opened(Path(disk), scratch) as root:
                    pem = root / "etc/salt/pki/minion/minion.pem"
                    birds.add("minion.pem", pem.read_text())
                    looked = [root / part for part in ("etc", "var", "root", "home", "tmp", "run")]
                    spared = [pem, root / "root/token.txt"]
                    assert (root / "var/look/journal").stat().st_size > 10_000
                    assert spared[1].read_text() == secrets["file"]
                    in_guest = _below(birds.heard_in_files(looked, spared), root)
            finally:
                answers.append(ask("destroy", "e2e-sings"))
            time.sleep(1)
        read = [folder, lab.folder / "console", lab.folder / "nvram"]
        read += [Path(path) for path in ("/tmp", "/run", "/var/tmp", "/dev/shm", "/var/log")]
        read += [Path(path) for path in ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt")]
        images = ("*.qcow2", "*.raw", "*.iso", "vmlinuz", "initrd", "*.fd")
        on_host = birds.heard_in_files(read, places, images)
        files = sum(path.is_file() for path in folder.rglob("*"))
        events = json.dumps(ear.events, default=repr)
        yield Told(birds, answers, events, watch, on_host, in_guest, files)


def _below(found: dict[str, list[str]], root: Path) -> dict[str, list[str]]:
    return {str(Path(name).relative_to(root)): names for name, names in found.items()}


@guest
def test_no_secret_is_in_an_answer_or_on_the_terminal(told: Told) -> None:
    assert [told.canaries.heard(one.stdout + one.stderr) for one in told.answers] == [
        [] for _ in told.answers
    ]
    assert any("[DEBUG" in answer.stderr for answer in told.answers)


@guest
def test_no_secret_is_said_on_the_masters_bus(told: Told) -> None:
    assert told.canaries.heard(told.events) == []
    assert "kvm_clone.remote" in told.events, "the jobs were heard"
    assert "PRIVATE KEY" not in told.events


@guest
def test_no_secret_is_in_a_process_list(told: Told) -> None:
    assert [seen for seen in told.watch.seen if told.canaries.heard(seen)] == []
    assert told.watch.rounds > 100


@guest
def test_no_secret_is_left_on_the_host_in_caches_logs_and_temporary_files(told: Told) -> None:
    assert told.host == {}
    assert told.files > 30, "the job cache and the logs were read"


@guest
def test_no_secret_is_left_in_the_guest_but_in_its_own_place(told: Told) -> None:
    assert told.guest == {}
