"""Only who holds the minion's key can answer for it, and only that question, and only once."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext.kvmclone.errors import HostUnreachable, Unsealable
from saltext.kvmclone.master import keys
from saltext.kvmclone.model.enrolment import KeyPair
from saltext.kvmclone.system import signed_answers

ANSWERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@cache
def pair(number: int = 0) -> KeyPair:
    return keys.generate(2048)


def asked(question: str = "kvm_clone.remote") -> tuple[bytes, str]:
    return signed_answers.challenge(pair().public, "kvm01", question)


@settings(max_examples=30)
@given(answer=ANSWERS)
def test_an_answer_comes_through_as_it_was_given(answer: Any) -> None:
    word, token = asked()
    told = signed_answers.sign(pair().private, "kvm01", "kvm_clone.remote", token, answer)
    assert signed_answers.check(word, "kvm01", json.loads(json.dumps(told))) == answer


@pytest.mark.parametrize(
    ("private", "minion_id", "question"),
    [
        (1, "kvm01", "kvm_clone.remote"),
        (0, "kvm02", "kvm_clone.remote"),
        (0, "kvm01", "kvm_clone.working"),
    ],
)
def test_a_question_opens_for_its_minion_and_as_itself_only(
    private: int, minion_id: str, question: str
) -> None:
    _word, token = asked()
    with pytest.raises(Unsealable):
        signed_answers.sign(pair(private).private, minion_id, question, token, True)


def test_an_answer_to_an_earlier_question_is_none_to_this_one() -> None:
    _earlier, token = asked()
    told = signed_answers.sign(pair().private, "kvm01", "kvm_clone.remote", token, {"answer": 1})
    word, _token = asked()
    with pytest.raises(signed_answers.Unproven):
        signed_answers.check(word, "kvm01", told)


@pytest.mark.parametrize(
    "returned",
    [
        None,
        "'kvm_clone.remote' is not available.",
        {"answer": []},
        {"sworn": "[]"},
        {"sworn": "[]", "proof": ""},
        {"sworn": "[]", "proof": "0" * 64},
        {"sworn": "[]", "proof": "\u0660" * 64},
        {"sworn": ["[]"], "proof": b"0" * 64},
        [],
    ],
)
def test_what_proves_nothing_is_an_answer_that_did_not_come(returned: Any) -> None:
    word, _token = asked()
    with pytest.raises(signed_answers.Unproven) as caught:
        signed_answers.check(word, "kvm01", returned)
    assert isinstance(caught.value, HostUnreachable)
    assert "saltutil.sync_all" in caught.value.hint


def test_an_answer_that_was_changed_on_its_way_is_not_the_minions() -> None:
    word, token = asked()
    told = signed_answers.sign(
        pair().private, "kvm01", "kvm_clone.remote", token, {"state": "running"}
    )
    told["sworn"] = told["sworn"].replace("running", "shutoff")
    with pytest.raises(signed_answers.Unproven):
        signed_answers.check(word, "kvm01", told)
