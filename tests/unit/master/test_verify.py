"""``ready`` is said only of the machine that was made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import salt.exceptions

from saltext.kvmclone.errors import MinionTimeout, Unverifiable, VerificationFailed
from saltext.kvmclone.master import verify
from saltext.kvmclone.model.guest_minion import GuestMinion

UUID = "00112233-4455-6677-8899-aabbccddeeff"
OWN_WORD = "0123456789abcdef0123456789abcdef"

#: What Salt answers for a function that is disabled, and for one that fails.
DISABLED = "Traceback (most recent call last):\n  x\nTypeError: 'str' object is not callable\n"
NO_FILE = "Traceback (most recent call last):\n  x\nFileNotFoundError: [Errno 2] x\n"


def forks(there: Any = True, read: Any = f"{OWN_WORD}\n", grain: Any = UUID) -> dict[str, Any]:
    """What the minion of a fork answers."""
    return {
        "test.version": "3008.3",
        "grains.get": grain,
        "file.file_exists": there,
        "file.read": read,
    }


@pytest.mark.parametrize(
    ("grain", "by"),
    [
        (UUID, "uuid"),
        (UUID.upper(), "uuid"),
        ("33221100-5544-7766-8899-aabbccddeeff", "uuid"),
        ("", "key"),
        (None, "key"),
        ("Not Settable", "key"),
    ],
)
def test_the_uuid_grain_says_how_far_the_answer_goes(grain: Any, by: str) -> None:
    answer = {"test.version": "3008.3", "grains.get": grain}
    assert verify._judge(answer, "web1", UUID) == verify.Verified("3008.3", by)


def test_an_answer_from_another_machine_is_a_failure() -> None:
    answer = {"test.version": "3008.3", "grains.get": "ffffffff-4455-6677-8899-aabbccddeeff"}
    with pytest.raises(VerificationFailed):
        verify._judge(answer, "web1", UUID)


@pytest.mark.parametrize("grain", [UUID, "ffffffff-4455-6677-8899-aabbccddeeff", ""])
def test_a_fork_is_known_by_the_word_over_its_agent_and_never_by_its_uuid(grain: str) -> None:
    answer = forks(grain=grain)
    assert verify._judge(answer, "web1", UUID, OWN_WORD) == verify.Verified("3008.3", "word")
    assert verify._judge(answer, "web1", UUID, "") == verify.Verified("3008.3", "key")


@pytest.mark.parametrize(
    ("there", "read"), [(False, NO_FILE), (False, None), (True, f"{'0' * 32}\n"), (None, "0" * 32)]
)
def test_a_fork_that_does_not_know_its_word_is_another_machine(there: Any, read: Any) -> None:
    with pytest.raises(VerificationFailed, match="another machine than the fork"):
        verify._judge(forks(there, read), "web1", UUID, OWN_WORD)


@pytest.mark.parametrize(
    ("there", "read", "why"),
    [
        (DISABLED, DISABLED, "TypeError: 'str' object is not callable"),
        (True, DISABLED, "TypeError: 'str' object is not callable"),
        (True, "Traceback:\nPermissionError: [Errno 13]", "PermissionError"),
        (True, {OWN_WORD: 1}, "does not read"),
        (None, None, "does not read"),
        (True, "", "does not read"),
        (True, "a\n" + "b" * 1000, "does not read"),
        (True, "a\nred \x1b[31m", "does not read"),
    ],
)
def test_a_minion_that_may_not_read_its_word_is_no_other_machine(
    there: Any, read: Any, why: str
) -> None:
    with pytest.raises(Unverifiable) as caught:
        verify._judge(forks(there, read), "web1", UUID, OWN_WORD)
    message, hint = caught.value.message, caught.value.hint
    assert why in message and message.isprintable() and len(message) < 400
    assert "another machine" not in message.lower()
    for setting in ("disable_modules", "whitelist_modules", "user", "minion_blackout"):
        assert setting in hint


@pytest.mark.parametrize("answer", [None, "nonsense", {}, {"test.version": False}])
def test_an_answer_that_is_none_is_a_failure(answer: Any) -> None:
    with pytest.raises(VerificationFailed):
        verify._judge(answer, "web1", UUID)


def asked_at(until: float, announced: tuple[float, ...] = ()) -> list[float]:
    """When questions go out within so many seconds, looked at ten times a second."""
    turn, found = verify.RetrySchedule(0.0, 1000), []
    for tenth in range(int(until * 10)):
        now = tenth / 10
        if now in announced:
            turn.announced(now)
        if turn.take_slot(now):
            found.append(now)
    return found


def test_a_guest_that_is_slow_is_asked_seldom_and_one_that_announces_itself_at_once() -> None:
    assert asked_at(100) == [0, 3, 9, 21, 45, 75]
    assert asked_at(30, announced=(13.0,)) == [0, 3, 9, 13]
    assert asked_at(20, announced=(10.0,)) == [0, 3, 9, 12], "it was asked a moment before"


def test_whoever_announces_the_minion_all_the_time_does_not_bury_it_under_questions() -> None:
    shouting = tuple(tenth / 10 for tenth in range(1, 100))
    assert asked_at(10, shouting) == [0, 3, 6, 9]


@pytest.mark.parametrize("sign", ["announced", "is_coming"])
def test_a_minion_that_is_only_slow_gets_time_to_answer_but_not_for_ever(sign: str) -> None:
    turn = verify.RetrySchedule(0.0, 180)
    assert not turn.is_over(179) and turn.is_over(180)
    getattr(turn, sign)(20)
    assert turn.is_over(180), "it was early, and had its time"
    getattr(turn, sign)(170)
    assert not turn.is_over(259) and turn.is_over(260)
    for now in range(0, 1000, 10):
        getattr(turn, sign)(now)
    assert not turn.is_over(359) and turn.is_over(360)


@pytest.mark.parametrize("pressed", [SystemExit(0), KeyboardInterrupt()])
def test_ctrl_c_in_the_middle_of_a_question_is_not_taken_for_a_master_that_is_away(
    pressed: BaseException,
) -> None:
    """As Salt 3008 does it: its client fails to close what was interrupted, and tells of that."""

    class Interrupted:
        def run_job(self, *_words: Any, **_keys: Any) -> None:
            try:
                try:
                    raise pressed
                finally:
                    raise RuntimeError("Event loop stopped before Future completed.")
            except RuntimeError as error:
                raise salt.exceptions.SaltClientError(error)  # noqa: B904

    with pytest.raises(type(pressed)):
        verify._ask(Interrupted(), "web1")


def test_a_master_that_is_away_is_asked_again() -> None:
    class Away:
        def run_job(self, *_words: Any, **_keys: Any) -> None:
            raise salt.exceptions.SaltClientError("no master")

    assert verify._ask(Away(), "web1") == ""


@pytest.mark.parametrize(("published", "asked"), [({}, False), ({"jid": "1"}, True)])
def test_a_minion_that_the_master_never_asked_is_not_a_silent_one(
    monkeypatch: pytest.MonkeyPatch, published: dict[str, str], asked: bool
) -> None:
    bus = SimpleNamespace(run_job=lambda *_, **__: published, get_event=lambda **_: None)

    @contextlib.contextmanager
    def opened(*_: Any, **__: Any) -> Iterator[Any]:
        yield bus

    monkeypatch.setattr(verify.salt.client, "get_local_client", opened)
    monkeypatch.setattr(verify.salt.utils.event, "get_master_event", opened)
    monkeypatch.setattr(verify, "MinionKeys", lambda _opts: None)
    monkeypatch.setattr(verify.master_address, "line", lambda _opts: "")
    with pytest.raises(MinionTimeout) as caught:
        verify.verify({"sock_dir": ""}, "web1", UUID, GuestMinion, 0.05)
    assert isinstance(caught.value, verify.NeverAsked) is not asked
    assert caught.value.as_dict()["type"] == "MinionTimeout"


@pytest.mark.parametrize(
    ("answers", "silent"),
    [
        ({"ci-1": "3008.1", "ci-2": "3008.1"}, set()),
        ({"ci-1": "3008.1", "ci-2": False}, {"ci-2"}),
        ({"ci-1": False, "ci-2": False}, {"ci-1", "ci-2"}),
        ({"ci-1": "3008.1"}, {"ci-2"}),
        ({}, set()),
    ],
)
def test_only_minions_that_were_asked_are_silent(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any], silent: set[str]
) -> None:
    @contextlib.contextmanager
    def opened(**_: Any) -> Iterator[Any]:
        yield SimpleNamespace(cmd=lambda *_, **__: answers)

    monkeypatch.setattr(verify.salt.client, "get_local_client", opened)
    assert verify.silent({}, ["ci-1", "ci-2"], 1.0) == silent
