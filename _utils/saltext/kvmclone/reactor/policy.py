"""
Read the policy for events, the allow-list on the master, and decide by it. Pure.

The section ``kvm_clone: reactor:`` of the master's configuration says which minions may have
machines made, by which profiles, under which names, and how many. Without it, nothing is allowed.
What a minion requests is hostile input until it has passed :func:`read_ask` and :func:`judge`.
"""

from __future__ import annotations

import fnmatch
import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saltext.kvmclone.config import value_types
from saltext.kvmclone.config.schema import KEYS
from saltext.kvmclone.errors import ConfigError, InvalidName, KvmCloneError
from saltext.kvmclone.model.names import check, is_minion_id

REQUEST, RELEASE, EXPIRED, START, DESTROYED = "request", "release", "expired", "start", "destroyed"

#: Every kind of notification, as the reactor's SLS files call it.
BELLS = (REQUEST, RELEASE, EXPIRED, START, DESTROYED)

#: The keys that a rule may let a minion set, up to the value in the rule. A secret, a url, a
#: script, a path or a host must never be added.
OVERRIDABLE = ("cpus", "memory", "ttl")

#: Longest value of a key, characters; blanks could make a short one arbitrarily long.
MAX_VALUE_CHARACTERS = 60

#: Seconds that a request waits for its turn, unless the policy says otherwise.
QUEUE_TIMEOUT_S = 3600.0

_TOKEN = re.compile(r"[0-9a-f]{16,64}")

#: What to read when something was refused.
HINT = "The policy is 'kvm_clone: reactor:' in the master's configuration; see reactor/README.md."


class Refused(KvmCloneError):
    """The error for a notification or request that is not allowed."""


@dataclass(frozen=True)
class Rule:
    """
    One entry of ``allow:``.

    :param minions: Globs of minion ids.
    :param profiles: Names of profiles.
    :param names: Pattern of the clones' names: a glob, or a regular expression if it begins with
        ``^``; ``{minion}`` in it is the id of the minion that requests.
    :param at_once: How many clones of this rule may exist at the same time.
    :param per_hour: How many creates of this rule may begin within an hour.
    :param overrides: Keys that may be given, each with the greatest value that is allowed.
    :param release: A minion may give back what it requested, and itself.
    """

    minions: tuple[str, ...]
    profiles: tuple[str, ...]
    names: str
    at_once: int
    per_hour: int
    overrides: Mapping[str, Any] = field(default_factory=dict)
    release: bool = True

    @property
    def key(self) -> str:
        """Return what the rule's clones are counted under; it stays when other rules are added."""
        return f"{' '.join(self.minions)} | {' '.join(self.profiles)} | {self.names}"

    def covers(self, minion_id: str) -> bool:
        """Return True if the rule is about this minion."""
        return any(fnmatch.fnmatchcase(minion_id, pattern) for pattern in self.minions)

    def fits(self, minion_id: str, profile: str, name: str) -> bool:
        """Return True if the rule is about a clone of this profile and name for this minion."""
        return (
            self.covers(minion_id)
            and profile in self.profiles
            and self.names_match(name, minion_id)
        )

    def names_match(self, name: str, minion_id: str) -> bool:
        """Return True if this minion may give a clone this name."""
        if self.names.startswith("^"):
            pattern = self.names.replace("{minion}", re.escape(minion_id))
            return re.fullmatch(pattern, name) is not None
        return fnmatch.fnmatchcase(name, self.names.replace("{minion}", glob.escape(minion_id)))


@dataclass(frozen=True)
class Policy:
    """
    The whole policy; the default allows nothing.

    :param workers: How many creates run at the same time.
    :param queue: How many requests may wait, of each rule.
    :param patience: How long one may wait, seconds.
    :param expire: Clones whose ``ttl`` passed are destroyed when their host sends a notification.
    :param finish: A new clone gets its highstate when it reports for the first time.
    :param clean_keys: The key of a clone that is gone is removed.
    """

    rules: tuple[Rule, ...] = ()
    workers: int = 2
    queue: int = 100
    patience: float = QUEUE_TIMEOUT_S
    expire: bool = False
    finish: bool = False
    clean_keys: bool = False

    def answers(self, bell: str) -> bool:
        """Return True if this kind of notification is allowed at all."""
        simple = {EXPIRED: self.expire, START: self.finish, DESTROYED: self.clean_keys}
        if bell in simple:
            return simple[bell]
        return bool(self.rules) and (bell != RELEASE or any(rule.release for rule in self.rules))

    def rules_for(self, minion_id: str) -> tuple[Rule, ...]:
        """Return the rules that are about a minion."""
        return tuple(rule for rule in self.rules if rule.covers(minion_id))


@dataclass(frozen=True)
class Ask:
    """
    A request as the minion itself stated it; its form is right, nothing more is checked.

    :param token: The word under which the minion keeps it.
    :param minion_id: The minion that stated it.
    :param bell: :data:`REQUEST` or :data:`RELEASE`.
    :param name: Name of the clone.
    :param keys: Overrides, as they were written.
    """

    token: str
    minion_id: str
    bell: str
    name: str
    profile: str = ""
    keys: Mapping[str, Any] = field(default_factory=dict)


# --- reading the policy -------------------------------------------------------------


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


# --- what a minion says -------------------------------------------------------------


def minion_id(value: object) -> str:
    """
    Return a minion id that is safe to use: to publish to, in a file's name, in a pattern.

    :raises Refused: The value is anything else.
    """
    if not is_minion_id(value):
        raise Refused(f"{shortened(value)} is not a minion id, so nobody can be asked.", HINT)
    return value


def shortened(value: object) -> str:
    """Return hostile input as a message may show it: one line, not long."""
    if not isinstance(value, (str, int, float, bool, type(None))):
        return f"a {type(value).__name__}"
    return repr(value[:60] if isinstance(value, str) else value)


def read_ask(asker: str, item: Any) -> Ask:
    """
    Return one entry of a minion's :meth:`.request_spool.RequestSpool.pending` as a request.

    :param asker: The minion that answered.
    :param item: The entry; untrusted.
    :raises Refused: Its form is wrong, or its name cannot be one.
    """
    if not isinstance(item, Mapping):
        raise Refused(f"'{asker}' asks for {shortened(item)}, which is not a request.", HINT)
    token, bell = item.get("token"), item.get("bell")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise Refused(f"A request of '{asker}' has no token.", HINT)
    if bell not in (REQUEST, RELEASE):
        raise Refused(f"'{asker}' asks for {shortened(bell)}, which does not exist.", HINT)
    try:
        name = check(item.get("name"))
    except InvalidName as error:
        raise Refused(error.message, error.hint) from error
    if bell == RELEASE:
        return Ask(token, asker, RELEASE, name)
    profile, keys = item.get("profile"), item.get("keys") or {}
    if not isinstance(profile, str) or not profile:
        raise Refused(f"'{asker}' names no profile for '{name}'.", HINT)
    if not isinstance(keys, Mapping) or len(keys) > len(KEYS):
        raise Refused(f"The keys that '{asker}' gives for '{name}' are not a mapping.", HINT)
    return Ask(token, asker, REQUEST, name, profile, dict(keys))


def token_of(item: Any) -> str:
    """Return the token of an entry whose form may be wrong; empty where it has none."""
    token = item.get("token") if isinstance(item, Mapping) else None
    return token if isinstance(token, str) and _TOKEN.fullmatch(token) else ""


def name_of(item: Any) -> str:
    """Return the clone's name in an entry whose form may be wrong; empty where it has none."""
    try:
        return check(item.get("name") if isinstance(item, Mapping) else None)
    except InvalidName:
        return ""


# --- deciding -----------------------------------------------------------------------


def judge(policy: Policy, ask: Ask) -> Rule:
    """
    Return the rule that allows a request.

    :raises Refused: None does; with the reasons of those that came nearest.
    """
    rules = policy.rules_for(ask.minion_id)
    if not rules:
        raise Refused(f"No rule lets '{ask.minion_id}' have machines made.", HINT)
    rules = tuple(rule for rule in rules if ask.profile in rule.profiles)
    if not rules:
        what = f"the profile {shortened(ask.profile)}"
        raise Refused(f"'{ask.minion_id}' may not use {what}.", HINT)
    reasons = []
    for rule in rules:
        if not rule.names_match(ask.name, ask.minion_id):
            reasons.append(
                f"'{ask.minion_id}' may not call a machine '{ask.name}', only {rule.names!r}"
            )
        elif reason := _excess(rule, ask):
            reasons.append(reason)
        else:
            return rule
    raise Refused("; ".join(reasons) + ".", HINT)


def _excess(rule: Rule, ask: Ask) -> str:
    """Return why the given keys are not allowed; empty where they are."""
    for key, value in ask.keys.items():
        if not isinstance(key, str) or key not in rule.overrides:
            return f"'{ask.minion_id}' may not set {shortened(key)}"
        kind = KEYS[key].kind
        try:
            if isinstance(value, str) and len(value) > MAX_VALUE_CHARACTERS:
                raise ValueError("it would be kept as it was written")
            wanted = kind.parse(value)
        except ValueError:
            return f"{shortened(value)} for '{key}' is not {kind.expected}"
        if wanted > rule.overrides[key]:
            return f"{shortened(value)} for '{key}' is more than the rule allows"
    return ""


def may_release(policy: Policy, asker: str) -> bool:
    """Return True if a minion may give machines back."""
    return any(rule.release for rule in policy.rules_for(asker))


# --- how many -----------------------------------------------------------------------

HOUR_S = 3600.0


def may_begin(rule: Rule, alive: int, begun: list[float], now: float) -> bool:
    """
    Return True if a create under a rule may begin.

    :param alive: Clones of the rule that exist or are being made.
    :param begun: When its creates began, seconds since the epoch; 0 for not yet.
    :param now: Seconds since the epoch.
    """
    recent = [when for when in begun if now - HOUR_S < when <= now]
    return alive < rule.at_once and len(recent) < rule.per_hour
