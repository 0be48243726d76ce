"""A signal sets a mark; who makes something looks for it, and cleans up undisturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from saltext.kvmclone import entrypoints, interrupts
from saltext.kvmclone.errors import HostError, Interrupted
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.master import at_once
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.hints import AT_HOST
from saltext.kvmclone.model.request import Secrets
from saltext.kvmclone.system import copying
from tests.unit.hosts.test_provision import REQUEST, FaultyHost, FaultyMaster

LIBRARY = str(Path(interrupts.__file__).parents[2])


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Signals as a shell leaves them: whoever runs the tests may ignore some, as nohup does."""
    usual = {signal.SIGINT: signal.default_int_handler}
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    for number in interrupts.SIGNALS:
        signal.signal(number, usual.get(number, signal.SIG_DFL))
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def press(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def test_what_makes_nothing_is_ended_where_it_is() -> None:
    with pytest.raises(interrupts.Interrupt), interrupts.guard("salt-run kvmclone"):
        press()
        time.sleep(10)


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_work_goes_on_until_it_looks(number: int) -> None:
    done = []
    with interrupts.guard("salt-run kvmclone"), interrupts.work("web1", "the create"):
        press(number)
        done.append("the step")
        with interrupts.shield():
            interrupts.check()
            interrupts.pause(0.01)
        with pytest.raises(interrupts.Interrupt):
            interrupts.pause(30)
        interrupts.check()  # once is enough: what follows cleans up
        assert interrupts.pressed()
    assert done
    assert not interrupts.pressed()


def test_a_pause_ends_when_the_signal_comes() -> None:
    with interrupts.guard("salt-run kvmclone"), interrupts.work("web1", "the create"):
        threading.Timer(0.2, press).start()
        started = time.monotonic()
        with pytest.raises(interrupts.Interrupt):
            interrupts.pause(30)
        assert time.monotonic() - started < 5


def test_the_handlers_of_others_are_back_afterwards() -> None:
    before = [signal.getsignal(number) for number in interrupts.SIGNALS]
    with interrupts.guard("salt-run kvmclone"):
        assert [signal.getsignal(number) for number in interrupts.SIGNALS] != before
    assert [signal.getsignal(number) for number in interrupts.SIGNALS] == before


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts.guard("salt-run kvmclone"):
            press(signal.SIGHUP)
            assert not interrupts.pressed()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_child_that_was_forked_meanwhile_keeps_nobody_waiting() -> None:
    started = time.monotonic()
    with interrupts.guard("salt-run kvmclone"):
        child = os.fork()
        if not child:
            time.sleep(5)
            os._exit(0)
    assert time.monotonic() - started < 4
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_thread_that_is_not_the_main_one_changes_nothing() -> None:
    def guarded() -> None:
        with interrupts.guard("salt-run kvmclone"):
            pass

    thread = threading.Thread(target=guarded)
    before = signal.getsignal(signal.SIGINT)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before


SUDDEN = """
import ctypes, os, signal, sys, threading, time
sys.path.insert(0, {library!r})
from saltext.kvmclone import interrupts
with interrupts.guard("salt-run kvmclone"), interrupts.work("web1", "the create", where=" url=u"):
    for after in {moments}:
        threading.Timer(after, os.kill, (os.getpid(), signal.SIGTERM)).start()
    # As libvirt does: in C, where no signal ends the wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, interrupts.SIGNALS)
    ctypes.CDLL(None).sleep(3)
print("whole")
"""


def sudden(*moments: float) -> subprocess.CompletedProcess[str]:
    program = SUDDEN.format(library=LIBRARY, moments=moments)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_the_second_signal_ends_at_once_whatever_keeps_the_process_waiting() -> None:
    started = time.monotonic()
    done = sudden(0.1, 1.0)
    assert time.monotonic() - started < 4
    assert done.returncode == 130
    assert "salt-run kvmclone.gc web1 url=u apply=True" in done.stderr
    assert done.stdout == ""


def test_two_signals_in_one_moment_are_one() -> None:
    """As ``timeout`` sends them: to its child, and to the group that the child is in."""
    done = sudden(0.1, 0.15)
    assert done.stdout == "whole\n"


# --- creates ------------------------------------------------------------------------------------


class PressedAt(FaultyHost):
    """A host during one step of which somebody presses Ctrl-C."""

    def _step(self, step: str, *rest: Any) -> Any:
        if step == self.fails:
            press()
            interrupts.pause(30)
        return super()._step(step, *rest)


def interrupted(step: str, on_failure: str = "destroy", **kept: Any) -> tuple[Any, Any, Any]:
    host, master = PressedAt(step), FaultyMaster()
    with interrupts.guard("salt-run kvmclone"):
        request = replace(REQUEST, on_failure=on_failure, profile="web")
        outcome = provision.create(host, request, master=master)
    return outcome, host, master


@pytest.mark.parametrize("step", ["clone", "boot", "wait_for_address", "bootstrap"])
def test_an_interrupted_create_is_taken_back_with_its_key_and_says_so(step: str) -> None:
    outcome, host, master = interrupted(step)
    assert isinstance(outcome.error, Interrupted)
    made = "Nothing of 'web1' is left." if step == "clone" else "'web1' was removed."
    assert outcome.error.message.endswith(made)
    assert not host.there
    assert master.accepted == {}
    assert entrypoints.clones([outcome])["retcode"] == 130


@pytest.mark.parametrize(("wish", "word"), [("keep", "kept and runs"), ("stop", "kept, shut off")])
def test_one_that_is_to_be_kept_is_kept_and_says_how_to_go_on(wish: str, word: str) -> None:
    outcome, host, _master = interrupted("wait_for_address", wish)
    assert word in outcome.error.message
    assert "salt-run kvmclone.resume web1" in outcome.error.hint
    assert host.there


def test_on_a_host_the_commands_are_the_hosts_and_name_its_daemon() -> None:
    host: Any = PressedAt("wait_for_address")
    host.url, host.ours = "qemu:///session", AT_HOST
    with interrupts.guard(interrupts.AT_HOST):
        outcome = provision.create(host, replace(REQUEST, on_failure="keep"))
    assert outcome.error is not None
    for verb in ("resume", "destroy"):
        assert f"salt-call kvm_clone.{verb} web1 url=qemu:///session" in outcome.error.hint


def test_what_breaks_after_the_signal_broke_of_it() -> None:
    """Ctrl-C ends qemu-img and libvirt's ssh as well."""

    class Breaks(PressedAt):
        def _step(self, step: str, *rest: Any) -> Any:
            if step == self.fails:
                press()
                raise HostError("qemu-img: exit code -2")
            return super()._step(step, *rest)

    with interrupts.guard("salt-run kvmclone"):
        outcome = provision.create(Breaks("clone"), REQUEST, master=FaultyMaster())
    assert isinstance(outcome.error, Interrupted)


def test_a_rollback_is_not_disturbed_by_a_first_signal() -> None:
    class Slow(FaultyHost):
        def destroy(self, *args: Any, **kwargs: Any) -> Any:
            press()
            interrupts.pause(0.05)
            return super().destroy(*args, **kwargs)

    host = Slow("boot")
    with interrupts.guard("salt-run kvmclone"):
        outcome = provision.create(host, REQUEST, master=FaultyMaster())
    assert outcome.error is not None
    assert not host.there


def test_what_was_not_begun_stays_as_it_is() -> None:
    with interrupts.guard("salt-run kvmclone"), interrupts.defer():
        press()
        with pytest.raises(Interrupted, match="left as it is"):
            at_once.require_no_interrupt("web2")
        outcome = provision.create(FaultyHost(), REQUEST, master=FaultyMaster())
    assert "Nothing was made." in outcome.error.message


def test_a_signal_that_comes_late_hides_nothing_of_what_was_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folders = {"root_dir": str(tmp_path), "cachedir": str(tmp_path)}
    fleet = Fleet({"conf_file": str(tmp_path / "master"), **folders}, print)
    monkeypatch.setattr(fleet, "enroller", FaultyMaster())
    monkeypatch.setattr(fleet, "resolve", lambda *_: (REQUEST, Secrets(), FaultyHost()))
    monkeypatch.setattr(fleet, "host", lambda *_: FaultyHost())
    monkeypatch.setattr(fleet, "_watcher", lambda _request: lambda *_: None)
    monkeypatch.setattr(fleet, "_elsewhere", lambda: press() or ())
    with interrupts.guard("salt-run kvmclone"):
        (outcome,) = fleet.create("p", ["web1"], {})
        assert interrupts.pressed()
    assert outcome.error is None
    assert outcome.stage == "ready"


def test_of_several_the_first_is_told_although_the_second_was_interrupted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def find(name: str) -> Any:
        if name == "web2":
            press()
            time.sleep(10)
        clone = Clone(name, "1", "kvm01", "base", "", "quick", "running", "ready")
        return SimpleNamespace(power=lambda *_: clone, unfinished=lambda _name: []), clone

    fleet = Fleet({"conf_file": str(tmp_path / "master"), "root_dir": str(tmp_path)}, print)
    monkeypatch.setattr(fleet, "find", find)
    monkeypatch.setattr(fleet, "_elsewhere", lambda: ())
    for work in (fleet.show, fleet.resume, lambda name: fleet.power(name, "stop")):
        with interrupts.guard("salt-run kvmclone"):
            answer = entrypoints.clones(work(name) for name in ("web1", "web2"))
        assert "interrupted" not in str(answer["clones"]["web1"])
        assert "interrupted" in answer["clones"]["web2"]["error"]["message"]
        assert answer["retcode"] == 130


def test_of_several_each_looks_for_itself() -> None:
    begun = threading.Barrier(4)

    def make(name: str) -> str:
        with interrupts.work(name, "the create"):
            begun.wait()
            try:
                interrupts.pause(30)
            except interrupts.Interrupt:
                return f"{name} taken back"
        return f"{name} whole"

    def later() -> None:
        begun.wait()
        press()

    with interrupts.guard("salt-run kvmclone"):
        threading.Thread(target=later).start()
        ended = at_once.each(make, ["a", "b", "c"], 3)
    assert ended == ["a taken back", "b taken back", "c taken back"]


def test_a_copy_is_cut_off(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x" * 2**20)
    target.write_bytes(b"")
    with interrupts.guard("salt-run kvmclone"), interrupts.work("web1", "the create"):
        press()
        with pytest.raises(interrupts.Interrupt):
            copying.copy(str(source), str(target))


def test_a_conversion_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "qemu-img"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    started = time.monotonic()
    with interrupts.guard("salt-run kvmclone"), interrupts.work("web1", "the create"):
        threading.Timer(0.3, press).start()
        with pytest.raises(interrupts.Interrupt):
            copying.convert("a", "qcow2", "b", "qcow2")
    assert time.monotonic() - started < 10


def test_a_runner_function_that_is_interrupted_answers_with_130() -> None:
    namespace: dict[str, Any] = {
        "MISSING": "",
        "__context__": {},
        "__opts__": {},
        "press": press,
        "time": time,
    }
    exec("def list_():\n    press()\n    time.sleep(10)\n", namespace)
    answer = entrypoints.runner_function(namespace["list_"])()
    assert (answer["retcode"], namespace["__context__"]["retcode"]) == (130, 130)
    assert answer["error"]["type"] == "Interrupted"
    assert "kvmclone.list was interrupted" in answer["error"]["message"]
