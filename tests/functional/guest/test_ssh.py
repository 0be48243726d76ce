"""The ssh channel against a real sshd and a real sudo."""

from __future__ import annotations

import os
import threading
import time

import pytest

from saltext.kvmclone import errors
from saltext.kvmclone.guest import ssh
from saltext.kvmclone.guest.channel import check

pytestmark = pytest.mark.slow


# --- commands ---------------------------------------------------------------------------


def test_a_command_gives_its_status_output_and_error(root):
    result = root.run("echo out; echo err >&2; exit 3", timeout=10)
    assert (result.status, result.output, result.error) == (3, "out\n", "err\n")


def test_many_commands_need_one_connection(root, sshd):
    for _ in range(12):
        root.run("true", timeout=10)
    root.write(f"{sshd.folder}/file", b"x")
    assert sshd.log.count("Accepted publickey") == 1


def test_input_and_output_may_both_be_large(root):
    data = os.urandom(1_500_000).hex().encode()
    result = root.run("tee /dev/stderr", timeout=60, stdin=data)
    assert result.output.encode() == data
    assert result.error.encode() == data


def test_no_input_means_the_end_of_input(root):
    assert root.run("cat; echo end", timeout=10).output == "end\n"


def test_a_command_that_hangs_ends_in_time(root):
    started = time.monotonic()
    with pytest.raises(errors.CommandFailed, match="did not end in time: sleep 60"):
        root.run("sleep 60", timeout=0.7)
    assert time.monotonic() - started < 20
    assert root.run("echo still here", timeout=10).output == "still here\n"


def test_a_daemon_that_keeps_the_stream_open_holds_nobody_up(root):
    started = time.monotonic()
    result = root.run("sleep 30 & echo started", timeout=60)
    assert result.output == "started\n"
    assert time.monotonic() - started < 20


def test_a_command_that_a_signal_ends_is_a_failure_of_the_command(root):
    assert root.run("kill -9 $$", timeout=10).status >= 128


def test_a_lost_connection_is_a_channel_error(root, sshd):
    killer = threading.Timer(0.5, lambda: [os.kill(pid, 9) for pid in sshd.sessions()])
    killer.start()
    with pytest.raises(errors.ChannelError):
        root.run("sleep 20", timeout=15)
    with pytest.raises(errors.ChannelError):
        root.run("true", timeout=5)


def test_a_failing_command_is_quoted_without_its_secrets(root):
    result = root.run("echo some words; echo the hunter2secret >&2; exit 4", timeout=10)
    with pytest.raises(errors.CommandFailed, match="exit status 4") as caught:
        check(result, "trying", secrets=["hunter2secret"])
    assert "some words" in caught.value.message
    assert "hunter2secret" not in caught.value.message


def test_a_command_that_never_stops_to_speak_ends_in_time(root):
    started = time.monotonic()
    with pytest.raises(errors.CommandFailed, match="did not end in time"):
        root.run("while :; do echo word; sleep 0.001; done", timeout=1)
    assert time.monotonic() - started < 20


def test_a_daemon_that_goes_on_speaking_holds_nobody_up_for_ever(root, monkeypatch):
    monkeypatch.setattr(ssh, "OUTPUT_DRAIN_S", 1.0)
    started = time.monotonic()
    result = root.run(
        "( i=0; while [ $i -lt 15000 ]; do i=$((i+1)); echo word; sleep 0.001; done ) & exit 3",
        timeout=60,
    )
    assert result.status == 3
    assert time.monotonic() - started < 12


# --- files ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_a_file_arrives_as_it_was_sent_and_comes_back(root, tmp_path, size):
    data = os.urandom(size)
    path = tmp_path / "it's a file"
    root.write(str(path), data, 0o640)
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o7777 == 0o640
    assert root.read(str(path)) == data
    assert [entry.name for entry in tmp_path.iterdir() if "it's a file." in entry.name] == []


def test_a_file_that_cannot_be_written_is_an_error(root, tmp_path):
    with pytest.raises(errors.CommandFailed, match="writing"):
        root.write(f"{tmp_path}/absent/file", b"x")
    with pytest.raises(errors.CommandFailed, match="reading"):
        root.read(f"{tmp_path}/absent")
