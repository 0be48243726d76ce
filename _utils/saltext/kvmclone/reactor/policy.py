"""
What an event may lead to: the allow-list on the master, and its decisions.

Pure. The section ``kvm_clone: reactor:`` of the master's configuration says which minions may
have machines made, by which profiles, under which names, and how many. Where there is none,
nothing is obeyed. What a minion asks is hostile input until it went through :func:`read_ask`
and :func:`judge`.
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

#: Every doorbell, as the reactor's SLS files call it.
BELLS = (REQUEST, RELEASE, EXPIRED, START, DESTROYED)

#: The keys that a rule may let a minion set, at most up to the value in the rule. Never in this
#: list: a secret, a url, a script, a path, a host.
OVERRIDABLE = ("cpus", "memory", "ttl")

#: Longest value of a key, characters; blanks may make a short one as long as anybody likes.
LONGEST_VALUE = 60

#: An ask waits this long for its turn, seconds, unless the policy says otherwise.
PATIENCE = 3600.0

_TOKEN = re.compile(r"[0-9a-f]{16,64}")

#: What to read when something was refused.
HINT = "The policy is 'kvm_clone: reactor:' in the master's configuration; see reactor/README.md."


class Refused(KvmCloneError):
    """Somebody rang, and what they want is not allowed."""


@dataclass(frozen=True)
class Rule:
    """
    One entry of ``allow:``.

    :param minions: Globs of minion ids.
    :param profiles: Names of profiles.
    :param names: Pattern of the clones' names: a glob, or a regular expression where it begins
        with ``^``; ``{minion}`` in it is the id of the minion that asks.
    :param at_once: How many clones of this rule may exist at the same time.
    :param per_hour: How many creates of this rule may begin within an hour.
    :param overrides: Keys that may be given, each with the most that may be asked for.
    :param release: A minion may give back what it asked for, and itself.
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
        """What its clones are counted under; stays when other rules are added."""
        return f"{' '.join(self.minions)} | {' '.join(self.profiles)} | {self.names}"

    def covers(self, minion_id: str) -> bool:
        """Whether the rule is about this minion."""
        return any(fnmatch.fnmatchcase(minion_id, pattern) for pattern in self.minions)

    def fits(self, minion_id: str, profile: str, name: str) -> bool:
        """Whether the rule is about such a machine for this minion."""
        return (
            self.covers(minion_id)
            and profile in self.profiles
            and self.names_match(name, minion_id)
        )

    def names_match(self, name: str, minion_id: str) -> bool:
        """Whether a clone may be called so by this minion."""
        if self.names.startswith("^"):
            pattern = self.names.replace("{minion}", re.escape(minion_id))
            return re.fullmatch(pattern, name) is not None
        return fnmatch.fnmatchcase(name, self.names.replace("{minion}", glob.escape(minion_id)))


@dataclass(frozen=True)
class Policy:
    """
    The whole section; the default obeys nothing.

    :param workers: How many creates run at the same time.
    :param queue: How many asks may wait, of each rule.
    :param patience: How long one may wait, seconds.
    :param expire: Clones whose ``ttl`` passed are destroyed when their host rings.
    :param finish: A new clone gets its highstate when it reports for the first time.
    :param clean_keys: The key of a clone that is gone is removed.
    """

    rules: tuple[Rule, ...] = ()
    workers: int = 2
    queue: int = 100
    patience: float = PATIENCE
    expire: bool = False
    finish: bool = False
    clean_keys: bool = False

    def answers(self, bell: str) -> bool:
        """Whether anything may come of this doorbell at all."""
        simple = {EXPIRED: self.expire, START: self.finish, DESTROYED: self.clean_keys}
        if bell in simple:
            return simple[bell]
        return bool(self.rules) and (bell != RELEASE or any(rule.release for rule in self.rules))

    def rules_for(self, minion_id: str) -> tuple[Rule, ...]:
        """The rules that are about a minion."""
        return tuple(rule for rule in self.rules if rule.covers(minion_id))


@dataclass(frozen=True)
class Ask:
    """
    What a minion itself said that it wants; its form is right, nothing more.

    :param token: The word under which the minion keeps it.
    :param minion_id: The minion that said it.
    :param bell: :data:`REQUEST` or :data:`RELEASE`.
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
    The policy.

    :param section: ``kvm_clone: reactor:`` as it was written; None for none.
    :raises ConfigError: All that is wrong with it; then nothing is obeyed either.
    """
    if section is None:
        return Policy()
    problems: list[str] = []
    if not isinstance(section, Mapping):
        problems.append("it is not a mapping (allow:, expire:, …)")
        section = {}
    known: dict[str, value_types.Kind[Any]] = {
        "workers": value_types.integer(1, 16),
        "queue": value_types.integer(0, 1000),
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
    known: Mapping[str, value_types.Kind[Any]],
    where: str,
    problems: list[str],
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in written.items():
        if key not in known:
            problems.append(f"{where}'{key}' is not known; known are: {', '.join(known)}")
            continue
        try:
            found[key] = known[key].parse(value)
        except ValueError:
            problems.append(f"{where}'{key}': {value!r} is not {known[key].expected}")
    return found


def _rule(written: Any, where: str, problems: list[str]) -> Rule | None:
    if not isinstance(written, Mapping):
        problems.append(f"{where}is not a mapping")
        return None
    kinds: dict[str, value_types.Kind[Any]] = {
        "minions": value_types.TEXTS,
        "profiles": value_types.TEXTS,
        "names": value_types.WORD,
        "at_once": value_types.integer(1, 10000),
        "per_hour": value_types.integer(1, 10000),
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
            problems.append(f"{where}'names' is no regular expression: {error}")
    if len(problems) > before:
        return None
    return Rule(**{**told, "overrides": limits})


# --- what a minion says -------------------------------------------------------------


def minion_id(value: object) -> str:
    """
    A minion id that can be used: to publish to, in a file's name, in a pattern.

    :raises Refused: It is anything else.
    """
    if not is_minion_id(value):
        raise Refused(f"{shortened(value)} is no minion id, so nobody can be asked.", HINT)
    return value


def shortened(value: object) -> str:
    """Something hostile as a message may show it: one line, not long."""
    if not isinstance(value, (str, int, float, bool, type(None))):
        return f"a {type(value).__name__}"
    return repr(value[:60] if isinstance(value, str) else value)


def read_ask(asker: str, item: Any) -> Ask:
    """
    One entry of what :func:`.request_spool.pending` answered on a minion.

    :param asker: The minion that answered.
    :raises Refused: Its form is wrong, or its name cannot be one.
    """
    if not isinstance(item, Mapping):
        raise Refused(f"'{asker}' asks for {shortened(item)}, which is no request.", HINT)
    token, bell = item.get("token"), item.get("bell")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise Refused(f"A request of '{asker}' has no token.", HINT)
    if bell not in (REQUEST, RELEASE):
        raise Refused(f"'{asker}' asks for {shortened(bell)}, which is not offered.", HINT)
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
        raise Refused(f"The keys that '{asker}' gives for '{name}' are no mapping.", HINT)
    return Ask(token, asker, REQUEST, name, profile, dict(keys))


def token_of(item: Any) -> str:
    """The token of an entry whose form may be wrong; empty where it has none."""
    token = item.get("token") if isinstance(item, Mapping) else None
    return token if isinstance(token, str) and _TOKEN.fullmatch(token) else ""


def name_of(item: Any) -> str:
    """The name in such an entry; empty where it cannot be one."""
    try:
        return check(item.get("name") if isinstance(item, Mapping) else None)
    except InvalidName:
        return ""


# --- deciding -----------------------------------------------------------------------


def judge(policy: Policy, ask: Ask) -> Rule:
    """
    The rule that allows a request.

    :raises Refused: None does; with the reason of the one that came nearest.
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
    """Why the given keys are not allowed; empty where they are."""
    for key, value in ask.keys.items():
        if not isinstance(key, str) or key not in rule.overrides:
            return f"'{ask.minion_id}' may not set {shortened(key)}"
        kind = KEYS[key].kind
        try:
            if isinstance(value, str) and len(value) > LONGEST_VALUE:
                raise ValueError("it would be kept as it was written")
            wanted = kind.parse(value)
        except ValueError:
            return f"{shortened(value)} for '{key}' is not {kind.expected}"
        if wanted > rule.overrides[key]:
            return f"{shortened(value)} for '{key}' is more than the rule allows"
    return ""


def may_release(policy: Policy, asker: str) -> bool:
    """Whether a minion may give machines back."""
    return any(rule.release for rule in policy.rules_for(asker))


# --- how many -----------------------------------------------------------------------

HOUR = 3600.0


def may_begin(rule: Rule, alive: int, begun: list[float], now: float) -> bool:
    """
    Whether a create under a rule may begin.

    :param alive: Clones of the rule that exist or are being made.
    :param begun: When its creates began, seconds since the epoch; 0 for not yet.
    """
    recent = [when for when in begun if now - HOUR < when <= now]
    return alive < rule.at_once and len(recent) < rule.per_hour
