"""A command in a hint runs on the machine that it is about, from wherever the hint is read."""

from __future__ import annotations

import shlex

import pytest

from saltext.kvmclone.model.hints import AT_HOST, AT_MASTER, Commands
from saltext.kvmclone.model.request import DEFAULT_URL

HERE, FAR = "qemu:///system", "qemu+ssh://ann@kvm02:2222/system?keyfile=/root/key&no_tty=1"
NAME = "it's web1"


@pytest.mark.parametrize("ours", [Commands(HERE), Commands(HERE, AT_HOST, "kvm01")])
def test_on_the_machine_of_the_daemon_they_stand_as_they_are(ours: Commands) -> None:
    assert shlex.split(ours.virsh("start", NAME)) == ["virsh", "-c", HERE, "start", NAME]
    assert shlex.split(ours.there("rm", NAME)) == ["rm", NAME]
    assert ours.beside("kill", "7") == "kill 7"
    assert ours.terminal("edit", "web1") == f"virsh -c {HERE} edit web1"


def test_a_host_behind_a_minion_gets_them_as_a_job() -> None:
    ours = Commands(HERE, minion="kvm01")
    for command in (ours.virsh("start", NAME), ours.there("rm", NAME), ours.beside("rm", NAME)):
        *job, inner = shlex.split(command)
        assert job == ["salt", "kvm01", "cmd.run"]
        assert shlex.split(inner)[-1] == NAME
    *job, inner = shlex.split(ours.redefine(NAME))
    assert job == ["salt", "kvm01", "cmd.run"]
    assert inner.count("virsh -c") == 2, "both ends of the pipe are there"
    *way, inner = shlex.split(ours.terminal("edit", NAME))
    assert way == ["ssh", "-t", "kvm01"]
    assert shlex.split(inner) == ["virsh", "-c", HERE, "edit", NAME]


def test_over_ssh_virsh_runs_here_and_what_is_about_files_there() -> None:
    ours = Commands(FAR)
    assert shlex.split(ours.virsh("start", NAME))[:3] == ["virsh", "-c", FAR]
    *way, inner = shlex.split(ours.there("rm", NAME))
    assert way == ["ssh", "-i", "/root/key", "-p", "2222", "ann@kvm02"]
    assert shlex.split(inner) == ["rm", NAME]
    assert ours.beside("kill", "7") == "kill 7"
    *job, inner = shlex.split(Commands(FAR, minion="kvm01").there("rm", NAME))
    assert job == ["salt", "kvm01", "cmd.run"]
    assert shlex.split(inner)[0] == "ssh"


@pytest.mark.parametrize(
    ("state", "verbs"),
    [
        ("running", ["shutdown"]),
        ("paused", ["resume", "shutdown"]),
        ("pmsuspended", ["dompmwakeup", "shutdown"]),
        ("crashed", ["destroy"]),
    ],
)
def test_a_machine_is_shut_off_as_its_state_allows(state: str, verbs: list[str]) -> None:
    told = Commands(HERE).shut_off("web1", state)
    assert told == " && ".join(f"virsh -c {HERE} {verb} web1" for verb in verbs)
    assert (state in ("running", "paused", "pmsuspended")) is ("shutdown" in told)


@pytest.mark.parametrize(
    ("commands", "profile", "command"),
    [
        (Commands(DEFAULT_URL, AT_MASTER, "kvm01"), "web", "salt-run kvmclone.resume web1"),
        (Commands(DEFAULT_URL, AT_MASTER, "kvm01"), "", "salt kvm01 kvm_clone.resume web1"),
        (Commands(DEFAULT_URL, AT_MASTER), "", "salt-call kvm_clone.resume web1"),
        (Commands("x:///", AT_MASTER), "", "salt-call kvm_clone.resume web1 url=x:///"),
        (Commands(DEFAULT_URL, AT_HOST), "web", "salt-call kvm_clone.resume web1"),
        (Commands(DEFAULT_URL, AT_HOST), "", "salt-call kvm_clone.resume web1"),
    ],
)
def test_a_create_without_a_profile_is_resumed_on_its_host(
    commands: Commands, profile: str, command: str
) -> None:
    assert commands.resume("web1", profile) == command
