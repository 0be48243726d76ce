"""A machine that was broken on purpose is a minion again after a rollback."""

from __future__ import annotations

import pytest

from lab.common import wait_until
from lab.ear import Ear
from lab.lab import Lab
from lab.salt import SaltWorld
from tests.e2e.conftest import Machines, in_guest

pytestmark = [pytest.mark.guest, pytest.mark.long]

NAME = "e2e-back"

#: What the guest needs to be a minion, or to let anybody in, gone; the minion last.
BREAK = "rm -rf /etc/passwd /etc/shadow /etc/ssh; rm -rf /etc/salt; pkill -9 -f bin/salt-minio[n]"


def is_broken(lab: Lab) -> bool:
    """Nobody can log in, and the minion that knew its master has been killed."""
    look = "[ -e /etc/passwd ] || [ -e /etc/salt ] || echo broken"
    return in_guest(lab, NAME, look).strip() == "broken"


def test_a_broken_machine_answers_again_after_a_rollback(
    salt_world: SaltWorld, machines: Machines, lab: Lab, ear: Ear
) -> None:
    before = machines.left()
    made = salt_world.run("kvmclone.create", "agent", NAME)
    assert made.retcode == 0, made.stdout
    clone = made.data["clones"][NAME]
    try:
        taken = salt_world.run("kvmclone.snapshot", NAME, "label=whole")
        assert taken.retcode == 0, taken.stdout
        assert taken.data["clones"][NAME]["frozen"] is True
        assert not is_broken(lab)

        later = f"nohup sh -c 'sleep 1; {BREAK}' >/dev/null 2>&1 &"
        salt_world.salt(NAME, "cmd.run", f"echo lost > /root/later; sync; {later}")
        wait_until(lambda: is_broken(lab), "the minion is dead", 120, 1)

        started = ear.tags(f"salt/minion/{NAME}/start")
        back = salt_world.run("kvmclone.rollback", NAME, "whole")
        assert back.retcode == 0, back.stdout
        assert back.data["clones"][NAME]["stage"] == "ready"
        assert back.data["clones"][NAME]["minion"] == clone["minion"]
        again = lambda: ear.tags(f"salt/minion/{NAME}/start") != started  # noqa: E731
        wait_until(again, "its minion starts", 300)
        assert salt_world.salt(NAME, "test.version").retcode == 0
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
