"""A master whose hints about hosts, keys and minions are typed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.salt import SaltWorld

URL = "test:///default"
#: A minion of Salt 3008 that hands in its key in the very moment in which it is accepted has it
#: pending again, so none does it every second here.
SELDOM = {"acceptance_wait_time": 15}
PROVIDER = {"driver": "libvirt", "host": "kvm01", "url": URL}


@contextmanager
def made(folder: Path) -> Iterator[SaltWorld]:
    """A master and the minion of a KVM host."""
    folder.chmod(0o755)
    with SaltWorld(folder / "salt") as made:
        made.write_cloud("providers", "kvm.conf", {"kvm": PROVIDER})
        minion = {"master": made.address, "master_port": made.ret_port}
        keys = {"provider": "kvm", "base_domain": "test", "minion": minion, "bootstrap": "agent"}
        made.write_cloud("profiles", "web.conf", {"web": keys})
        made.add_minion("kvm01", SELDOM)
        yield made
