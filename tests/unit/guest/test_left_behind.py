"""A restart of the network that is left behind in a guest, run for real by every shell here."""

from __future__ import annotations

import time

import pytest

from saltext.kvmclone.errors import CommandFailed
from saltext.kvmclone.guest import identity
from saltext.kvmclone.guest.channel import Result
from tests.unit.guest.conftest import Guest


@pytest.fixture
def left(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> Guest:
    """A guest without systemd that is reached over ssh, and restarts its network by a file."""
    guest.name = "ssh"
    guest.put("/restart", "", 0o755)
    guest.put("/run/x")
    short = identity._SOON.replace(f"sleep {identity.OLD_ADDRESS_S}", "sleep 0.5")
    assert short != identity._SOON
    monkeypatch.setattr(identity, "_SOON", short)
    monkeypatch.setattr(
        identity, "_REJOIN", f"R={guest.root} how=networking act='sh {guest.root}/restart'\n"
    )
    return guest


def state_after(guest: Guest, *states: str) -> str:
    """What the restart comes to, once it is in none of these states."""
    deadline = time.monotonic() + 10
    while (state := identity.restart_state(guest)) in states:
        assert time.monotonic() < deadline, f"still {state}"
        time.sleep(0.05)
    return state


def test_it_is_pending_until_it_is_over(left: Guest) -> None:
    assert identity.restart_state(left) == "over", "nothing was asked for"
    go = left.root / "go"
    left.put("/restart", f"until [ -e {go} ]; do sleep 0.05; done; echo done >{left.root}/done\n")
    done = identity.rejoin_network(left)
    assert (done.how, done.warnings) == ("networking", ())
    time.sleep(0.6)
    assert identity.restart_state(left) == "pending"
    assert not left.has("/done")
    go.touch()
    assert state_after(left, "pending") == "settling", "its old address may still go"
    assert left.has("/done")
    assert state_after(left, "settling") == "over"
    assert not left.has(identity.RESTARTING), "nothing of ours stays in the guest"


def test_one_that_fails_is_told_apart_until_one_succeeds(left: Guest) -> None:
    left.put("/restart", "exit 7\n")
    identity.rejoin_network(left)
    assert state_after(left, "pending") == "failed"
    left.put("/restart", "exit 0\n")
    identity.rejoin_network(left)
    assert state_after(left, "pending", "settling") == "over"


def test_of_several_commands_the_last_one_decides(
    left: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        identity, "_REJOIN", f"R={left.root} how=NetworkManager act='false; true'\n"
    )
    identity.rejoin_network(left)
    assert state_after(left, "pending", "settling") == "over"


def test_systemd_is_given_it_and_where_it_refuses_nothing_waits_for_it(left: Guest) -> None:
    left.put("/run/systemd/system/x")
    left.tool("systemd-run")
    assert identity.rejoin_network(left).how
    assert left.services[0].startswith("systemd-run --quiet --no-block ")
    assert identity.restart_state(left) == "pending"
    left.tool("systemd-run", status=1)
    with pytest.raises(CommandFailed, match="restarting the network"):
        identity.rejoin_network(left)
    assert identity.restart_state(left) == "over"


def test_a_guest_that_can_leave_nothing_behind_says_so(
    left: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_SOON", identity._SOON.replace("setsid", "setsid-that-is-not"))
    with pytest.raises(CommandFailed, match="there is no setsid"):
        identity.rejoin_network(left)
    assert identity.restart_state(left) == "over"


def test_where_run_cannot_be_written_it_happens_and_the_clone_says_what_that_means(
    left: Guest,
) -> None:
    (left.root / "run/x").unlink()
    (left.root / "run").rmdir()
    left.put("/restart", f"echo done >{left.root}/done\n")
    done = identity.rejoin_network(left)
    assert done.how == "networking"
    (warning,) = done.warnings
    assert identity.RESTARTING in warning
    deadline = time.monotonic() + 10
    while not left.has("/done"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_question_that_gets_no_answer_is_none(
    left: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the session is killed: that does not mean that the restart is over."""
    monkeypatch.setattr(left, "run", lambda *_args, **_options: Result(128, "", ""))
    with pytest.raises(CommandFailed):
        identity.restart_state(left)
