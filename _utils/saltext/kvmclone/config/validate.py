"""
Check single keys of a configuration: right, wrong, ignored or secret.

Pure. It knows no relation between sections (that is ``sections.py``); it holds the types
in which sections and problems are handed around, and the checks of single keys.
"""

from __future__ import annotations

import copy
import difflib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import yaml

from saltext.kvmclone.config import resolve, stock_keys
from saltext.kvmclone.config.schema import KEYS, Key, KeyLocation, KeySupport
from saltext.kvmclone.config.value_types import shortened
from saltext.kvmclone.errors import ConfigError, SecretInArgument
from saltext.kvmclone.model.redacted_text import HIDDEN

Keys = dict[str, Any]

# A longer value that is no path by its first letter may be the key that the path should lead to.
_LONGEST_NAME = 128

# Words that make an unknown argument look like a misspelt or foreign secret.
_SECRET_WORDS = ("passw", "passphrase", "secret", "token", "private_key")

# Arguments that may be an sdb:// URI.
_FROM_STORES = ("password", "sudo_password", "private_key", "private_key_passphrase")

# Keys of other drivers of salt-cloud, and of patches to Salt's own libvirt driver, for which we
# have another name that nobody would guess from the letters.
_ELSEWHERE = {
    "clone_from": "base_domain",
    "clonefrom": "base_domain",
    "cores": "cpus",
    "devices": "disks and networks",
    "num_cpus": "cpus",
    "ram": "memory",
    "ssh_key": "private_key",
    "ssh_key_file": "private_key",
    "ssh_password": "password",
    "user": "ssh_username",
}

# Keys of a profile that mean nothing for one machine.
_OF_A_PROFILE = {"extends": "name the profile itself"}
_OF_A_PROFILE |= dict.fromkeys(stock_keys.KEYS, "write it into the profile")

#: The problem of each required key where it is absent.
MISSING = {
    "base_domain": "is missing; it names the domain to clone. For example: base_domain: debian12",
    "url": "is missing; it names the libvirt daemon. For example: url: qemu:///system",
    "provider": "is missing; it says on which host. For example: provider: local-kvm",
    "driver": "is missing. Write driver: libvirt",
}


@dataclass(frozen=True)
class Section:
    """
    One provider or profile as it was written.

    :param kind: :attr:`Place.PROVIDER` or :attr:`Place.PROFILE`.
    :param name: Name of the section; anything but text is a problem.
    :param keys: Its contents; anything but a mapping is a problem (a provider may also be
        a list of mappings, one for each driver).
    :param place: Where it was read: a file with its line, or "the pillar".
    :param key_places: The same for each of its keys, where that is known; several mappings for
        a provider with several drivers.
    """

    kind: KeyLocation
    name: Any
    keys: Any = field(repr=False)  # may hold a password
    place: str
    key_places: Sequence[Mapping[Any, str]] = ()


@dataclass(frozen=True)
class Problem:
    """
    One thing that the user has to correct.

    :param place: File, or what else holds the section; empty for an argument.
    :param section: Name of the section, empty where the whole place is meant.
    :param key: The key, empty where the whole section is meant.
    :param text: What is wrong with it and what was expected, without any secret.
    :param kind: What sort of section it is in; of a whole file, which sort it holds
        (:attr:`Place.GLOBAL` for the cloud file). None where that could be any.
    :param lacking: Something is absent that a section which extends this one may have.
    """

    place: str
    section: str
    key: str
    text: str
    kind: KeyLocation | None = None
    lacking: bool = False

    @property
    def is_of_a_file(self) -> bool:
        """Return whether a whole file, or part of a configuration, cannot be read."""
        return not self.section and not self.key

    def __str__(self) -> str:
        if not self.place:
            return f"{self.key}: {self.text}"
        section = f"section {self.section!r}: " if self.section else ""
        key = f"key {self.key!r}: " if self.key else ""
        return f"{self.place}: {section}{key}{self.text}"


def error_for(problems: Iterable[Problem]) -> ConfigError:
    """Return the one error that lists all problems, each on a line of its own."""
    lines = list(dict.fromkeys(str(problem) for problem in problems))
    if len(lines) == 1:
        return ConfigError(lines[0], "Correct it and run the command again.")
    return ConfigError(
        f"{len(lines)} problems in the configuration:\n" + "\n".join(lines),
        "Correct all of them and run the command again.",
    )


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> Keys:
    """
    Return the keys of two sections merged to any depth, ``over`` winning; neither is changed.

    Of ``host`` and ``hosts`` the nearer one counts.
    """
    gone = ("hosts", "placement") if over.get("host") else ("host",) if over.get("hosts") else ()
    return _merged({name: value for name, value in under.items() if name not in gone}, over)


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> Keys:
    merged = copy.deepcopy(dict(under))
    for name, value in over.items():
        below = merged.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[name] = _merged(below, value)
        else:
            merged[name] = copy.deepcopy(value)
    return merged


def nearby(sort: str, name: Any, known: Iterable[str]) -> str:
    """
    Return what to say of a section that does not exist: which was meant, or which there are.

    :param sort: ``provider`` or ``profile``.
    """
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"The {sort}s here: {', '.join(known)}." if known else f"No {sort} is configured here."


# --- single keys --------------------------------------------------------------------


def shown(key: Key | None, value: Any) -> str:
    """Return a value as a message may show it: hidden where secret, shortened where long."""
    if key is None or not key.visible:
        return HIDDEN
    return shortened(value)


def _unknown_key(name: Any) -> str:
    if name in _ELSEWHERE:
        return f"there is no such key here; write it as {_ELSEWHERE[name]}"
    known = [key.name for key in KEYS.values() if key.fate is KeySupport.HONOURED]
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.7)
    if close:
        return f"there is no such key; did you mean {close[0]!r}?"
    # Salt passes over such a key in silence, so it may have stood there for years.
    return "there is no such key, nor did Salt's libvirt driver know it; take it out"


def fault_of(name: Any, value: Any, place: KeyLocation, typed: bool = False) -> str:
    """
    Say what is wrong with one key where it stands; empty if nothing is.

    :param typed: It is an argument, so its example is quoted for the shell.
    """
    key = KEYS.get(name) if isinstance(name, str) else None
    if key is None:
        return _unknown_key(name)
    if key.fate is KeySupport.IGNORED:
        return ""
    if key.fate is KeySupport.REFUSED:
        return "" if value in key.harmless else f"is refused: {key.word}"
    if place not in key.places:
        right = " or ".join(sorted(each.value for each in key.places))
        return f"belongs in {right}, not in {place.value}"
    if value is None or resolve.is_reference(value):
        return ""
    return _fault_of_value(name, key, value, typed)


def _fault_of_value(name: str, key: Key, value: Any, typed: bool) -> str:
    fault = key.kind.fault(value)
    if not fault:
        return ""
    example = key.kind.example_for(value)
    if not key.visible:
        fault = f"{HIDDEN} is not {key.kind.expected}"
    elif isinstance(value, str) and value[:1] in ("[", "{") and example[:1] in ("[", "{"):
        fault, example = _read_as_text(key, value, example, typed)
    right = f"{name}={shlex.quote(example)}" if typed else f"{name}: {example}"
    stop = "" if fault.endswith("?") else "."
    return f"{fault}{stop} {'Write' if example == value else 'For example'}: {right}"


def _read_as_text(key: Key, value: str, example: str, typed: bool) -> tuple[str, str]:
    """Say why a list or mapping is text, and return the value without what made it text."""
    try:
        meant = yaml.safe_load(value)
    except yaml.YAMLError:
        way = "; in a shell, put quotes around all of it" if typed else ""
        return f"{shortened(value)} was read as text, since its brackets do not match{way}", example
    if fault := key.kind.fault(meant):
        return fault, example
    return f"{shortened(value)} was read as text, since it has one pair of quotes too many", value


def advice_on(name: str, value: Any) -> str:
    """Return the warning that a key deserves where it stands; empty for most."""
    key = KEYS.get(name)
    if key is not None and key.fate is KeySupport.IGNORED and value not in key.harmless:
        return f"is ignored: {key.word}"
    if name == "minion" and isinstance(value, Mapping) and "id" in value:
        return "'id' in it is ignored: a minion is called like its clone"
    return ""


def advice_together(keys: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, str]:
    """
    Return the warnings that keys deserve only beside each other, by key; none for most.

    :param own: Those of a profile, or arguments; what a provider sets is meant for some of its
        profiles.
    """
    found = {}
    if keys.get("clone_strategy") != "instant":
        ignored = "is ignored: it counts with clone_strategy: instant alone"
        found = {key: ignored for key in ("instant", "warm") if own.get(key)}
    if keys.get("deploy") is not False:
        return found | advice_on_domain(keys)
    if keys.get("inline_script"):  # Salt's driver ran it all the same
        found["inline_script"] = "is ignored: with deploy: False nothing runs in the guest"
    return found


def faults_together(keys: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with keys only beside each other, by key; nothing for most."""
    faults = {}
    if keys.get("host") and keys.get("hosts"):
        faults["hosts"] = "excludes 'host': write one of them"
    elif keys.get("placement") and not (keys.get("host") or keys.get("hosts")):
        faults["placement"] = "chooses among 'hosts', which is missing. For example: hosts: kvm*"
    if keys.get("hosts") and isinstance(url := keys.get("url"), str) and urlsplit(url).hostname:
        faults["url"] = (
            f"{shortened(url)} names one machine; with 'hosts' it is the url as each of them sees "
            "it. For example: url: qemu:///system"
        )
    wish = keys.get("placement")
    apart = wish.get("apart") if isinstance(wish, Mapping) else None
    tags = keys.get("tags") or ()
    if keys.get("hosts") and apart and apart not in ([tags] if isinstance(tags, str) else tags):
        faults["placement"] = (
            f"keeps clones with the tag {shortened(apart)} apart, and 'tags' does not have it. For "
            f"example: tags: [{apart}]"
        )
    return faults


def advice_on_domain(keys: Mapping[str, Any]) -> dict[str, str]:
    """Return the warning for half of what puts a domain behind the minion id."""
    domain, minion = keys.get("domain"), keys.get("minion")
    appended = keys.get("append_domain")
    if not appended and isinstance(minion, Mapping):
        appended = minion.get("append_domain")
    nobody = keys.get("deploy") is False or keys.get("bootstrap") == "none"
    if nobody or appended or bool(domain) == bool(keys.get("use_fqdn")):
        return {}
    if not domain:
        return {
            "use_fqdn": "does nothing alone: it puts 'domain' behind the minion id, for example "
            "domain: example.com"
        }
    return {
        "domain": "does nothing alone: neither the minion id nor the host name has it. For the id "
        f"NAME.{domain} write use_fqdn: True beside it, or append_domain: {domain} in its place"
    }


# --- arguments ----------------------------------------------------------------------


def refuse_secrets(given: Mapping[str, Any]) -> None:
    """
    Refuse arguments that are, or look like, secrets.

    :raises SecretInArgument: There is one.
    """
    if leaked := sorted(name for name, value in given.items() if _is_leaked(name, value)):
        raise SecretInArgument(
            f"A secret was given as an argument: {', '.join(leaked)}. It is already in "
            "the job cache and must be changed.",
            "Change it, then write it into the profile, the pillar or an sdb:// URI.",
        )


def checked_arguments(arguments: Mapping[str, Any], typed: bool = True) -> Keys:
    """
    Return the profile keys among keyword arguments, once all of them are right.

    :param typed: They were typed in a shell, not written in a file.
    :raises SecretInArgument: One of them is, or looks like, a secret. This comes first:
        the value is out, whatever else is wrong.
    :raises ConfigError: All that is wrong, at once.
    """
    given = {name: value for name, value in arguments.items() if not name.startswith("__")}
    refuse_secrets(given)
    problems = []
    for name, value in given.items():
        fault = fault_of(name, value, KeyLocation.PROFILE, typed)
        if not fault and name in _OF_A_PROFILE:
            fault = f"cannot be given as an argument; {_OF_A_PROFILE[name]}"
        if not fault and name not in _FROM_STORES and resolve.holds_reference(value):
            # Otherwise whoever may start a job could see a store's contents in a plan.
            fault = f"sdb:// can be given as an argument only for {', '.join(_FROM_STORES)}"
        if not fault and (advice := advice_on(name, value)):
            fault = advice.replace("is ignored", "would be ignored")
        if fault:
            problems.append(Problem("", "", name, fault))
    if problems:
        raise error_for(problems)
    return given


def argument(name: str, value: Any, key: str = "") -> Any:
    """
    Return one argument of a function that is not itself a profile key, once it is right.

    :param name: Name of the argument.
    :param key: The profile key that takes the same values; empty for the one of that name.
    :raises ConfigError: It is wrong.
    """
    known = KEYS[key or name]
    if fault := _fault_of_value(name, known, value, typed=True):
        raise error_for([Problem("", "", name, fault)])
    return known.kind.parse(value)


def _is_leaked(name: str, value: Any) -> bool:
    if value is None or resolve.is_reference(value):
        return False
    if name in KEYS:
        holds_key = name == "private_key" and _may_be_a_key(value)
        is_word = isinstance(value, str) and len(value.split()) < 2
        holds_seed = name == "seed" and not is_word
        return KEYS[name].secret or holds_key or holds_seed
    looks_alike = difflib.get_close_matches(name, ["password", "sudo_password"], 1, 0.8)
    return bool(looks_alike) or any(word in name.lower() for word in _SECRET_WORDS)


def _may_be_a_key(value: Any) -> bool:
    """Tell whether a value may be a private key, also one that lost its frame, and no path."""
    if resolve.is_private_key(value) or not isinstance(value, str) or resolve.is_reference(value):
        return resolve.is_private_key(value)
    is_long = len(value) >= _LONGEST_NAME and value[:1] not in ("/", "~", ".")
    return is_long or len(value.splitlines()) > 1


def visible(keys: Mapping[str, Any]) -> Keys:
    """Return the keys of a section as people may see them: secrets are hidden."""

    def veiled(name: str, value: Any) -> Any:
        key = KEYS.get(name)
        if key is None or not key.visible:
            is_path = name == "private_key" and not _may_be_a_key(value)
            is_word = name == "seed" and value in ("none", "keep")
            return value if is_path or is_word else HIDDEN
        return copy.deepcopy(value)

    return {name: veiled(name, value) for name, value in keys.items()}
