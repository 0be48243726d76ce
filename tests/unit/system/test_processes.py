"""A worker is dead only where that is certain, and one process at a time has its turn."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from saltext.kvmclone.errors import CreateInProgress, HostError
from saltext.kvmclone.model.record import ALIVE, DEAD, ELSEWHERE, Owner
from saltext.kvmclone.system import processes


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(processes, "LOCKS", str(tmp_path))
    return tmp_path


def test_this_process_is_alive_and_has_a_word_of_its_own() -> None:
    one, other = processes.this_process(), processes.this_process()
    assert processes.owner_state(one) == ALIVE
    assert one.pid == os.getpid()
    assert one.token != other.token


def test_a_process_that_ended_is_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = processes._started(child.pid)
        worker = replace(processes.this_process(), pid=child.pid, started=started)
        assert processes.owner_state(worker) == ALIVE
        child.kill()
        # Not yet waited for: a zombie works no more.
        deadline = time.monotonic() + 5
        while processes.owner_state(worker) == ALIVE and time.monotonic() < deadline:
            time.sleep(0.01)
        assert processes.owner_state(worker) == DEAD
    assert processes.owner_state(worker) == DEAD


def test_another_process_that_got_the_same_pid_is_not_the_worker() -> None:
    me = processes.this_process()
    assert processes.owner_state(replace(me, started=me.started - 1)) == DEAD


def test_of_another_machine_nothing_is_known_from_here() -> None:
    me = processes.this_process()
    away = replace(me, host="elsewhere", boot="other/1", machine="other")
    assert processes.owner_state(away) == ELSEWHERE
    # A machine that only has our name, or only our machine-id (a clone of it), is another.
    assert processes.owner_state(replace(away, host=me.host)) == ELSEWHERE
    assert processes.owner_state(replace(away, machine=me.machine)) == ELSEWHERE


def test_of_another_container_nothing_is_known_from_here() -> None:
    me = processes.this_process()
    assert processes.owner_state(replace(me, boot=me.boot.partition("/")[0] + "/1")) == ELSEWHERE


def test_what_ran_before_this_machine_booted_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_machine", lambda: "0123456789abcdef")
    worker = replace(processes.this_process(), boot="an-earlier-boot/4026531836")
    assert processes.owner_state(worker) == DEAD
    monkeypatch.setattr(processes, "_machine", lambda: "")
    assert processes.owner_state(replace(worker, machine="")) == ELSEWHERE


def test_one_at_a_time_has_its_turn() -> None:
    order: list[str] = []

    def second() -> None:
        with processes.name_lock("web1"):
            order.append("second")

    with processes.name_lock("web1"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_another_name_has_a_turn_of_its_own() -> None:
    with processes.name_lock("web1"), processes.name_lock("web2"):
        pass


def test_waiting_for_a_turn_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "NAME_LOCK_TIMEOUT_S", 0.2)
    with (
        processes.name_lock("web1"),
        pytest.raises(CreateInProgress, match="web1"),
        processes.name_lock("web1"),
    ):
        pytest.fail("two had their turn")


def test_a_turn_ends_with_the_process_that_had_it() -> None:
    program = (
        "import sys, time; sys.path.insert(0, '_utils')\n"
        "from saltext.kvmclone.system import processes\n"
        f"processes.LOCKS = {processes.LOCKS!r}\n"
        f"with processes.name_lock('web1'):\n"
        "    print('in', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"in\n"
        child.kill()
    with processes.name_lock("web1"):
        pass


def test_the_lock_is_no_way_to_write_elsewhere(locks: Path, tmp_path: Path) -> None:
    with processes.name_lock("web1"):
        lock = next(locks.iterdir())
    target = tmp_path / "precious"
    target.write_text("precious")
    lock.symlink_to(target)
    with pytest.raises(HostError, match="lock"), processes.name_lock("web1"):
        pytest.fail("a symbolic link was followed")
    assert target.read_text() == "precious"


def test_a_lock_is_gone_when_its_turn_is_over(locks: Path) -> None:
    with processes.name_lock("web1"):
        assert [lock.stat().st_mode & 0o777 for lock in locks.iterdir()] == [0o666]
    assert not list(locks.iterdir())


def test_a_lock_of_another_user_stays_and_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sticky folder only its owner may remove a file, and nobody may create it anew."""
    program = (
        "import os, sys; sys.path.insert(0, '_utils')\n"
        "from saltext.kvmclone.system import processes\n"
        "processes.LOCKS = sys.argv[1]\n"
        "os.setuid(65534)\n"
        "with processes.name_lock('web1'): print('in')\n"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o1777)
        monkeypatch.setattr(processes, "LOCKS", folder)
        with processes.name_lock("web1"):
            lock = next(Path(folder).iterdir())
        lock.touch()
        lock.chmod(0o666)
        for _ in range(2):
            words = [sys.executable, "-c", program, folder]
            done = subprocess.run(words, capture_output=True, check=False)
            assert (done.stdout, done.returncode) == (b"in\n", 0), done.stderr
            assert lock.exists()


def test_a_lock_that_somebody_removed_is_not_taken_for_the_one_that_is_there(locks: Path) -> None:
    with processes.name_lock("web1"):
        lock = next(locks.iterdir())
        lock.unlink()
        with processes.name_lock("web1"):
            theirs = lock.stat().st_ino
            assert theirs
        lock.touch()
        kept = lock.stat().st_ino
    assert lock.stat().st_ino == kept


def test_many_processes_never_have_the_turn_at_once(locks: Path, tmp_path: Path) -> None:
    """Each takes the lock file away, which must let no two in."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    program = (
        "import sys; sys.path.insert(0, '_utils')\n"
        "from saltext.kvmclone.system import processes\n"
        f"processes.LOCKS = {str(tmp_path)!r}\n"
        "for _ in range(200):\n"
        "    with processes.name_lock('web1'):\n"
        f"        with open({str(counter)!r}, 'r+') as file:\n"
        "            now = int(file.read()); file.seek(0); file.write(str(now + 1))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    assert [process.wait(300) for process in running] == [0] * 4
    assert counter.read_text() == "800"


def test_a_piece_of_work_that_was_given_up_is_dead_though_its_process_lives() -> None:
    worker, other = processes.this_process(), processes.this_process()
    processes.give_up(worker)
    assert processes.owner_state(worker) == DEAD
    assert "gave it up" in processes.owner_end(worker)
    assert processes.owner_state(other) == ALIVE


def test_nobody_else_can_say_that_a_worker_gave_up(locks: Path) -> None:
    """The folder is open to everybody."""
    worker = processes.this_process()
    processes.give_up(worker)
    os.chown(next(locks.iterdir()), 65534, 65534)
    assert processes.owner_state(worker) == ALIVE


def test_work_that_its_worker_released_is_dead_wherever_it_ran() -> None:
    away = replace(processes.this_process(), host="elsewhere", boot="other/1", machine="other")
    assert processes.owner_state(processes.released(away)) == DEAD
    assert processes.owner_end(processes.released(away)) == "that failed"
    # A record that names nobody says nothing.
    assert processes.owner_state(Owner()) == ELSEWHERE
