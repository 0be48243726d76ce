"""
A base that is somebody already: a minion enrolled elsewhere, and every other trace that a
machine leaves in itself. Its sshd is off, so its agent is the only way in.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import salt.config

from lab.common import LIBVIRT_URI, write
from lab.lab import Lab, connection
from lab.salt import SaltWorld
from saltext.kvmclone.config import cloud_files
from saltext.kvmclone.errors import ConfigError, KeyConflict
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.lifecycle.bootstrap_alone import alone
from saltext.kvmclone.master import enrolment, keys
from tests.support.debian_guests import Guest, boot, mask, until
from tests.support.hints import commands, tries

pytestmark = [pytest.mark.guest, pytest.mark.long]

OLD = "it-is-the-base"

#: What the base has of its own: each file is to be gone, or to hold something else.
TRACES = {
    "etc/salt/minion": "master: 192.0.2.7\nid: foreign\nlog_level: warning\n",
    "etc/salt/minion_id": "foreign\n",
    "etc/salt/pki/minion/minion_master.pub": OLD,
    "var/cache/salt/minion/grains.cache.p": OLD,
    "etc/machine-info": "PRETTY_HOSTNAME=Base\nCHASSIS=vm\n",
    "etc/udev/rules.d/70-persistent-net.rules": "# " + OLD,
    "etc/iscsi/initiatorname.iscsi": f"InitiatorName=iqn.1993-08.org.debian:01:{OLD}\n",
    "etc/nvme/hostid": OLD,
    "etc/nvme/hostnqn": OLD,
    "var/lib/NetworkManager/secret_key": OLD,
    "var/lib/dhcp/dhclient.leases": OLD,
    "var/lib/dhcpcd/duid": OLD,
    "var/lib/systemd/random-seed": OLD * 40,
    "var/lib/cloud/instances/i-base/obj.pkl": OLD,
    "var/lib/cloud/data/instance-id": OLD,
    "etc/cloud/cloud.cfg.d/05_logging.cfg": "{}\n",
}
REMAIN = {"etc/machine-info", "etc/iscsi/initiatorname.iscsi", "etc/salt/minion"}
REMAIN |= {"etc/nvme/hostid", "etc/nvme/hostnqn", "etc/cloud/cloud.cfg.d/05_logging.cfg"}

#: What a guest says of itself; no two machines may agree in any of these.
IDENTITY = {
    "machine id": "cat /etc/machine-id",
    "machine id of D-Bus": "cat /var/lib/dbus/machine-id",
    "host name": "hostname",
    "name in /etc/hosts": "grep 127.0.1.1 /etc/hosts",
    "host key": "cat /etc/ssh/ssh_host_ed25519_key.pub",
    "private host key": "sha256sum </etc/ssh/ssh_host_rsa_key",
    "minion key": "sha256sum </etc/salt/pki/minion/minion.pem",
    "minion id": "cat /etc/salt/minion_id",
    "iSCSI name": "cat /etc/iscsi/initiatorname.iscsi",
    "NVMe id": "cat /etc/nvme/hostid",
    "address": "ip -4 -o addr show eth0 | tr -s ' ' | cut -d' ' -f4",
    "journal": "ls /run/log/journal | while read d; do grep -x $d /etc/machine-id; done",
}


#: What else is looked at in a clone.
LOOKS = {
    "scripts": "ls -A /tmp | grep saltcloud",
    "traces": f"cd /; ls -d {' '.join(TRACES)} 2>/dev/null",
    "kind": "cat /etc/machine-info",
    "master": "cat /etc/salt/pki/minion/minion_master.pub",
    "sshd": "systemctl is-enabled ssh",
    "minion": "journalctl -u salt-minion --no-pager",
    "configuration": "cat /etc/salt/minion",
}


def looked(world: SaltWorld, name: str) -> dict[str, str]:
    """What all the commands say in a guest; a job of its minion takes seconds, so it is one."""
    commands = {**IDENTITY, **LOOKS}
    # Not every file ends with a line.
    titled = [f"echo; echo '=== {what}'; ({command})" for what, command in commands.items()]
    script = "\n".join(titled)
    told = world.salt(name, "cmd.run", script, "python_shell=True", "ignore_retcode=True")
    parts = re.split(r"^=== (.*)$", told.data[name], flags=re.MULTILINE)[1:]
    return {what: text.strip() for what, text in zip(parts[::2], parts[1::2], strict=True)}


def inhabited(root: Path) -> None:
    mask(root, "ssh.service", "ssh.socket", "sshd.service")
    for path, text in TRACES.items():
        write(root / path, text)
    pair = keys.generate(2048)
    write(root / "etc/salt/pki/minion/minion.pem", pair.private, 0o400)
    write(root / "etc/salt/pki/minion/minion.pub", pair.public)
    wants = root / "etc/systemd/system/multi-user.target.wants/salt-minion.service"
    wants.symlink_to("/etc/systemd/system/salt-minion.service")
    (root / "var/lib/cloud/instance").symlink_to("/var/lib/cloud/instances/i-base")


@pytest.fixture(scope="module")
def base(lab: Lab) -> str:
    return lab.debian_base(f"{lab.name}-foreign", change=inhabited)


@pytest.fixture(scope="module")
def salt_world(lab: Lab, base: str) -> Iterator[SaltWorld]:
    with SaltWorld(lab.folder / "salt", address=lab.gateway, owner=lab.name) as world:
        provider = {"driver": "libvirt", "url": LIBVIRT_URI}
        world.write_cloud("providers", "kvm.conf", {"local-kvm": provider})
        minion = {"master": world.address, "master_port": world.ret_port}
        profile = {
            "provider": "local-kvm",
            "base_domain": base,
            "clone_strategy": "quick",
            "bootstrap": "agent",
            "minion": minion,
        }
        world.write_cloud("profiles", "ours.conf", {"ours": profile})
        yield world


def test_a_clone_of_a_foreign_minion_becomes_its_own_with_sshd_off(
    lab: Lab, salt_world: SaltWorld
) -> None:
    names = [f"{lab.name}-foreign-{number}" for number in (1, 2)]
    made = salt_world.run("kvmclone.create", "ours", *names)
    try:
        assert made.retcode == 0, made.stdout
        clones = [made.data["clones"][name] for name in names]
        assert [clone["minion"]["verified_by"] for clone in clones] == ["uuid", "uuid"]
        assert [clone["warnings"] for clone in clones] == [[], []]

        one, two = (looked(salt_world, name) for name in names)
        for what in IDENTITY:
            assert one[what] and two[what] and one[what] != two[what], what
            for said in (one[what], two[what]):
                assert OLD not in said
                assert "debian-base" not in said
                assert "5f3c7a1e9b2d4c6080a1b2c3d4e5f607" not in said
        own = {"etc/salt/minion_id", "etc/salt/pki/minion/minion_master.pub"}
        for clone, said in zip(clones, (one, two), strict=True):
            assert said["host name"] == clone["name"]
            assert said["scripts"] == ""
            assert said["address"].partition("/")[0] == clone["address"]
            assert set(said["traces"].split()) - own == REMAIN
            assert said["kind"] == "CHASSIS=vm"
            assert OLD not in said["master"]
            assert said["sshd"] == "masked"
            assert "Started salt-minion" in said["minion"]
            assert "log_level: warning" in said["configuration"], "what the base configures stays"
        keys_held = {path.name for path in (salt_world.folder / "pki/master").glob("minions*/*")}
        assert set(names) <= keys_held
        assert "foreign" not in keys_held
    finally:
        salt_world.run("kvmclone.destroy", *names)


@pytest.fixture
def guest(lab: Lab, base: str) -> Iterator[Guest]:
    host = LocalHost(LIBVIRT_URI, label="kvm01")
    made = boot(lab, host, base, f"{lab.name}-foreign-3")
    yield made
    host.destroy(made.name, force=True)


@tries("bootstrap_alone.alone")
def test_a_host_alone_bootstraps_its_clone_and_leaves_the_key_to_be_accepted(
    lab: Lab, guest: Guest, salt_world: SaltWorld, tmp_path: Path
) -> None:
    settings = {"id": "kvm01", "root_dir": str(tmp_path), "conf_file": str(tmp_path / "minion")}
    write(tmp_path / "minion", json.dumps(settings))
    opts = salt.config.minion_config(str(tmp_path / "minion"))
    clone = guest.host.show(guest.name)
    with pytest.raises(ConfigError, match="No master is configured"):
        enrolment.on_this_host(opts, cloud_files.read(opts), clone, keys={"bootstrap": "agent"})
    minion = {"master": salt_world.address, "master_port": salt_world.ret_port}
    pillar = {
        "kvm_clone": {
            "providers": {"here": {"driver": "libvirt", "url": LIBVIRT_URI}},
            "profiles": {"ours": {"provider": "here", "base_domain": "x", "minion": minion}},
        }
    }
    request, wanted = enrolment.on_this_host(
        opts, cloud_files.read(opts, pillar), clone, profile="ours", keys={"bootstrap": "agent"}
    )
    assert request.base_domain == clone.base
    with Host(LIBVIRT_URI) as host:
        handle = host.domain(guest.name)
        record = handle.record()
        assert record is not None
        done = alone(host, handle, record, request, wanted)
        handle.save_record(done.at("enrolled"))
    assert done.minion.fingerprint == wanted.fingerprint
    warning = done.warnings[-1]
    look, accept = [shlex.split(one) for one in commands(warning)]
    assert wanted.fingerprint in warning

    pending = salt_world.folder / "pki/master/minions_pre" / guest.name
    until(pending.exists, 60)
    shown = salt_world.execute(salt_world.command(*look))
    assert wanted.fingerprint in shown.stdout
    accepted = salt_world.execute(salt_world.command(accept[0], "-y", *accept[1:]))
    assert accepted.retcode == 0, accepted
    until(lambda: salt_world.salt(guest.name, "test.ping", timeout=8).data, 120)
    with connection() as libvirtd:
        uuid = libvirtd.lookupByName(guest.name).UUIDString()
    assert salt_world.salt(guest.name, "grains.get", "uuid").data == {guest.name: uuid}

    with Host(LIBVIRT_URI) as host, pytest.raises(KeyConflict):
        alone(host, host.domain(guest.name), replace(done, stage="ready"), request, wanted)
