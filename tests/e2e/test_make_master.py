"""``make_master`` in a map: a new master, with the keys that salt-cloud made for it."""

from __future__ import annotations

import pytest

from lab.common import PASSWORD, wait_until
from lab.lab import Lab
from lab.salt import SaltWorld
from tests.e2e.conftest import BASE, Machines, in_guest

pytestmark = [pytest.mark.guest, pytest.mark.long]

NAME = "e2e-master"

#: As Salt's bootstrap script does it with -M and -k: places everything, starts master and minion.
SCRIPT = """\
#!/bin/sh
# instead of bootstrap-salt
set -e
here=$2
mkdir -p /etc/salt/pki/minion /etc/salt/pki/master/minions
case " $* " in
    *" -M -k $here/preseed-minion-keys "*) ;;
    *) echo "called with $*"; exit 9 ;;
esac
cp "$here/master" "$here/minion" /etc/salt/
cp "$here/master.pem" "$here/master.pub" /etc/salt/pki/master/
cp "$here"/preseed-minion-keys/* /etc/salt/pki/master/minions/
cp "$here/minion.pem" "$here/minion.pub" /etc/salt/pki/minion/
chmod 400 /etc/salt/pki/minion/minion.pem /etc/salt/pki/master/master.pem
/opt/salt/bin/salt-master -d
systemctl start --no-block salt-minion.service
"""


def test_a_map_makes_a_master_that_knows_its_minion(
    salt_world: SaltWorld, machines: Machines, lab: Lab
) -> None:
    before = machines.left()
    salt_world.write_cloud("deploy", "bootstrap-salt.sh", SCRIPT)
    profile = {
        "provider": "direct-kvm",
        "base_domain": BASE,
        "clone_strategy": "quick",
        "password": PASSWORD,
        "memory": "2GiB",  # a master is a dozen processes
        "make_master": True,
        "master": {"worker_threads": 2, "timeout": 20},
    }
    salt_world.write_cloud("profiles", "master.conf", {"master": profile})
    path = salt_world.write_cloud("maps", "master.map", {"master": [NAME]})
    try:
        made = salt_world.cloud("-m", path, "-y")
        assert made.retcode == 0, made.stderr
        clone = made.data[NAME]
        assert clone["stage"] == "enrolled"
        assert "not a minion of this master" in " ".join(clone["warnings"])
        assert "PRIVATE KEY" not in made.stdout + made.stderr
        assert not (salt_world.folder / "pki/master/minions" / NAME).exists()
        # Which a minion says once its master has accepted its key and knows how it is signed.
        log = "journalctl --no-pager -u salt-minion"
        ready = lambda: "ready to receive" in in_guest(lab, NAME, log)  # noqa: E731
        wait_until(ready, "its minion", 300, interval=5)
        assert in_guest(lab, NAME, "ls /etc/salt/pki/master/minions").split() == [NAME]
        refused = salt_world.run("kvmclone.create", "master", "e2e-other")
        assert refused.retcode == 1
        assert "salt-cloud -p master" in str(refused.data)
    finally:
        salt_world.cloud("-d", "-y", NAME)
        for part in ("profiles.d/master.conf", "deploy.d/bootstrap-salt.sh"):
            (salt_world.conf / f"cloud.{part}").unlink()
    assert machines.left() == before
