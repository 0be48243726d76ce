"""What an event may lead to: by default nothing, and never more than the policy says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.reactor import policy, policy_section
from saltext.kvmclone.reactor.policy import Ask, Policy, Refused, Rule

TOKEN = "0123456789abcdef"
GIB = 1024**3

RULE: dict[str, Any] = {
    "minions": ["ci*"],
    "profiles": ["runner"],
    "names": "{minion}-*",
    "at_once": 2,
    "per_hour": 3,
    "overrides": {"cpus": 4, "memory": "4GiB", "ttl": "8h"},
}


def rules(**changes: Any) -> Policy:
    return policy_section.read({"allow": [{**RULE, **changes}]})


def ask(name: str = "ci01-a", profile: str = "runner", minion: str = "ci01", **keys: Any) -> Ask:
    return Ask(TOKEN, minion, policy.REQUEST, name, profile, keys)


def refusal(where: Policy, what: Ask) -> str:
    with pytest.raises(Refused) as caught:
        policy.judge(where, what)
    return caught.value.message


# --- off by default ---------------------------------------------------------------------------


@pytest.mark.parametrize("section", [None, {}, {"allow": []}, {"workers": 4}])
def test_without_a_policy_no_bell_is_answered(section: Any) -> None:
    nothing = policy_section.read(section)
    assert not [bell for bell in policy.BELLS if nothing.answers(bell)]
    assert "No rule" in refusal(nothing, ask())


def test_each_bell_has_a_switch_of_its_own() -> None:
    for key, bell in (("expire", "expired"), ("finish", "start"), ("clean_keys", "destroyed")):
        only = policy_section.read({key: True})
        assert [one for one in policy.BELLS if only.answers(one)] == [bell]
    # Whose request a machine was made for is told when it is destroyed.
    asking = ["request", "release", "destroyed"]
    assert [one for one in policy.BELLS if rules().answers(one)] == asking
    assert not rules(release=False).answers("release")


# --- who, by which profile, called what -------------------------------------------------------


def test_what_the_rule_allows_is_allowed() -> None:
    assert policy.judge(rules(), ask(cpus=4, memory="4GiB", ttl="8h")).at_once == 2


def test_another_minion_profile_or_name_is_refused() -> None:
    assert "No rule lets 'web1'" in refusal(rules(), ask(minion="web1"))
    assert "may not use" in refusal(rules(), ask(profile="gold"))
    assert "may not call" in refusal(rules(), ask(name="web1"))
    assert "may not call" in refusal(rules(), ask(name="ci02-a"))


def test_a_refusal_names_the_limit_as_people_write_it() -> None:
    both = policy_section.read({"allow": [RULE, {**RULE, "profiles": ["tiny", "runner"]}]})
    assert refusal(both, ask(profile="gold")) == (
        "'ci01' may not use the profile 'gold', only 'runner', 'tiny'."
    )
    assert refusal(rules(), ask(name="web1")) == (
        "'ci01' may not call a machine 'web1', only a name like ci01-*."
    )
    exact = rules(names="^{minion}-[0-9]+")
    assert refusal(exact, ask(name="web1")).endswith(
        "only a name that matches the regular expression ci01-[0-9]+."
    )
    assert refusal(rules(), ask(ttl="2d")) == (
        "'2d' for 'ttl' is more than the rule allows: at most 8h."
    )
    assert refusal(rules(), ask(memory=999999)).endswith("allows: at most 4GiB.")
    assert refusal(rules(), ask(cpus=99)).endswith("allows: at most 4.")
    assert refusal(rules(), ask(ttl="soon")).endswith("is not a time; at most 8h.")
    assert refusal(rules(), ask(tags=["x"])) == (
        "'ci01' may not set 'tags', only cpus (at most 4), memory (at most 4GiB), ttl (at most 8h)."
    )
    assert refusal(rules(overrides={}), ask(cpus=1)) == (
        "'ci01' may not set 'cpus', nor any other key."
    )


def test_a_request_of_a_later_version_is_refused_and_one_without_a_version_is_read() -> None:
    item = {"token": TOKEN, "bell": "request", "name": "ci01-a", "profile": "runner", "keys": {}}
    assert policy.read_ask("ci01", item) == policy.read_ask("ci01", {**item, "version": 1})
    with pytest.raises(Refused, match=r"later version of kvm_clone .*2; this master reads 1"):
        policy.read_ask("ci01", {**item, "version": 2})


def test_a_name_may_be_a_regular_expression() -> None:
    exact = rules(names="^{minion}-[0-9]+")
    policy.judge(exact, ask(name="ci01-7"))
    assert "may not call" in refusal(exact, ask(name="ci01-7x"))
    # The id is text in it, whatever it looks like.
    assert "may not call" in refusal(exact, ask(name="cixx-7", minion="ci.."))


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"cpus": 5}, "more than"),
        ({"cpus": True}, "is not"),
        ({"cpus": "4; rm -rf /"}, "is not"),
        ({"memory": "5GiB"}, "more than"),
        ({"memory": -1}, "is not"),
        ({"ttl": "9h"}, "more than"),
        ({"password": "x"}, "may not set 'password'"),
        ({"url": "qemu+ssh://evil/system"}, "may not set 'url'"),
        ({"tags": ["x"]}, "may not set 'tags'"),
        ({"__jid": 1}, "may not set"),
        # It would be 2 hours; but whoever may ask a hundred times may not fill the book with it.
        ({"ttl": "2" + " " * 10**6 + "h"}, "is not"),
        ({"ttl": "1\u017f"}, "is not"),  # an s, says Unicode
    ],
)
def test_more_than_the_rule_says_is_refused(keys: dict[str, Any], word: str) -> None:
    assert word in refusal(rules(), ask(**keys))


def test_the_second_rule_counts_where_the_first_does_not_fit() -> None:
    both = policy_section.read({"allow": [{**RULE, "names": "a-*"}, {**RULE, "names": "b-*"}]})
    assert policy.judge(both, ask(name="b-1")).names == "b-*"


# --- hostile input ----------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(ANYTHING)
def test_whatever_a_minion_says_is_an_ask_or_refused(item: Any) -> None:
    try:
        policy.read_ask("ci01", item)
    except Refused as refused:
        assert len(refused.message) < 600


@given(name=ANYTHING, profile=ANYTHING, keys=ANYTHING)
def test_whatever_stands_in_an_ask_is_allowed_by_the_rule_or_refused(
    name: Any, profile: Any, keys: Any
) -> None:
    item = {"token": TOKEN, "bell": "request", "name": name, "profile": profile, "keys": keys}
    try:
        policy.judge(rules(), policy.read_ask("ci01", item))
    except Refused:
        return
    assert name.startswith("ci01-")
    assert profile == "runner"


@pytest.mark.parametrize(
    "who",
    ["", "../../etc", "a/b", "*", "a b", "ci01\n", "{{ 7*7 }}", "x" * 254, "-x", 7, None, ["ci01"]],
)
def test_what_is_no_minion_id_is_never_used_as_one(who: Any) -> None:
    with pytest.raises(Refused):
        policy.minion_id(who)


@pytest.mark.parametrize("value", ["x" * 10**6, {"a": "x" * 10**6}, ["x"] * 10**6, b"x" * 10**6])
def test_a_message_shows_little_of_something_huge(value: Any) -> None:
    assert len(policy.shortened(value)) < 70


@pytest.mark.parametrize("name", [["x" * 10**6], {"a": ["x"] * 10**6}, {"x" * 10**6: 1}])
def test_a_refusal_says_little_of_a_huge_name(name: Any) -> None:
    item = {"token": TOKEN, "bell": "request", "name": name, "profile": "runner"}
    with pytest.raises(Refused) as refused:
        policy.read_ask("ci01", item)
    assert len(refused.value.message) < 600


# --- how many ---------------------------------------------------------------------------------

LIMITED = Rule(("*",), ("p",), "*", at_once=2, per_hour=3)


def test_a_create_waits_for_a_place_and_for_its_hour() -> None:
    assert policy.why_it_waits(LIMITED, 1, [0.0], 10_000) == ""
    assert "at most 2 machines" in policy.why_it_waits(LIMITED, 2, [], 10_000)
    hour = policy.why_it_waits(LIMITED, 0, [9_000, 9_100, 9_200], 10_000)
    assert hour == "at most 3 machines of its rule may be begun in an hour"
    assert policy.why_it_waits(LIMITED, 0, [1_000, 9_100, 9_200], 10_000) == ""


def test_a_clock_that_was_set_back_does_not_close_the_door() -> None:
    assert policy.why_it_waits(LIMITED, 0, [20_000, 20_000, 20_000], 10_000) == ""


# --- any spare ---------------------------------------------------------------------------------


def any_spare(**changes: Any) -> dict[str, Any]:
    return {"token": TOKEN, "bell": "request", "name": "", "profile": "runner", **changes}


def test_a_request_without_a_name_needs_no_rule_about_names() -> None:
    found = policy.read_ask("ci01", any_spare(keys={"ttl": "2h"}))
    assert found.name == ""
    assert policy.judge(rules(), found).names == "{minion}-*"
    assert "may not use the profile" in refusal(rules(profiles=["other"]), found)
    assert "at most 1h" in refusal(rules(overrides={"ttl": "1h"}), found)


@pytest.mark.parametrize(
    "item", [any_spare(keys={"cpus": 2}), any_spare(name=None), any_spare(bell="release")]
)
def test_a_spare_is_as_it_is_and_is_given_back_by_its_name(item: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        policy.read_ask("ci01", item)
