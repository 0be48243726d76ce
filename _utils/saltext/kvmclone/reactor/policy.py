"""
Decide by the policy for events, the allow-list on the master. Pure.

It says which minions may have machines made, by which profiles, under which names, and how many;
:mod:`.policy_section` reads it. Without one, nothing is allowed. What a minion requests is hostile
input until it has passed :func:`read_ask` and :func:`judge`.
"""

from __future__ import annotations

import fnmatch
import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saltext.kvmclone.config.schema import KEYS
from saltext.kvmclone.errors import InvalidName, KvmCloneError
from saltext.kvmclone.model.names import check, is_minion_id

REQUEST, RELEASE, EXPIRED, START, DESTROYED = "request", "release", "expired", "start", "destroyed"

#: Every kind of notification, as the reactor's SLS files call it.
BELLS = (REQUEST, RELEASE, EXPIRED, START, DESTROYED)

#: The kind of notification with which a claim wakes the worker. No event leads to it.
STOCK = "stock"

#: The keys that a rule may let a minion set, up to the value in the rule. A secret, a url, a
#: script, a path or a host must never be added.
OVERRIDABLE = ("cpus", "memory", "ttl")

#: Those of them that a request for any spare may set.
OF_A_CLAIM = ("ttl",)

#: The version of what a minion stores and answers with; without one it is 1.
ASK_VERSION = 1

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

    def fits(self, ask: Ask) -> bool:
        """Return True if the rule is about what is requested."""
        return (
            self.covers(ask.minion_id)
            and ask.profile in self.profiles
            and (not ask.name or self.names_match(ask.name, ask.minion_id))
        )

    def names_match(self, name: str, minion_id: str) -> bool:
        """Return True if this minion may give a clone this name."""
        if self.names.startswith("^"):
            pattern = self.names.replace("{minion}", re.escape(minion_id))
            return re.fullmatch(pattern, name) is not None
        return fnmatch.fnmatchcase(name, self.names.replace("{minion}", glob.escape(minion_id)))

    def names_in_words(self, minion_id: str) -> str:
        """Return which names this minion may give, as the end of a sentence."""
        if self.names.startswith("^"):
            pattern = self.names[1:].replace("{minion}", re.escape(minion_id))
            return f"a name that matches the regular expression {pattern}"
        return f"a name like {self.names.replace('{minion}', minion_id)}"

    def limit(self, key: str) -> str:
        """Return how much of an override is allowed, as people write it."""
        return f"at most {KEYS[key].kind.write(self.overrides[key])}"


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
        if bell == DESTROYED:  # the minion that asked for the clone is told, too
            return self.clean_keys or bool(self.rules)
        simple = {EXPIRED: self.expire, START: self.finish}
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
    :param name: Name of the clone; empty for any spare of the profile, whose name is not the
        minion's to choose.
    :param keys: Overrides, as they were written.
    """

    token: str
    minion_id: str
    bell: str
    name: str
    profile: str = ""
    keys: Mapping[str, Any] = field(default_factory=dict)


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
    if (version := item.get("version", 1)) != ASK_VERSION:
        raise Refused(
            f"A request of '{asker}' is of a later version of kvm_clone (it has version "
            f"{shortened(version)}; this master reads {ASK_VERSION}).",
            "Bring that version to this master as well.",
        )
    token, bell = item.get("token"), item.get("bell")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise Refused(f"A request of '{asker}' has no token.", HINT)
    if bell not in (REQUEST, RELEASE):
        raise Refused(f"'{asker}' asks for {shortened(bell)}, which does not exist.", HINT)
    name = item.get("name")
    try:
        name = "" if bell == REQUEST and name == "" else check(name)
    except InvalidName as error:
        raise Refused(error.message, error.hint) from error
    if bell == RELEASE:
        return Ask(token, asker, RELEASE, name)
    profile, keys = item.get("profile"), item.get("keys") or {}
    if not isinstance(profile, str) or not profile:
        raise Refused(f"'{asker}' names no profile for '{name}'.", HINT)
    if not isinstance(keys, Mapping) or len(keys) > len(KEYS):
        raise Refused(f"The keys that '{asker}' gives for '{name}' are not a mapping.", HINT)
    if not name and (strange := sorted(map(str, set(keys) - set(OF_A_CLAIM)))):
        raise Refused(
            f"A spare is as its profile says, so '{asker}' cannot set {shortened(strange[0])}.",
            "Ask for a machine by a name of its own.",
        )
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
    profiles = dict.fromkeys(f"'{profile}'" for rule in rules for profile in rule.profiles)
    rules = tuple(rule for rule in rules if ask.profile in rule.profiles)
    if not rules:
        what = f"the profile {shortened(ask.profile)}, only {', '.join(profiles)}"
        raise Refused(f"'{ask.minion_id}' may not use {what}.", HINT)
    reasons = []
    for rule in rules:
        if ask.name and not rule.names_match(ask.name, ask.minion_id):
            reasons.append(
                f"'{ask.minion_id}' may not call a machine '{ask.name}', only "
                f"{rule.names_in_words(ask.minion_id)}"
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
            allowed = ", ".join(f"{one} ({rule.limit(one)})" for one in rule.overrides)
            only = f"only {allowed}" if allowed else "nor any other key"
            return f"'{ask.minion_id}' may not set {shortened(key)}, {only}"
        kind = KEYS[key].kind
        try:
            if isinstance(value, str) and len(value) > MAX_VALUE_CHARACTERS:
                raise ValueError("it would be kept as it was written")
            wanted = kind.parse(value)
        except ValueError:
            return f"{shortened(value)} for '{key}' is not {kind.expected}; {rule.limit(key)}"
        if wanted > rule.overrides[key]:
            return f"{shortened(value)} for '{key}' is more than the rule allows: {rule.limit(key)}"
    return ""


def may_release(policy: Policy, asker: str) -> bool:
    """Return True if a minion may give machines back."""
    return any(rule.release for rule in policy.rules_for(asker))


# --- how many -----------------------------------------------------------------------

HOUR_S = 3600.0


def why_it_waits(rule: Rule, alive: int, begun: list[float], now: float) -> str:
    """
    Return which limit a create under a rule waits for; empty where it may begin.

    :param alive: Clones of the rule that exist or are being made.
    :param begun: When its creates began, seconds since the epoch; 0 for not yet.
    :param now: Seconds since the epoch.
    """
    recent = [when for when in begun if now - HOUR_S < when <= now]
    if alive >= rule.at_once:
        return f"at most {rule.at_once} machines of its rule may exist at once"
    if len(recent) >= rule.per_hour:
        return f"at most {rule.per_hour} machines of its rule may be begun in an hour"
    return ""
