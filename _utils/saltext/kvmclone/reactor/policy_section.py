"""
Read the policy for events: ``kvm_clone: reactor:`` of the master's configuration. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.config import value_types
from saltext.kvmclone.config.schema import KEYS
from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.reactor.policy import OVERRIDABLE, Policy, Rule


def read(section: Any) -> Policy:
    """
    Return the policy that a section describes.

    :param section: ``kvm_clone: reactor:`` as it was written; None for none.
    :raises ConfigError: All that is wrong with it; then nothing is allowed either.
    """
    if section is None:
        return Policy()
    problems: list[str] = []
    if not isinstance(section, Mapping):
        problems.append("it is not a mapping (allow:, expire:, …)")
        section = {}
    known: dict[str, value_types.ValueType[Any]] = {
        "workers": value_types.integer(1, 16, 2),
        "queue": value_types.integer(0, 1000, 100),
        "patience": value_types.DURATION,
        "expire": value_types.BOOLEAN,
        "finish": value_types.BOOLEAN,
        "clean_keys": value_types.BOOLEAN,
    }
    told = _typed({key: section[key] for key in section if key != "allow"}, known, "", problems)
    written = section.get("allow") or []
    if not isinstance(written, (list, tuple)):
        problems.append("allow: is not a list of rules (- minions: …)")
        written = []
    rules = [_rule(rule, f"allow, rule {n}: ", problems) for n, rule in enumerate(written, 1)]
    if problems:
        raise ConfigError(
            "The policy for events (kvm_clone: reactor: on the master) is wrong, so nothing is "
            "obeyed: " + "; ".join(problems),
            "Correct it and restart the master. See reactor/README.md.",
        )
    return Policy(rules=tuple(rule for rule in rules if rule), **told)


def _typed(
    written: Mapping[Any, Any],
    known: Mapping[str, value_types.ValueType[Any]],
    where: str,
    problems: list[str],
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in written.items():
        if key not in known:
            problems.append(f"{where}'{key}' is not known; known are: {', '.join(known)}")
            continue
        kind = known[key]
        if fault := kind.fault(value):
            example = kind.example_for(value)
            problems.append(f"{where}'{key}': {fault}. For example: {key}: {example}")
        else:
            found[key] = kind.parse(value)
    return found


def _rule(written: Any, where: str, problems: list[str]) -> Rule | None:
    if not isinstance(written, Mapping):
        problems.append(f"{where}is not a mapping")
        return None
    kinds: dict[str, value_types.ValueType[Any]] = {
        "minions": value_types.TEXTS,
        "profiles": value_types.TEXTS,
        "names": value_types.WORD,
        "at_once": value_types.integer(1, 10000, 4),
        "per_hour": value_types.integer(1, 10000, 4),
        "overrides": value_types.MAPPING,
        "release": value_types.BOOLEAN,
    }
    before = len(problems)
    told = _typed(written, kinds, where, problems)
    for key in ("minions", "profiles", "names", "at_once", "per_hour"):
        if not written.get(key):
            problems.append(f"{where}'{key}' is missing")
    limits: dict[str, Any] = {}
    for key, most in told.get("overrides", {}).items():
        if key not in OVERRIDABLE:
            problems.append(
                f"{where}'{key}' can never be set by an event; only {', '.join(OVERRIDABLE)} can"
            )
            continue
        limits |= _typed({key: most}, {key: KEYS[key].kind}, f"{where}overrides: ", problems)
    pattern = told.get("names", "")
    if pattern.startswith("^"):
        try:
            re.compile(pattern.replace("{minion}", "m"))
        except re.error as error:
            problems.append(f"{where}'names' is not a regular expression: {error}")
    if len(problems) > before:
        return None
    return Rule(**{**told, "overrides": limits})
