"""A base goes from host to host: whole, the same, and nothing is left, also when it is killed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from lab.common import LabError, wait_until
from lab.fleet import Fleet, FleetHost
from saltext.kvmclone.display.base_copies import bases
from saltext.kvmclone.display.screen import Screen
from tests.support.hints import Typist, tries, typist_of

COPIES = "/run/kvm_clone/copies"
IMAGES = "/var/lib/libvirt/images"


#: Which base is a profile's, so that it is looked for on every host; and clones that may go where
#: their base is not.
PROFILES = {
    "web": {
        "provider": "kvm01", "base_domain": "base", "hosts": ["kvm01", "kvm02", "kvm03"],
    },
    "far": {
        "provider": "kvm01", "base_domain": "far", "clone_strategy": "quick", "deploy": False,
        "hosts": ["kvm02", "kvm03"], "placement": {"order": "first", "push": True},
    },
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def profiles(fleet: Fleet) -> Iterator[None]:
    written = fleet.salt.write_cloud("profiles", "push.conf", PROFILES)
    yield
    written.unlink()


@pytest.fixture(scope="module")
def again(fleet: Fleet) -> None:
    """A base ``again`` on the first host, of a size whose copy takes a while."""
    fleet.host("kvm01").tiny_base("again", fmt="raw", data="20", size="200M")


@pytest.fixture
def typist(fleet: Fleet, tmp_path: Path) -> Typist:
    """Types what a hint says, on the master."""
    return typist_of(fleet.salt, tmp_path)


def sh(host: FleetHost, script: str) -> str:
    return host.run("sh", "-c", script).strip()


def push(fleet: Fleet, *words: str, fails: bool = False) -> dict[str, Any]:
    told = fleet.salt.run("kvmclone.push", *words)
    assert (told.retcode != 0) == fails, told.stdout + told.stderr
    answer: dict[str, Any] = told.data
    return answer


def states(answer: dict[str, Any]) -> dict[str, str]:
    return {host: cell["state"] for host, cell in answer["bases"]["base"].items()}


def left(fleet: Fleet) -> dict[str, str]:
    """What no copy may leave, by host: keys, folders, staged and half-fetched files."""
    look = (
        "cat /root/.ssh/authorized_keys 2>/dev/null; ls -A /root/.ssh; "
        f"ls -A {COPIES} 2>/dev/null; find {IMAGES} -name '.kvm*' -o -name '*-????????????'; "
        "virsh dumpxml --inactive base 2>/dev/null | grep -o 'kvmclone:clone\\|kvmclone-copies'; "
        "true"
    )
    return {name: sh(host, look) for name, host in fleet.hosts.items()}


NOTHING = {"kvm01": "", "kvm02": "", "kvm03": ""}


def definition(host: FleetHost, name: str) -> ElementTree.Element:
    return ElementTree.fromstring(host.run("virsh", "dumpxml", "--inactive", name))


def disk(host: FleetHost, name: str) -> str:
    source = definition(host, name).find("./devices/disk/source")
    assert source is not None
    return source.get("file", "")


def same_disk(fleet: Fleet, name: str, *hosts: str) -> bool:
    """Return whether the guest sees the same on each host, byte by byte."""
    sums = set()
    for label in hosts:
        host, raw = fleet.host(label), f"/tmp/{name}.raw"
        host.run("qemu-img", "convert", "-O", "raw", disk(host, name), raw)
        sums.add(sh(host, f"sha256sum < {raw}; rm {raw}"))
    return len(sums) == 1


def test_a_base_is_the_same_on_every_host_and_a_machine_of_its_own(fleet: Fleet) -> None:
    source, target = fleet.host("kvm01"), fleet.host("kvm02")
    source.tiny_base("base", data="6", chain="1", uefi="1")
    sh(source, "install -m 600 /dev/null /root/.ssh/authorized_keys; "
       "printf 'ssh-ed25519 AAAA somebody' > /root/.ssh/authorized_keys")  # fmt: skip
    answer = push(fleet, "base", "kvm02", "kvm03")["bases"]["base"]
    assert [cell["state"] for cell in answer.values()] == ["same"] * 3
    assert sh(source, "cat /root/.ssh/authorized_keys") == "ssh-ed25519 AAAA somebody"
    sh(source, "rm /root/.ssh/authorized_keys")
    assert same_disk(fleet, "base", "kvm01", "kvm02", "kvm03")
    # The chain became one image, as sparse as what is in it.
    assert sh(target, f"ls -A {IMAGES}") == "base-vda.qcow2"
    told = json.loads(target.run("qemu-img", "info", "--output=json", disk(target, "base")))
    assert "backing-filename" not in told and told["actual-size"] < 8 * 2**20
    one, two = definition(source, "base"), definition(target, "base")
    for place in ("uuid", "./devices/interface/mac"):
        found = [ElementTree.tostring(root.find(place)) for root in (one, two)]
        assert found[0] != found[1]
    stores = [root.findtext("./os/nvram") or "" for root in (one, two)]
    sums = [host.run("sha256sum", path).split()[0]
            for host, path in zip((source, target), stores, strict=True)]  # fmt: skip
    assert len(set(sums)) == 1
    assert left(fleet) == NOTHING
    target.run("virsh", "start", "base")
    target.run("virsh", "destroy", "base")


def wrong(fleet: Fleet) -> dict[str, str]:
    """The hint of each kind of finding."""
    told = fleet.salt.run("kvmclone.doctor").data
    assert "unreachable" not in told
    return {one["kind"]: one["hint"] for one in told["findings"]}


@tries("base_copies._advice", "base_push._differs", "fleet_findings.of_base")
def test_what_a_host_has_is_told(fleet: Fleet, typist: Typist) -> None:
    third = fleet.host("kvm03")
    assert wrong(fleet) == {}
    third.run("qemu-io", "-f", "qcow2", "-c", "write -P 9 40M 1M", disk(third, "base"))
    answer = fleet.salt.run("kvmclone.bases").data
    assert states(answer) == {"kvm01": "same", "kvm02": "same", "kvm03": "unknown"}
    (advice,) = (line for line in bases(answer, Screen(80, 0.0, "bases")) if "Hint" in line)
    assert wrong(fleet)["base-unread"] in advice
    assert states(json.loads(typist(advice)))["kvm03"] == "other"
    assert states(json.loads(typist(wrong(fleet)["bases-differ"])))["kvm03"] == "other"
    told = push(fleet, "base", "kvm03", "source=kvm01", fails=True)["bases"]["base"]["kvm03"]
    assert (told["state"], told["error"]["type"]) == ("other", "BaseDiffers")
    assert states(json.loads(typist(told["error"]["hint"])))["kvm03"] == "other"
    assert left(fleet) == NOTHING


@tries(
    "base_push.BaseCopier.behind_minion", "base_push.BaseCopier.source",
    "base_push.BaseCopier.push",
)  # fmt: skip
def test_hosts_that_cannot_be_meant(fleet: Fleet, typist: Typist) -> None:
    for words, word in (
        (("base", "kvm09"), "base_domain"),
        (("nowhere", "kvm02"), "kvm03"),
        (("base", "kvm02", "kvm01", "source=kvm01"), "same"),
        (("base", "kvm02"), "same"),  # kvm01 and kvm03 differ
    ):
        error = push(fleet, *words, fails=True)["error"]
        assert word in typist(error["hint"]), error


@tries("placement._read_it", "placement._judge")
def test_a_base_goes_to_the_host_that_is_chosen(fleet: Fleet, typist: Typist) -> None:
    """From a host that the profile does not name, before the clone is made there."""
    fleet.host("kvm01").tiny_base("far", data="1")
    planned = fleet.salt.run("kvmclone.plan", "far", "far1").data["plans"]["far1"]
    assert planned["host"] == "kvm02"
    assert "'far' is missing on kvm02: the create copies it there first" in planned["warnings"][0]
    reason = planned["hosts"]["kvm03"]["reason"]
    assert reason.startswith("the base is copied there first; ")
    made = fleet.salt.run("kvmclone.create", "far", "far1", "reset_identity=False")
    assert made.retcode == 0, made
    assert made.data["clones"]["far1"]["host"] == "kvm02"
    assert same_disk(fleet, "far", "kvm01", "kvm02")
    assert left(fleet) == NOTHING
    # Without push the reason says how, and what several hosts have must be known to be the same.
    keys = ("placement=first", "hosts=[kvm01, kvm03]")
    shown = fleet.salt.run("kvmclone.plan", "far", "far2", *keys).data["plans"]["far2"]
    assert typist(shown["hosts"]["kvm03"]["reason"], "salt-run")
    for label in ("kvm01", "kvm03"):
        host = fleet.host(label)
        host.run("touch", disk(host, "far"))
    error = fleet.salt.run("kvmclone.plan", "far", "far2", *keys).data["plans"]["far2"]["error"]
    assert error["type"] == "NoHostFits"
    typist(error["hint"])
    assert (
        "error" not in fleet.salt.run("kvmclone.plan", "far", "far2", *keys).data["plans"]["far2"]
    )
    assert fleet.salt.run("kvmclone.destroy", "far1").retcode == 0


@tries("base_removal._having")
def test_a_base_is_replaced_and_removed_everywhere_or_nowhere(fleet: Fleet, typist: Typist) -> None:
    third = fleet.host("kvm03")
    fleet.host("kvm01").tiny_base("gone", data="1")
    assert push(fleet, "gone", "kvm02", "kvm03", "source=kvm01")["retcode"] == 0
    third.run("qemu-io", "-f", "qcow2", "-c", "write -P 9 40M 1M", disk(third, "gone"))
    over = disk(fleet.host("kvm02"), "gone")
    fleet.host("kvm02").run(
        "qemu-img", "create", "-q", "-f", "qcow2", "-b", over, "-F", "qcow2", f"{IMAGES}/on.qcow2"
    )
    told = fleet.salt.run("kvmclone.remove_base", "gone")
    assert told.data["error"]["type"] == "CloneInUse", told
    assert "kvm02: " in told.data["error"]["message"]
    answer = push(fleet, "gone", "kvm03", "source=kvm01", "replace=True")
    assert answer["bases"]["gone"]["kvm03"]["state"] == "same"
    assert same_disk(fleet, "gone", "kvm01", "kvm03")
    sh(fleet.host("kvm02"), f"rm {IMAGES}/on.qcow2; virsh pool-refresh default")
    gone = fleet.salt.run("kvmclone.remove_base", "gone")
    assert gone.retcode == 0, gone
    assert set(gone.data["bases"]["gone"]) == {"kvm01", "kvm02", "kvm03"}
    for host in fleet.hosts.values():
        assert "gone" not in sh(host, f"ls {IMAGES}; virsh list --all")
        assert sh(host, "ls /var/lib/libvirt/boot").split() == ["initrd", "vmlinuz"]
    assert "base" in typist(fleet.salt.run("kvmclone.remove_base", "gone").data["error"]["hint"])
    assert left(fleet) == NOTHING


@pytest.mark.usefixtures("again")
def test_what_cannot_be_pushed_leaves_nothing(fleet: Fleet) -> None:
    first, second = fleet.host("kvm01"), fleet.host("kvm02")
    cases = {
        "PoolFull": (second, f"mount -t tmpfs -o size=16M none {IMAGES}", f"umount {IMAGES}"),
        "CopyFailed": (first, "iptables -A INPUT -p tcp --dport 22 -j REJECT", "iptables -F INPUT"),
    }
    for error, (host, break_it, mend_it) in cases.items():
        sh(host, break_it)
        try:
            answer = push(fleet, "again", "kvm02", "source=kvm01", fails=True)
        finally:
            sh(host, mend_it)
        told = answer["bases"]["again"]["kvm02"]
        assert (told["state"], told["error"]["type"]) == ("missing", error), told
        assert told["error"]["hint"]
        assert left(fleet) == NOTHING
    assert "again" not in second.run("virsh", "list", "--all")


@tries("base_push._end", "host_findings._copies")
@pytest.mark.usefixtures("again")
def test_a_copy_that_is_killed_is_gone_on_with(fleet: Fleet, typist: Typist) -> None:
    """Runner and job die in the middle; half a copy is no base, and the next push completes it."""
    first, second = fleet.host("kvm01"), fleet.host("kvm02")
    half = f"{IMAGES}/again-vda.raw.*"
    sh(first, "tc qdisc add dev eth0 root tbf rate 24mbit burst 64kb latency 400ms")
    runner = subprocess.Popen(
        fleet.salt.command("salt-run", "kvmclone.push", "again", "kvm02", "source=kvm01"),
        env=fleet.salt.environment("command"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    fetched = f"du -k {half} 2>/dev/null | cut -f1"
    wait_until(lambda: int(sh(second, f"{fetched}; true") or 0) > 2048, "some of the disk", 60)
    runner.kill()
    runner.wait()
    rsync = "pgrep -f '^rsync .*[a]gain-vda' | head -n 1"
    sh(second, f"kill -9 $(ps -o ppid= -p $({rsync}))")
    wait_until(lambda: not sh(second, f"{rsync}; true"), "rsync to end with its parent", 10)
    sh(first, "tc qdisc del dev eth0 root")
    told = fleet.salt.run("kvmclone.bases", "again").data["bases"]["again"]
    assert told["kvm02"]["state"] == "copying"
    with pytest.raises(LabError):
        second.run("virsh", "start", "again")
    before = sh(second, f"stat -c %i {half}")
    assert push(fleet, "again", "kvm02")["bases"]["again"]["kvm02"]["state"] == "same"
    made = disk(second, "again")
    assert sh(second, f"stat -c %i {made}") == before
    assert same_disk(fleet, "again", "kvm01", "kvm02")
    assert int(sh(second, f"du -m {made} | cut -f1")) <= 21
    # What the first attempt left at the source is found once its time is over.
    sh(first, f'sed -i \'s/"until": [0-9.]*/"until": 0/\' {COPIES}/*/about.json')
    sh(second, f'sed -i \'s/"until": [0-9.]*/"until": 0/\' {COPIES}/*/about.json; true')
    rows = json.loads(typist(wrong(fleet)["copy-left"]))["leftovers"]
    assert {row["kind"] for row in rows} == {"ssh key", "copy"}
    assert all(row["removed"] and row["name"] == "again" for row in rows)
    assert left(fleet) == NOTHING


#: The only line of somebody else in the master's file of keys.
OTHER = "ssh-ed25519 AAAA somebody"


@tries("base_relay.Relays._take_out")
def test_hosts_that_do_not_reach_each_other_go_through_the_master(fleet: Fleet) -> None:
    first, second = fleet.host("kvm01"), fleet.host("kvm02")
    first.tiny_base("walled", fmt="raw", data="12", size="64M")
    sh(first, f"iptables -A INPUT -s {second.address} -p tcp --dport 22 -j DROP")
    answer = push(fleet, "walled", "kvm02", fails=True)
    error = answer["bases"]["walled"]["kvm02"]["error"]
    assert error["type"] == "CopyFailed"
    assert "cannot go through this master: on this master" in error["message"]
    assert "firewalls; or have an ssh server on this master" in error["hint"]
    assert left(fleet) == NOTHING
    fleet.serve_ssh()
    keys = Path("/root/.ssh/authorized_keys")
    keys.write_text(OTHER)
    sh(first, "tc qdisc add dev eth0 root tbf rate 16mbit burst 64kb latency 400ms")
    runner = subprocess.Popen(
        fleet.salt.command("salt-run", "kvmclone.push", "walled", "kvm02"),
        env=fleet.salt.environment("command"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    half = f"du -k {IMAGES}/walled-vda.raw.* 2>/dev/null | cut -f1; true"
    wait_until(lambda: int(sh(second, half) or 0) > 1024, "some of the disk", 60)
    line, other = keys.read_text().splitlines()
    there = f'permitopen="{first.address}:22",permitlisten="localhost:1"'
    assert line.startswith(f'restrict,port-forwarding,{there},from="')
    assert 'command="/bin/false" ssh-ed25519 ' in line and other == OTHER
    # The key leads nowhere else, and runs nothing.
    ssh = f"ssh -F {COPIES}/*/ssh_config -oBatchMode=yes"
    for words in (f"-W {fleet.host('kvm03').address}:22 kvm_clone-relay", "kvm_clone-relay id"):
        assert sh(second, f"timeout 5 {ssh} {words} </dev/null 2>/dev/null || echo refused") == (
            "refused"
        )
    runner.kill()
    runner.wait()
    sh(first, "tc qdisc del dev eth0 root")
    # The target completes it alone; the key of the runner that is gone is found.
    wait_until(lambda: not sh(second, half), "the copy to end", 60)
    rows = fleet.salt.run("kvmclone.gc", "walled").data["leftovers"]
    assert [row["kind"] for row in rows if row["path"] == str(keys)] == ["ssh key"]
    sh(first, f'sed -i \'s/"until": [0-9.]*/"until": 0/\' {COPIES}/*/about.json')
    removed = fleet.salt.run("kvmclone.gc", "walled", "apply=True").data["leftovers"]
    assert removed and all(row["removed"] for row in removed)
    assert keys.read_text() == OTHER
    assert same_disk(fleet, "walled", "kvm01", "kvm02")
    # Once more, to the end.
    assert fleet.salt.run("kvmclone.remove_base", "walled", "kvm02").retcode == 0
    assert push(fleet, "walled", "kvm02")["bases"]["walled"]["kvm02"]["state"] == "same"
    assert keys.read_text() == OTHER
    assert left(fleet) == NOTHING
