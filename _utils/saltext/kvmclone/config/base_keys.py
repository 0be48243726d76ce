"""
Turn what a ``base_from`` is given into the request for a base.

A base takes few of a profile's keys: those that say where it is made and what machine it is. All
others describe clones. Where a profile is named, these keys of it are used, and the others are not;
given as arguments, the others are refused by name.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from saltext.kvmclone.config import resolve, value_types
from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.config.schema import KEYS
from saltext.kvmclone.config.validate import Problem, checked_arguments, error_for, refuse_secrets
from saltext.kvmclone.config.value_types import ValueType
from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.model import digests
from saltext.kvmclone.model.base_request import (
    FROM_REPOSITORY,
    NO_SALT,
    BaseRequest,
    Origin,
    file_name,
    shown,
)
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.names import check
from saltext.kvmclone.model.request import DEFAULT_URL

#: Keys of our own, with their kinds.
OWN: dict[str, ValueType[Any]] = {
    "sha256": value_types.WORD,
    "salt": value_types.WORD,
    "packages": value_types.WORD,
    "firmware": value_types.choice("auto", "bios", "efi"),
    "domain_type": value_types.choice("auto", "kvm", "qemu"),
    "timeout": value_types.DURATION,
}

#: Keys of a profile that a base takes; the first four say where it is made.
TAKEN = (
    "provider", "host", "url", "validate_xml",
    "pool", "networks", "cpus", "memory", "disks", "description",
)  # fmt: skip

#: What of a disk, and of a network card, a base takes.
_OF_DISK, _OF_CARD = "size", ("network", "bridge", "portgroup")

_HTTP, _HTTPS = "http", "https"

#: Several hosts of a profile or provider; a base does not choose among them.
_HOSTS = "hosts"


def request(
    catalogue: Catalogue, source: Any, name: Any, given: Mapping[str, Any], here: str = ""
) -> tuple[BaseRequest, Origin]:
    """
    Return the request for a base, and where its image really is.

    :param source: URL of an image, or its path on the KVM host.
    :param name: Name of the base.
    :param given: :data:`OWN` and :data:`TAKEN` keys, and ``profile``; None for what is not given.
    :param here: Minion id of this host; empty on a master.
    :raises InvalidName: A machine cannot have this name.
    :raises ConfigError: All that is wrong with the keys, or with the source.
    """
    refuse_secrets(given)
    check(name)
    given = {key: value for key, value in given.items() if value is not None}
    profile = str(given.pop("profile", ""))
    own = _own({key: given.pop(key) for key in OWN if key in given})
    arguments = _arguments(given)
    written = {**_of_profile(catalogue, profile, arguments), **arguments}
    values, faults = resolve.typed(written, KEYS, catalogue.fetch)
    if faults:
        raise error_for(
            Problem("", "", key, f"{value_types.shortened(value)} is not {expected}")
            for key, value, expected in faults
        )
    _require_one_host(name, values, here)
    origin, digest = _origin(source, own.get("sha256", ""))
    machine: dict[str, Any] = {
        key: values[key] for key in ("pool", "cpus", "memory", "description") if key in values
    }
    made = BaseRequest(
        name=name,
        source=shown(origin.image),
        digest=digest,
        checksums=shown(origin.checksums),
        size=int(values.get("disks", {}).get("vda", {}).get(_OF_DISK, 0)),
        validate_xml=values.get("validate_xml", True),
        url=values.get("url", DEFAULT_URL),
        host=here or values.get("host", ""),
        **machine,
        **_card(values.get("networks")),
        **{key: own[key] for key in own if key != "sha256"},
    )
    return made, origin


def _own(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return our own keys in their types."""
    problems = [
        # A checksum file's URL may hold a password, so that what was given is not quoted.
        Problem(
            "",
            "",
            key,
            f"{f'it is not {OWN[key].expected}' if key == 'sha256' else fault}. "
            f"For example: {key}={_EXAMPLES[key]}",
        )
        for key, value in given.items()
        if (fault := OWN[key].fault(value))
    ]
    for key in ("salt", "packages"):
        value = given.get(key)
        word = key == "salt" and value in (NO_SALT, FROM_REPOSITORY)
        if isinstance(value, str) and not word and not value.startswith("/"):
            expected = "none, repository, or" if key == "salt" else ""
            text = (
                f"{shown(value)!r} is not {expected} the absolute path of a folder on the KVM host"
            )
            problems.append(Problem("", "", key, text.replace("  ", " ")))
    if problems:
        raise error_for(problems)
    return {key: OWN[key].parse(value) for key, value in given.items()}


_EXAMPLES = {
    "sha256": "DIGEST, in quotes where it has digits alone",
    "salt": FROM_REPOSITORY,
    "packages": "/srv/packages",
    "firmware": "efi",
    "domain_type": "kvm",
    "timeout": "30m",
}


def _arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the profile keys among the arguments, once all of them are right."""
    near = {
        key: meant[0]
        for key in given
        if key not in KEYS and (meant := difflib.get_close_matches(key, OWN, n=1, cutoff=0.7))
    }
    if near:
        raise error_for(
            Problem("", "", key, f"there is no such key; did you mean {meant!r}?")
            for key, meant in near.items()
        )
    arguments = checked_arguments(given)
    problems = [
        Problem("", "", key, f"a base does not take it; it takes {', '.join((*OWN, *TAKEN))}")
        for key in arguments
        if key not in TAKEN
    ]
    for target, wish in (arguments.get("disks") or {}).items():
        if target != "vda" or set(wish) - {_OF_DISK}:
            text = "a base has the disk of its image; for example: disks='{vda: {size: 20GiB}}'"
            problems.append(Problem("", "", "disks", text))
    cards = arguments.get("networks")
    if cards is not None and (len(cards) != 1 or set(cards[0]) - set(_OF_CARD)):
        text = "a base has one card; for example: networks='[{bridge: br0}]'"
        problems.append(Problem("", "", "networks", text))
    if problems:
        raise error_for(problems)
    return arguments


def _of_profile(catalogue: Catalogue, profile: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a base takes of a profile and its provider, or of a provider alone."""
    keys = catalogue.written(profile, str(arguments.get("provider") or ""))
    return {key: keys[key] for key in (*TAKEN, _HOSTS) if key in keys}


def _require_one_host(name: str, values: Mapping[str, Any], here: str) -> None:
    """
    Refuse to guess on which of several hosts a base is meant to be.

    :param here: Minion id of this host; empty on a master.
    :raises ConfigError: Its profile or provider has several, and none was named; or it is meant to
        be on another than this one.
    """
    if here and values.get("host", here) != here:
        raise ConfigError(
            f"'{name}' belongs on the KVM host '{values['host']}' ('host:'); this is '{here}'.",
            f"Do it there: {Commands(minion=values['host']).on_host('base_from', 'SOURCE', name)}",
        )
    hosts = values.get(_HOSTS)
    if here or not hosts or values.get("host"):
        return
    known, first = (hosts, "MINION") if isinstance(hosts, str) else (", ".join(hosts), hosts[0])
    raise ConfigError(
        f"The base '{name}' may be on several hosts: {known}.", f"Name one: host={first}"
    )


def _card(cards: Any) -> dict[str, Any]:
    """Return where the first card that is asked for is, and how many more there are."""
    first, *others = cards or [{}]
    return {key: first[key] for key in _OF_CARD if first.get(key)} | {"further_cards": len(others)}


def _origin(source: Any, sha256: str) -> tuple[Origin, str]:
    """
    Return where the image is, and the digest that it must have, as it is recorded.

    :raises ConfigError: The source or the digest cannot be used.
    """
    if not isinstance(source, str) or not source.isprintable():
        raise ConfigError("The source is no URL or path.", _SOURCES)
    parts = _parts(source, "The source", _SOURCES)
    scheme = parts.scheme
    if scheme not in (_HTTP, _HTTPS):
        if not source.startswith("/"):
            raise ConfigError(
                f"'{shown(source)}' is neither a URL nor an absolute path on the KVM host.",
                _SOURCES,
            )
    elif not (parts.hostname and file_name(source)):
        raise ConfigError(f"'{shown(source)}' names no file on a server.", _SOURCES)
    else:
        source = source.strip()
    checksum_file, digest = "", digests.written(sha256)
    if sha256 and not digest:
        parts = _parts(sha256, "sha256", _CHECKSUMS)
        if parts.scheme != _HTTPS or not parts.hostname:
            raise ConfigError(
                "sha256 is neither a digest of 64 (SHA-256) or 128 (SHA-512) hexadecimal digits "
                "nor the https:// URL of a checksum file.",
                _CHECKSUMS,
            )
        checksum_file = sha256
    if scheme == _HTTP and not sha256:
        raise ConfigError(
            f"'{shown(source)}' is plain http, where anybody on the way can change it.",
            "Give its digest, from the vendor: sha256=DIGEST   Or use https://",
        )
    return Origin(source, checksum_file), digest


def _parts(location: str, what: str, hint: str) -> SplitResult:
    """
    Return the parts of a URL or path.

    :raises ConfigError: It cannot be taken apart; Python's own error would quote it.
    """
    try:
        parts = urlsplit(location.strip())
        _port = parts.port
    except ValueError:
        raise ConfigError(f"{what} is no URL or path.", hint) from None
    return parts


_CHECKSUMS = (
    "A checksum file over plain http proves nothing. For example: "
    "sha256=https://cloud.debian.org/images/cloud/bookworm/latest/SHA512SUMS"
)
_SOURCES = (
    "For example: https://cloud.debian.org/images/cloud/bookworm/latest/"
    "debian-12-generic-amd64.qcow2   Or, on the KVM host: /srv/images/debian12.qcow2"
)
