"""How a policy is read: whole and right, or it counts for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.reactor import policy_section

RULE: dict[str, Any] = {
    "minions": ["ci*"],
    "profiles": ["runner"],
    "names": "{minion}-*",
    "at_once": 2,
    "per_hour": 3,
    "overrides": {"cpus": 4, "memory": "4GiB", "ttl": "8h"},
}


@pytest.mark.parametrize("key", ["password", "url", "script", "private_key", "host", "file_map"])
def test_no_policy_can_let_an_event_set_a_secret_a_url_a_script_a_path_or_a_host(key: str) -> None:
    with pytest.raises(ConfigError, match="can never be set by an event"):
        policy_section.read({"allow": [{**RULE, "overrides": {key: "x"}}]})


def test_all_mistakes_of_a_policy_are_told_at_once_and_it_counts_for_nothing() -> None:
    with pytest.raises(ConfigError) as caught:
        policy_section.read({"allow": [{**RULE, "at_once": 0, "nmes": "x"}, "ci"], "expire": "yes"})
    for word in ("at_once", "'nmes'", "rule 2", "'expire'", "nothing is obeyed"):
        assert word in caught.value.message


@pytest.mark.parametrize("key", ["minions", "profiles", "names", "at_once", "per_hour"])
def test_a_rule_without_a_limit_is_no_rule(key: str) -> None:
    with pytest.raises(ConfigError, match=f"'{key}' is missing"):
        policy_section.read({"allow": [{k: v for k, v in RULE.items() if k != key}]})
