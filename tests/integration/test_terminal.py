"""A person at a terminal sees the answer; a pipe, ``--out`` and programs get the record."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab.lab import Lab
from lab.salt import Answer, SaltWorld
from tests.integration.conftest import configure
from tests.support import installs
from tests.support.hints import tries
from tests.support.terminals import at_terminal

pytestmark = pytest.mark.guest


@contextmanager
def master_of(lab: Lab, line: str) -> Iterator[SaltWorld]:
    venv = installs.cached(line)
    folder = lab.folder / f"salt-terminal-{line}"
    with SaltWorld(folder, address=lab.gateway, owner=lab.name, venv=venv) as world:
        configure(world, clone_strategy="quick")
        world.add_minion("kvm01")
        yield world


@pytest.fixture(scope="module")
def master(lab: Lab) -> Iterator[SaltWorld]:
    with master_of(lab, "3008") as world:
        yield world


@pytest.fixture(scope="module")
def name(master: SaltWorld, lab: Lab) -> Iterator[str]:
    """A clone that was made at a terminal."""
    configure(master, base_domain=lab.tiny_base(f"{lab.name}-base"), clone_strategy="quick")
    made = f"web-{lab.name[-4:]}"
    told = typed(master, "salt-run", "kvmclone.create", "tiny", made)
    assert told.retcode == 0, told
    assert f"{made}: cloned" in told.stdout, "the progress stays on the screen"
    last = [line for line in told.stdout.splitlines() if line.startswith(f"{made}  ")]
    assert len(last) == 1
    assert " addressed in " in last[0]
    yield made
    gone = typed(master, "salt-run", "kvmclone.destroy", made)
    assert f"{made} was destroyed." in gone.stdout.splitlines()


def typed(master: SaltWorld, program: str, *words: Any) -> Answer:
    return at_terminal(master.command(program, *words), master.environment("command"))


def piped(master: SaltWorld, program: str, *words: Any) -> Answer:
    return master.execute(master.command(program, *words))


@pytest.mark.parametrize("line", ["3006", "3007"])
def test_every_salt_line_takes_our_screens_by_itself(lab: Lab, line: str) -> None:
    with master_of(lab, line) as world:
        told = typed(world, "salt-run", "kvmclone.profiles")
        assert told.stdout.split()[:2] == ["PROFILE", "PROVIDER"]
        words = ("salt", "kvm01", "kvm_clone.doctor")
        assert typed(world, *words).stdout.startswith("kvm01:\n  ")
        assert piped(world, *words).stdout == piped(world, *words, "--out=nested").stdout
        missing = typed(world, "salt-run", "kvmclone.show", "nosuch")
        assert missing.retcode == 1
        assert missing.stdout.startswith("nosuch  failed: NotFound\n")


def test_a_list_is_a_table_of_80_columns_with_age_and_a_count(master: SaltWorld, name: str) -> None:
    told = typed(master, "salt-run", "kvmclone.list")
    assert told.retcode == 0, told
    heading, row, count, *_ = told.stdout.splitlines()
    assert heading.split()[:6] == ["NAME", "HOST", "STATE", "STAGE", "ADDRESS", "BASE"]
    assert "AGE" in heading
    assert row.split()[:4] == [name, "kvm01", "running", "addressed"]
    assert count == "1 clone"
    assert max(map(len, (heading, row))) <= 80


def test_a_pipe_and_out_get_the_record_as_salt_shows_it(master: SaltWorld, name: str) -> None:
    for words in (
        ("salt-run", "kvmclone.show", name),
        ("salt", "kvm01", "kvm_clone.show", name),
    ):
        nested = piped(master, *words, "--out=nested").stdout
        assert piped(master, *words).stdout == nested
        assert "----------" in nested
        told = typed(master, *words, "--out=json")
        assert json.loads(told.stdout[: told.stdout.rindex("}") + 1]) == (
            piped(master, *words, "--out=json").data
        )


def test_the_event_of_an_answer_holds_the_record(master: SaltWorld, name: str) -> None:
    """What is on the bus after a person typed a command: Salt's own form for an outputter."""
    told = piped(master, "salt-run", "kvmclone.list", "--out=json").data
    assert set(told) == {"clones", "retcode"}
    assert set(told["clones"][name]) >= {"timings", "addresses"}
    assert not {"created", "tags", "expires", "failed"} & set(told["clones"][name])


def test_power_is_one_line_that_says_what_happened_or_that_it_was_so(
    master: SaltWorld, name: str
) -> None:
    told = typed(master, "salt-run", "kvmclone.start", name)
    assert f"{name} was running already" in told.stdout.splitlines()[0]
    here = typed(master, "salt", "kvm01", "kvm_clone.start", name)
    assert f"{name} is running" in here.stdout.splitlines()[0]


def test_a_host_shows_the_same_screens(master: SaltWorld, name: str) -> None:
    told = typed(master, "salt", "kvm01", "kvm_clone.list_clones")
    assert told.stdout.splitlines()[0] == "kvm01:"
    assert name in told.stdout
    own = [str(master.venv / "bin/salt-call"), "-c", str(master.minions["kvm01"].conf)]
    here = at_terminal([*own, "kvm_clone.show", name], master.environment("command"))
    assert here.stdout.splitlines()[0] == name
    assert "  state    " in here.stdout
    assert "created" in here.stdout


def test_a_failure_is_a_name_a_message_and_a_hint_and_an_exit_code(
    master: SaltWorld, name: str
) -> None:
    told = typed(master, "salt-run", "kvmclone.create", "tiny", name, "cpus=3")
    assert told.retcode == 1
    assert told.stdout.splitlines()[0] == f"{name}  failed: AlreadyExists"
    assert f"salt-run kvmclone.destroy {name}" in told.stdout
    assert "addresses" not in told.stdout


def test_a_filter_narrows_the_data_and_columns_only_the_screen(
    master: SaltWorld, name: str
) -> None:
    for narrow, there in (("base=nosuch", False), ("state=running", True), ("tag=x", False)):
        told = piped(master, "salt-run", "kvmclone.list", narrow, "--out=json").data
        assert (name in told["clones"]) is there, narrow
    wide = typed(master, "salt-run", "kvmclone.list", "columns=name,uuid")
    assert wide.stdout.split()[:2] == ["NAME", "UUID"]
    assert piped(master, "salt-run", "kvmclone.list", "columns=name", "--out=json").data == (
        piped(master, "salt-run", "kvmclone.list", "--out=json").data
    )
    wrong = typed(master, "salt-run", "kvmclone.list", "columns=nmae")
    assert wrong.retcode == 1
    assert "Did you mean 'name'?" in wrong.stdout


@tries("screen.Screen.command")
def test_the_command_below_a_plan_shows_the_definition(master: SaltWorld, name: str) -> None:
    told = typed(master, "salt-run", "kvmclone.plan", "tiny", "other", "cpus=2")
    assert "<domain" not in told.stdout
    (line,) = (line for line in told.stdout.splitlines() if "Its definition: " in line)
    program, *words = shlex.split(line.partition(": ")[2])
    assert "<domain" in typed(master, program, *words).stdout
