"""A cloud image becomes a base, and clones of that base are machines of their own."""

from __future__ import annotations

import base64
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lab.bootable import bootable
from lab.lab import Lab
from saltext.kvmclone.config import base_keys
from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.hosts import make_base, provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hosts.outcome import Outcome
from tests.support.web import Site, served
from tests.support.world import World, quick, sha256

#: Shows what a clone has of its own, and what its base must not have left.
LOOK = """
df --output=size -BG / | tail -n 1; hostname
systemctl is-enabled salt-minion; systemctl is-active salt-minion
ls /etc/salt/pki/minion /etc/salt/minion_id /run/kvm-clone-base 2>/dev/null
echo end
"""


def said(lab: Lab, name: str, script: str) -> list[str]:
    """Run a script in a guest, over its agent, and return the lines of its output."""
    begun = lab.agent(
        name, "guest-exec", path="/bin/sh", arg=["-c", script], **{"capture-output": True}
    )
    while not (done := lab.agent(name, "guest-exec-status", pid=begun["pid"]))["exited"]:
        time.sleep(0.2)
    return base64.b64decode(done["out-data"]).decode().split()


@pytest.mark.guest
@pytest.mark.long
def test_two_clones_of_a_cloud_image_are_two_machines(world: World, host: LocalHost) -> None:
    image, lab, name = bootable(), world.lab, world.name("base")
    keys: dict[str, Any] = {
        "sha256": sha256(image.disk), "packages": str(image.packages), "pool": lab.pool,
        "networks": [{"network": lab.network}], "domain_type": lab.domain_type,
        "memory": "512MiB", "cpus": 1, "disks": {"vda": {"size": "4GiB"}}, "timeout": "10m",
    }  # fmt: skip
    with served(Site({"/debian.qcow2": image.disk})) as url:
        source = f"{url}/debian.qcow2"
        request, origin = base_keys.request(Catalogue(), source, name, keys, "kvm01")
        made = make_base.make(host, request, origin)
    assert made.warnings == ()
    assert world.state(name) == "shutoff"

    def clone(word: str) -> Outcome:
        one = LocalHost(host.url, label="kvm01")
        return provision.create(one, quick(word, name))

    with ThreadPoolExecutor(2) as pool:
        clones = list(pool.map(clone, [world.name("one"), world.name("two")]))
    found = [outcome.as_dict() for outcome in clones]
    assert [one.get("error") for one in found] == [None, None]
    assert len({one["address"] for one in found}) == 2
    for one in found:
        assert one["warnings"] == []
        assert said(lab, one["name"], LOOK) == ["4G", one["name"], "disabled", "inactive", "end"]
