"""What makes a guest ready to have its memory saved, run for real on a folder, and what it says."""

from __future__ import annotations

import pytest

from saltext.kvmclone import errors
from saltext.kvmclone.guest import warming, warming_script
from saltext.kvmclone.guest.channel import Result


class Answers:
    """A channel that answers with these, one after the other, the last one for ever."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0

    def run(self, command, *, timeout, stdin=None, as_root=True):
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Result(0, answer, "")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(warming, "_POLL_S", 0.0)


def test_a_guest_is_waited_for_also_while_it_is_too_busy_to_answer():
    late = errors.CommandFailed("it did not end in time", "")
    guest = Answers("kvm-clone: busy ssh.service\n", late, "kvm-clone: settled\n")
    warming.await_settled(guest)
    assert guest.asked == 3


def test_what_a_guest_is_still_doing_is_told():
    with pytest.raises(errors.CommandFailed, match=r"answer: a\.service b\.service"):
        warming.await_settled(Answers("kvm-clone: busy a.service b.service\n"), timeout_s=0.0)


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("kvm-clone: failed sync not everything\nkvm-clone: end\n", "sync: not everything"),
        ("kvm-clone: done timers\n", "kvm-clone: done timers"),
    ],
)
def test_a_guest_that_is_not_ready_is_not_saved(output, why):
    with pytest.raises(errors.CommandFailed, match=why):
        warming.make_ready(Answers(output))


def test_what_stays_of_the_base_is_told():
    said = "kvm-clone: skipped salt_other_identity the keys of a Salt master\nkvm-clone: end\n"
    assert "the keys of a Salt master" in warming.make_ready(Answers(said))[0]


#: A systemd as the scripts see it.
SYSTEMCTL = """#!/bin/sh
cd "$KVM_CLONE_ROOT" || exit
case "$*" in
*list-jobs*) cat jobs ;;
*is-system-running*) cat state ;;
*list-units*) cat timers ;;
*) echo "systemctl $*" >>.called ;;
esac
"""


@pytest.fixture
def booted(guest):
    """A guest with a systemd that has nothing to do."""
    guest.put("/run/systemd/system/x")
    for name in ("jobs", "timers"):
        guest.put(name)
    guest.put("state", "running\n")
    guest.put(".tools/systemctl", SYSTEMCTL, 0o755)
    guest.tool("sync")
    return guest


@pytest.mark.parametrize(
    ("jobs", "state", "said"),
    [
        ("", "running", "settled"),
        ("", "degraded", "settled"),
        ("", "starting", "busy systemd"),
        ("7 ssh.service start running\n8 all.target start waiting\n", "starting", "busy ssh"),
        ("7 systemd-networkd-wait-online.service start running\n", "starting", "settled"),
        ("7 x-wait-online.service start running\n9 a start running\n", "starting", "busy a"),
    ],
)
def test_a_guest_has_settled_when_only_a_network_is_waited_for(booted, jobs, state, said):
    booted.put("jobs", jobs)
    booted.put("state", f"{state}\n")
    told = booted.run(warming_script.SETTLED, timeout=30).output
    assert told.startswith(f"kvm-clone: {said}")


def test_a_guest_without_systemd_has_settled(guest):
    warming.await_settled(guest, timeout_s=0.0)


def test_timers_are_stopped_until_the_next_boot(booted):
    booted.put("timers", "apt.timer loaded active waiting Daily\nb.timer loaded active x y\n")
    assert warming.make_ready(booted) == ()
    assert [line for line in booted.services if "salt-minion" not in line][:2] == [
        "systemctl mask --runtime --quiet apt.timer b.timer",
        "systemctl stop apt.timer b.timer",
    ]


def test_nothing_of_a_minion_and_no_random_seed_stays(booted):
    booted.put("/etc/salt/pki/minion/minion.pem", "canary")
    booted.put("/etc/salt/minion_id", "base")
    booted.put("/var/lib/systemd/random-seed", "seed")
    warming.make_ready(booted)
    for path in ("/etc/salt/pki/minion/minion.pem", "/etc/salt/minion_id"):
        assert not booted.has(path)
    assert not booted.has("/var/lib/systemd/random-seed")


def test_timers_that_cannot_be_stopped_are_a_failure(booted):
    booted.put("timers", "a.timer loaded active waiting x\n")
    booted.put(".tools/systemctl", SYSTEMCTL.replace(">>.called", ">>.called; exit 1"), 0o755)
    with pytest.raises(errors.CommandFailed, match="timers: they cannot be stopped"):
        warming.make_ready(booted)
