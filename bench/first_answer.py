"""From create to ``test.version``, against what the guest itself needs for it.

The guest's own time: an overlay of the same base is booted by hand, entered over ssh as soon as
it has its address, given a key and the few files that a minion needs, and its minion is
started. Nothing else can be left out. Then ``salt-run kvmclone.create`` does all of it. Both in
one run, in turns; other load on the machine spoils the difference.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import paramiko
import salt.config
import yaml

from bench.guests import created, debian_world, write_profile
from bench.table import Table
from lab.common import PASSWORD, wait_until
from lab.lab import Lab, connection
from lab.salt import SaltWorld
from saltext.kvmclone.master import keys, verify
from saltext.kvmclone.master.keys import MinionKeys
from saltext.kvmclone.model.guest_minion import GuestMinion

#: Seconds that a create may take on top of the guest's own time.
GOAL_S = 10.0


def guests_own_time(lab: Lab, world: SaltWorld, name: str) -> float:
    """Return the seconds from starting a prepared guest to the answer of its minion."""
    opts = salt.config.master_config(str(world.conf / "master"))
    lab.debian_base(name)
    pair = keys.generate(4096)
    MinionKeys(opts).accept(name, pair.public)
    with connection() as libvirtd:
        uuid = libvirtd.lookupByName(name).UUIDString()
    config = {"id": name, "master": world.address, "master_port": world.ret_port}
    script = (
        "mkdir -p /etc/salt/pki/minion; umask 077\n"
        f"cat >/etc/salt/pki/minion/minion.pem <<'E'\n{pair.private}E\n"
        f"cat >/etc/salt/pki/minion/minion.pub <<'E'\n{pair.public}E\n"
        f"cat >/etc/salt/minion <<'E'\n{yaml.safe_dump(config)}E\n"
        "systemctl start --no-block salt-minion\n"
    )
    started = time.monotonic()
    lab.start(name)
    address = lab.wait_for_lease(name)
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    wait_until(lambda: _connects(client, address), "ssh", 60)
    stdin, stdout, _stderr = client.exec_command("sh -s")
    stdin.write(script)
    stdin.channel.shutdown_write()
    stdout.channel.recv_exit_status()
    client.close()
    verify.verify(opts, name, uuid, ask=GuestMinion)
    elapsed = time.monotonic() - started
    lab.stop(name)
    return elapsed


def _connects(client: paramiko.SSHClient, address: str) -> bool:
    try:
        client.connect(
            address,
            username="root",
            password=PASSWORD,
            timeout=3,
            look_for_keys=False,
            allow_agent=False,
        )
    except (OSError, paramiko.SSHException):
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    rounds = parser.parse_args(sys.argv[1:]).rounds
    own: list[float] = []
    ours: list[float] = []
    with Lab() as lab, debian_world(lab) as world:
        write_profile(world, "deb")
        report = Table(
            f"From create to test.version, {rounds} rounds in turns, s",
            *("the guest alone", "create", "its stages"),
        )
        for number in range(rounds):
            own.append(guests_own_time(lab, world, f"bench-own{number}"))
            elapsed, timings = created(world, "deb", f"bench-clone{number}")
            ours.append(elapsed)
            stages = "  ".join(f"{stage} {seconds:.1f}" for stage, seconds in timings.items())
            report.add(own[-1], elapsed, stages)
    difference = statistics.median(ours) - statistics.median(own)
    report.goal("Seconds that create takes on top of the guest's own", difference, GOAL_S)
    return report.show()


if __name__ == "__main__":
    sys.exit(main())
