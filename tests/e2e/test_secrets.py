"""Nobody sees a secret: not in an answer, an event, a log, a cache, a process list or a file."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import libvirt
import pytest
import yaml

from lab.common import run, wait_until, write
from lab.demo import DEPLOY_SCRIPT
from lab.ear import Ear
from lab.lab import Lab, connection
from lab.salt import Answer, SaltWorld
from tests.support import canaries
from tests.support.canaries import Canaries, Watch

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
def secrets() -> dict[str, str]:
    names = ("password", "sudo_password", "passphrase", "token", "file")
    return {name: canaries.password() for name in names}


@pytest.fixture(scope="module")
def private_key(lab: Lab, secrets: dict[str, str]) -> str:
    """The login key of the base that the clones are made from; it knows the passwords, too."""
    private, public = canaries.login_key(secrets["passphrase"])

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
    return private


@pytest.fixture(scope="module")
def world(lab: Lab, secrets: dict[str, str], private_key: str) -> Iterator[SaltWorld]:
    """A master and ``kvm01`` that log at debug, and the profiles with the secrets."""
    folder = lab.folder / "salt-secrets"
    debug = {"log_level_logfile": "debug"}
    store, token = folder / "vault.yaml", folder / "token.txt"
    vault = {"vault": {"driver": "yaml", "files": [str(store)]}}
    with SaltWorld(
        folder, address=lab.gateway, owner=f"{lab.name}:secrets", master={**debug, **vault}
    ) as made:
        write(store, yaml.safe_dump({**secrets, "private_key": private_key}), 0o600)
        write(token, secrets["file"], 0o600)
        common = {
            "provider": "kvm",
            "base_domain": "e2e-canary",
            "clone_strategy": "quick",
            "bootstrap": "ssh",
            "ip_source": "reserve",  # they boot at once, without an agent
            "ssh_username": "lab",
            "minion": {"master": made.address, "master_port": made.ret_port},
            "script_env": {"TOKEN": "sdb://vault/token"},
            "file_map": {str(token): "/root/token.txt"},
        }
        fails = {"script": "telltale", "password": secrets["password"]}
        works = {
            "script": "place-and-start",
            "private_key": "sdb://vault/private_key",
            "private_key_passphrase": "sdb://vault/passphrase",
            "sudo_password": "sdb://vault/sudo_password",
        }
        sudo = {"sudo_password": secrets["sudo_password"]}
        provider = {"driver": "libvirt", "url": "qemu:///system"}
        made.write_cloud(
            "providers", "kvm.conf", {"kvm": {**provider, "host": "kvm01"}, "driven": provider}
        )
        made.write_cloud(
            "profiles",
            "canary.conf",
            {
                "fails": {**common, **fails, **sudo},
                "works": {**common, **works},
                "drives": {**common, **works, "provider": "driven"},
            },
        )
        made.write_cloud("deploy", "telltale.sh", TELLTALE)
        made.write_cloud("deploy", "place-and-start.sh", DEPLOY_SCRIPT)
        made.add_minion("kvm01", debug)
        yield made


@pytest.fixture(scope="module")
def told(
    lab: Lab,
    world: SaltWorld,
    secrets: dict[str, str],
    private_key: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Told:
    """A create that fails in the guest and one that ends well, and all that came of them."""
    birds = Canaries(private_key=canaries.hidden_half(private_key), **secrets)

    def ask(function: str, *words: str) -> Answer:
        words = ("--out=json", "-l", "debug", f"kvmclone.{function}", *words)
        return world.execute(world.command("salt-run", *words))

    with Watch() as watch, Ear(world) as ear:
        answers = [ask("profiles"), ask("plan", "fails", "e2e-mute")]
        try:
            # By the minion on the host, and by the master itself over a url.
            creates = (("fails", "e2e-mute"), ("works", "e2e-sings"), ("drives", "e2e-driven"))
            with ThreadPoolExecutor(max_workers=2) as pool:
                answers += pool.map(lambda words: ask("create", *words), creates)
            made = [clone for one in answers[2:] for clone in one.data["clones"].values()]
            errors = [clone.get("error") for clone in made]
            assert [answer.retcode for answer in answers] == [0, 0, 1, 0, 0], errors
            error = answers[2].data["clones"]["e2e-mute"]["error"]
            assert error["type"] == "DeployFailed"
            assert "the token is" in error["message"], "the script's own words are told"
            in_guest = {}
            for answer in answers[3:]:
                (clone,) = answer.data["clones"].values()
                scratch = tmp_path_factory.mktemp("guest")
                in_guest |= look_into_guest(world, clone, birds, scratch)
        finally:
            answers += [ask("show", "e2e-sings"), ask("destroy", "e2e-sings", "e2e-driven")]
        time.sleep(1)
    read = [world.folder, lab.folder / "console", lab.folder / "nvram"]
    read += [Path(path) for path in ("/tmp", "/run", "/var/tmp", "/dev/shm", "/var/log")]
    read += [Path(path) for path in ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt")]
    # The secrets' own places: whoever wrote them there knows them.
    own = [world.folder / name for name in ("vault.yaml", "token.txt")]
    own.append(world.conf / "cloud.profiles.d/canary.conf")
    images = ("*.qcow2", "*.raw", "*.iso", "vmlinuz", "initrd", "*.fd")
    on_host = birds.heard_in_files(read, own, images)
    files = sum(path.is_file() for path in world.folder.rglob("*"))
    events = json.dumps(ear.events, default=repr)
    return Told(birds, answers, events, watch, on_host, in_guest, files)


def look_into_guest(
    world: SaltWorld, clone: dict[str, Any], birds: Canaries, scratch: Path
) -> dict[str, list[str]]:
    """What is found in the file system of the clone; its own key is a secret from now on."""
    name, disk = clone["name"], Path(clone["disks"][0]["path"])
    world.salt(name, "cmd.run", GATHER, "python_shell=True")
    with connection() as libvirtd:
        domain = libvirtd.lookupByName(name)
        domain.shutdown()
        wait_until(lambda: not domain.isActive(), "the guest to go off", 60)
    with canaries.opened(disk, scratch) as root:
        pem, token = root / "etc/salt/pki/minion/minion.pem", root / "root/token.txt"
        # Its first lines hold the modulus, which is public.
        birds.add(f"minion.pem of {name}", "\n".join(pem.read_text().splitlines()[13:]))
        assert birds.heard(token.read_bytes()) == ["file"]
        assert (root / "var/look/journal").stat().st_size > 10_000
        looked = [root / part for part in ("etc", "var", "root", "home", "tmp", "run")]
        found = birds.heard_in_files(looked, [pem, token])
        return {f"{name}:{Path(path).relative_to(root)}": heard for path, heard in found.items()}


@guest
@pytest.mark.guest
def test_no_secret_is_in_an_answer_or_on_the_terminal(told: Told) -> None:
    heard = {
        number: told.canaries.heard(answer.stdout) + told.canaries.heard(answer.stderr)
        for number, answer in enumerate(told.answers)
    }
    assert {number: names for number, names in heard.items() if names} == {}
    assert any("[DEBUG" in answer.stderr for answer in told.answers)


@guest
@pytest.mark.guest
def test_no_secret_is_said_on_the_masters_bus(told: Told) -> None:
    assert told.canaries.heard(told.events) == []
    assert "kvm_clone.remote" in told.events, "the jobs were heard"
    assert "PRIVATE KEY" not in told.events


@guest
@pytest.mark.guest
def test_no_secret_is_in_a_process_list(told: Told) -> None:
    assert [seen for seen in told.watch.seen if told.canaries.heard(seen)] == []
    assert told.watch.rounds > 100


@guest
@pytest.mark.guest
def test_no_secret_is_left_on_the_host_in_caches_logs_and_temporary_files(told: Told) -> None:
    assert told.host == {}
    assert told.files > 30, "the job cache and the logs were read"


@guest
@pytest.mark.guest
def test_no_secret_is_left_in_the_guest_but_in_its_own_place(told: Told) -> None:
    assert told.guest == {}


# --- what the base's definition holds --------------------------------------------------------

#: Where other tools, people, the guest's firmware and QEMU are told something: by its place, what
#: stands before it in a plain definition and what takes that one's place.
PLACES = {
    "title": ("<memory", "<title>SECRET</title><memory"),
    "description": ("<memory", "<description>SECRET</description><memory"),
    "element": (
        "<memory",
        "<metadata><x:data xmlns:x='urn:tool'><x:users><x:user name='SECRET'>SECRET</x:user>"
        "</x:users></x:data></metadata><memory",
    ),
    "oem": (
        "<os>",
        "<sysinfo type='smbios'><oemStrings><entry>e2e-shown SECRET</entry></oemStrings></sysinfo>"
        "<sysinfo type='fwcfg'><entry name='opt/org.test/x'>SECRET</entry></sysinfo>"
        "<os><smbios mode='sysinfo'/>",
    ),
    "kernel": ("<cmdline>", "<cmdline>token=SECRET e2e-shown "),
    "argument": (
        "</domain>",
        "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>"
        "<q:arg value='-object'/><q:arg value='secret,id=s,data=SECRET'/>"
        "<q:env name='TOKEN' value='SECRET'/></q:commandline></domain>",
    ),
}


@guest
@pytest.mark.guest
def test_no_secret_of_the_bases_definition_is_shown_by_any_door(lab: Lab, world: SaltWorld) -> None:
    base, name = "e2e-shown", "e2e-never-made"
    lab.tiny_base(base)
    birds = Canaries()
    with connection() as libvirtd:
        xml = libvirtd.lookupByName(base).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        for place, (old, new) in PLACES.items():
            secret = token_hex(12)
            birds.add(place, secret)
            assert old in xml, place
            xml = xml.replace(old, new.replace("SECRET", secret), 1)
        libvirtd.defineXML(xml)
    wish = [f"base_domain={base}", "clone_strategy=quick"]
    with Ear(world) as ear:
        answers = [
            world.execute(
                world.command("salt-run", "--out=json", "-l", "debug", f"kvmclone.{what}", *words)
            )
            for what, words in (
                ("plan", ("works", name, *wish)),
                ("plan", ("drives", name, *wish)),
                ("create", ("works", name, *wish)),
            )
        ]
        answers += [
            world.salt("kvm01", "kvm_clone.plan", name, *wish),
            world.salt("kvm01", "state.single", "kvm_clone.present", name, *wish, "test=True"),
            world.salt("kvm01", "kvm_clone.create", name, *wish),
            world.call("kvm01", "kvm_clone.plan", name, *wish),
            world.cloud("--list-images", "kvm"),
        ]
        time.sleep(1)
    for plan in (answers[0].data["plans"][name], answers[3].data["kvm01"]):
        assert "<qemu:arg" in plan["xml"].replace("<q:", "<qemu:"), "there was a plan to read"
        assert "hands" in " ".join(plan["conflicts"])
    heard = {
        number: birds.heard(answer.stdout) + birds.heard(answer.stderr)
        for number, answer in enumerate(answers)
    }
    assert {number: names for number, names in heard.items() if names} == {}
    assert birds.heard(json.dumps(ear.events, default=repr)) == []
    assert birds.heard_in_files([world.folder]) == {}, "the job cache and the logs"
