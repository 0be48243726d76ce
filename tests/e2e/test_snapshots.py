"""A machine that was broken on purpose is a minion again after a rollback."""

from __future__ import annotations

import pytest

from lab.common import wait_until
from lab.salt import SaltWorld
from tests.e2e.conftest import Machines

pytestmark = pytest.mark.guest

NAME = "e2e-back"

#: What the guest needs to be a minion, or to let anybody in, gone; the minion last.
BREAK = "rm -rf /etc/passwd /etc/shadow /etc/salt /etc/ssh; pkill -9 -f salt-minion"


def answers(world: SaltWorld) -> bool:
    return world.salt(NAME, "test.version", timeout=15).retcode == 0


def test_a_broken_machine_answers_again_after_a_rollback(
    salt_world: SaltWorld, machines: Machines
) -> None:
    before = machines.left()
    made = salt_world.run("kvmclone.create", "agent", NAME)
    assert made.retcode == 0, made.stdout
    clone = made.data["clones"][NAME]
    try:
        taken = salt_world.run("kvmclone.snapshot", NAME, "label=whole")
        assert taken.retcode == 0, taken.stdout
        assert taken.data["clones"][NAME]["frozen"] is True
        assert answers(salt_world)

        later = f"nohup sh -c 'sleep 1; {BREAK}' >/dev/null 2>&1 &"
        salt_world.salt(NAME, "cmd.run", f"echo lost > /root/later; sync; {later}")
        wait_until(lambda: not answers(salt_world), "the minion is dead", 120, 2)

        back = salt_world.run("kvmclone.rollback", NAME, "whole")
        assert back.retcode == 0, back.stdout
        assert back.data["clones"][NAME]["stage"] == "ready"
        assert back.data["clones"][NAME]["minion"] == clone["minion"]
        wait_until(lambda: answers(salt_world), "test.version answers", 300, 10)
        assert salt_world.salt(NAME, "file.file_exists", "/root/later").data == {NAME: False}
        assert salt_world.salt(NAME, "grains.get", "uuid").data == {NAME: clone["uuid"]}

        listed = salt_world.run("kvmclone.snapshots", NAME).data["snapshots"][NAME]
        assert [(one["label"], one["current"]) for one in listed] == [("whole", True)]
        refused = salt_world.run("kvmclone.delete_snapshot", NAME, "whole")
        assert refused.retcode == 1
        assert refused.data["clones"][NAME]["error"]["type"] == "SnapshotRefused"
    finally:
        gone = salt_world.run("kvmclone.destroy", NAME)
    assert gone.retcode == 0, gone.stdout
    assert machines.left() == before
