"""From a warmed base to a minion that answers, and that is itself again after a reboot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.common import LIBVIRT_URI, wait_until
from lab.salt import SaltWorld
from saltext.kvmclone.hosts.local import LocalHost
from tests.e2e.conftest import BASE, Machines

pytestmark = pytest.mark.guest

NAME = "e2e-fork"


@pytest.fixture
def warmed() -> Iterator[LocalHost]:
    """A host on which the base is warmed."""
    host = LocalHost(LIBVIRT_URI)
    host.warm(BASE)
    yield host
    if host.exists(NAME):
        host.destroy(NAME, force=True)
    host.unwarm(BASE)


def test_a_fork_becomes_a_minion_that_is_known_by_its_word_and_stays_one(
    salt_world: SaltWorld, machines: Machines, warmed: LocalHost
) -> None:
    before = machines.left()
    made = salt_world.run("kvmclone.create", "fork", NAME)
    assert made.retcode == 0, made.stdout
    clone = made.data["clones"][NAME]
    print("stages of a fork:", clone["timings"])
    assert (clone["stage"], clone["strategy"], clone["warnings"]) == ("ready", "instant", [])
    assert clone["minion"]["verified_by"] == "word"

    def uuid() -> str:
        return str(salt_world.salt(NAME, "cmd.run", UUID).data[NAME])

    UUID = "cat /sys/class/dmi/id/product_uuid; ls /run | grep -c kvm-clone-word"
    assert uuid().split() == [clone["uuid"], "0"], "its word is gone once it was answered"
    assert salt_world.salt(NAME, "grains.get", "uuid").data == {NAME: clone["uuid"]}
    warmed.power(NAME, "off")
    assert warmed.power(NAME, "start").state == "running"

    def answers() -> bool:
        told = salt_world.salt(NAME, "test.ping").data  # a sentence for one that does not
        return isinstance(told, dict) and told.get(NAME) is True

    wait_until(answers, "its minion", 300)
    assert uuid().split() == [clone["uuid"], "0"]
    gone = salt_world.run("kvmclone.destroy", NAME)
    assert gone.retcode == 0, gone.stdout
    assert machines.left() == before
