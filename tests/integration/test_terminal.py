"""A person at a terminal sees the answer; a pipe, ``--out`` and programs get the record."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from lab.lab import Lab
from lab.salt import Answer, SaltWorld
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.system import processes
from tests.integration.conftest import configure
from tests.support.hints import tries
from tests.support.terminals import at_terminal
from tests.support.world import quick

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def name(salt: SaltWorld, lab: Lab) -> Iterator[str]:
    """A clone that was made at a terminal."""
    configure(salt, base_domain=lab.tiny_base(f"{lab.name}-base"), clone_strategy="quick")
    made = f"web-{lab.name[-4:]}"
    told = typed(salt, "salt-run", "kvmclone.create", "tiny", made)
    assert told.retcode == 0, told
    assert f"{made}: cloned" in told.stdout, "the progress stays on the screen"
    last = [line for line in told.stdout.splitlines() if line.startswith(f"{made}  ")]
    assert len(last) == 1
    assert " addressed in " in last[0]
    yield made
    gone = typed(salt, "salt-run", "kvmclone.destroy", made)
    assert f"{made} was destroyed." in gone.stdout.splitlines()


def typed(salt: SaltWorld, program: str, *words: Any) -> Answer:
    return at_terminal(salt.command(program, *words), salt.environment("command"))


def piped(salt: SaltWorld, program: str, *words: Any) -> Answer:
    return salt.execute(salt.command(program, *words))


def test_a_list_is_a_table_of_80_columns_with_age_and_a_count(salt: SaltWorld, name: str) -> None:
    told = typed(salt, "salt-run", "kvmclone.list")
    assert told.retcode == 0, told
    heading, row, count, *_ = told.stdout.splitlines()
    assert heading.split()[:6] == ["NAME", "HOST", "STATE", "STAGE", "ADDRESS", "BASE"]
    assert "AGE" in heading
    assert row.split()[:4] == [name, "kvm01", "running", "addressed"]
    assert count == "1 clone"
    assert max(map(len, (heading, row))) <= 80


def test_a_pipe_and_out_get_the_record_as_salt_shows_it(salt: SaltWorld, name: str) -> None:
    for words in (
        ("salt-run", "kvmclone.show", name),
        ("salt", "kvm01", "kvm_clone.show", name),
    ):
        nested = piped(salt, *words, "--out=nested").stdout
        assert piped(salt, *words).stdout == nested
        assert "----------" in nested
        told = typed(salt, *words, "--out=json")
        assert json.loads(told.stdout[: told.stdout.rindex("}") + 1]) == (
            piped(salt, *words, "--out=json").data
        )


def test_the_event_of_an_answer_holds_the_record(salt: SaltWorld, name: str) -> None:
    """What is on the bus after a person typed a command: Salt's own form for an outputter."""
    told = piped(salt, "salt-run", "kvmclone.list", "--out=json").data
    assert set(told) == {"clones", "retcode"}
    assert set(told["clones"][name]) >= {"timings", "addresses"}
    assert not {"created", "tags", "expires", "failed"} & set(told["clones"][name])


def test_power_is_one_line_that_says_what_happened_or_that_it_was_so(
    salt: SaltWorld, name: str
) -> None:
    told = typed(salt, "salt-run", "kvmclone.start", name)
    assert f"{name} was running already" in told.stdout.splitlines()[0]
    here = typed(salt, "salt", "kvm01", "kvm_clone.start", name)
    assert f"{name} is running" in here.stdout.splitlines()[0]


def test_a_host_shows_the_same_screens(salt: SaltWorld, name: str) -> None:
    told = typed(salt, "salt", "kvm01", "kvm_clone.list_clones")
    assert told.stdout.splitlines()[0] == "kvm01:"
    assert name in told.stdout
    own = [str(salt.venv / "bin/salt-call"), "-c", str(salt.minions["kvm01"].conf)]
    here = at_terminal([*own, "kvm_clone.show", name], salt.environment("command"))
    assert here.stdout.splitlines()[0] == name
    assert "  state    " in here.stdout
    assert "created" in here.stdout


def test_a_failure_is_a_name_a_message_and_a_hint_and_an_exit_code(
    salt: SaltWorld, name: str
) -> None:
    told = typed(salt, "salt-run", "kvmclone.create", "tiny", name, "cpus=3")
    assert told.retcode == 1
    assert told.stdout.splitlines()[0] == f"{name}  failed: AlreadyExists"
    assert f"salt-run kvmclone.destroy {name}" in told.stdout
    assert "addresses" not in told.stdout


def test_a_filter_narrows_the_data_and_columns_only_the_screen(salt: SaltWorld, name: str) -> None:
    for narrow, there in (("base=nosuch", False), ("state=running", True), ("tag=x", False)):
        told = piped(salt, "salt-run", "kvmclone.list", narrow, "--out=json").data
        assert (name in told["clones"]) is there, narrow
    wide = typed(salt, "salt-run", "kvmclone.list", "columns=name,uuid")
    assert wide.stdout.split()[:2] == ["NAME", "UUID"]
    assert piped(salt, "salt-run", "kvmclone.list", "columns=name", "--out=json").data == (
        piped(salt, "salt-run", "kvmclone.list", "--out=json").data
    )
    wrong = typed(salt, "salt-run", "kvmclone.list", "columns=nmae")
    assert wrong.retcode == 1
    assert "Did you mean 'name'?" in wrong.stdout


def test_the_definition_is_shown_where_it_is_asked_for(
    salt: SaltWorld, lab: Lab, name: str
) -> None:
    for asked in (
        ("salt-run", "kvmclone.plan", "tiny", "other", "cpus=2"),
        ("salt", "kvm01", "kvm_clone.plan", "other", f"base_domain={lab.name}-base"),
    ):
        told = typed(salt, *asked)
        assert "add xml=True" in told.stdout
        assert "<domain" not in told.stdout
        assert "<domain" in typed(salt, *asked, "xml=True").stdout


@tries("screen.Screen.command")
def test_what_is_left_over_is_removed_by_the_command_below_it(
    salt: SaltWorld, lab: Lab, name: str
) -> None:
    left = f"left-{lab.name[-4:]}"
    with subprocess.Popen(["true"]) as child:
        child.wait()
    dead = replace(processes.this_process(), pid=child.pid, started=1)
    LocalHost("qemu:///system").clone(quick(left, f"{lab.name}-base"), dead, "addressed")
    told = typed(salt, "salt-run", "kvmclone.gc")
    assert told.stdout.splitlines()[:2] == [f"{left} on kvm01", "  the machine"]
    (line,) = (line for line in told.stdout.splitlines() if "Remove it: " in line)
    gone = typed(salt, *shlex.split(line.partition("Remove it: ")[2]))
    assert "removed: the machine" in gone.stdout
    assert typed(salt, "salt-run", "kvmclone.gc").stdout.startswith("Nothing is left over.")
