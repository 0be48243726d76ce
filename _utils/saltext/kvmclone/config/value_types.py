"""
Define which values a key of a configuration takes, and turn them into typed ones.

Pure. Each :class:`ValueType` says in a few words what it expects, shows one right value, and turns
one YAML value into the type that the rest of the library works with: sizes in bytes, times in
seconds. YAML has already decided between text, numbers and booleans; where it decided against the
user's intent (``password: 12345``) the example has quotes.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from saltext.kvmclone.model.units import exact_size, exact_span

T = TypeVar("T")

_UNITS = {"": 1, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
# ASCII: by Unicode's rules a long s (ſ) would match an s.
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([kmgtp]?)(i?b)?", re.I | re.A)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([smhdw]?)", re.I | re.A)
_DIGITS = re.compile(r"[0-9]{1,18}")
_SERIAL = re.compile(r"[A-Za-z0-9_.+\- ]+")
_WWN = re.compile(r"(?:0x)?([0-9a-f]{16})", re.IGNORECASE)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)

# The largest number of bytes that libvirt can count.
_MOST_BYTES = 2**63 - 1

# Beyond any size in bytes or time in seconds; keeps arithmetic away from overflows.
_LARGEST = 1e18

# Seconds; three centuries. A ttl far beyond ends in a year that no list of clones can write.
_LONGEST_TIME_S = 1e10

# Characters of a value in a message.
_LONGEST_SHOWN = 60

#: Bytes in one MiB.
MIB = 1024**2


@dataclass(frozen=True)
class ValueType(Generic[T]):
    """
    One sort of value.

    :param expected: What a right value is; stands in error messages after "is not".
    :param example: One right value, as YAML on one line.
    :param parse: Turns the YAML value into the typed one, or raises ``ValueError``. Its text is
        shown only of a :class:`WrongPart`.
    :param words: All right values, where they are few.
    :param write: Writes a typed value as people do.
    """

    expected: str
    example: str
    parse: Callable[[Any], T]
    words: tuple[str, ...] = ()
    write: Callable[[T], str] = str

    def fault(self, value: Any) -> str:
        """Say what is wrong with a value, which the words may quote; empty for a right one."""
        try:
            self.parse(value)
        except WrongPart as error:
            return str(error)
        except ValueError:
            return f"{shortened(value)} is not {self.expected}"
        return ""

    def example_for(self, value: Any) -> str:
        """Return a right value: of a few words the one that is nearest to a wrong value."""
        return next(iter(difflib.get_close_matches(str(value), self.words, n=1)), self.example)


def shortened(value: Any) -> str:
    """Return a value as a message shows it."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."


class WrongPart(ValueError):
    """Something inside a value is wrong; the text says where, and what. It may hold a secret."""


def _refuse() -> ValueError:
    return ValueError("not of this kind")


def _part(where: str, kind: ValueType[T], value: Any) -> T:
    """
    Return a part of a value in its type.

    :param where: What to call it.
    :raises WrongPart: It is not of its kind.
    """
    try:
        return kind.parse(value)
    except WrongPart as error:
        raise WrongPart(f"{where}: {error}") from None
    except ValueError:
        raise WrongPart(f"{where}: {shortened(value)} is not {kind.expected}") from None


def _parse_anything(value: Any) -> Any:
    return value


def _parse_text(value: Any) -> str:
    if not isinstance(value, str):
        raise _refuse()
    return value


def _parse_word(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or value != value.strip():
        raise _refuse()
    if any(character in value for character in "\n\r\0"):
        raise _refuse()
    return value


def _parse_boolean(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no", "on", "off"):
        raise WrongPart(f"'{value}' is text, since it is in quotes; take them away")
    if not isinstance(value, bool):
        raise _refuse()
    return value


def _is_number(value: Any) -> bool:
    # bool is an int to Python, and .inf and .nan are floats to YAML; neither is meant.
    is_numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_numeric and -_LARGEST < value < _LARGEST


def _parse_bytes(value: Any, unit_of_a_number: int) -> int:
    if _is_number(value):
        size = int(value * unit_of_a_number)
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        amount, unit, suffix = match.groups()
        if not unit and suffix and suffix.lower() == "ib":
            raise _refuse()
        if not unit and not suffix:
            # A quoted number means what the bare number means.
            return _parse_bytes(float(amount), unit_of_a_number)
        size = int(float(amount) * 1024 ** (_UNITS[unit.lower()] if unit else 0))
    else:
        raise _refuse()
    if not 1 <= size <= _MOST_BYTES:
        raise _refuse()
    return size


def _parse_duration(value: Any) -> float:
    if _is_number(value):
        seconds = float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        seconds = float(match[1]) * _SECONDS[match[2].lower()]
    else:
        raise _refuse()
    if not 0 < seconds <= _LONGEST_TIME_S:
        raise _refuse()
    return seconds


def _parse_factor(value: Any) -> float:
    if not _is_number(value) or value <= 0:
        raise _refuse()
    return float(value)


def _parse_mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _refuse()
    return dict(value)


def _parse_minion(value: Any) -> dict[str, Any]:
    settings = _parse_mapping(value)
    if settings.get("grains") is not None:
        _part("grains", MAPPING, settings["grains"])
    return settings


def _parse_paths(value: Any) -> dict[str, str]:
    if not all(isinstance(path, str) and path for path in _parse_mapping(value).values()):
        raise _refuse()
    return dict(value)


def _parse_environment(value: Any) -> dict[str, str]:
    def variable(content: Any) -> str:
        if isinstance(content, str) or _is_number(content):
            return str(content)
        raise _refuse()

    return {key: variable(content) for key, content in _parse_mapping(value).items()}


def _parse_texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if value else ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise _refuse()
    return tuple(value)


def _parse_address(value: Any) -> str:
    if not isinstance(value, str):
        raise _refuse()
    return str(ipaddress.ip_address(value))


def _parse_cidr(value: Any) -> str:
    if not isinstance(value, str):
        raise _refuse()
    return str(ipaddress.ip_network(value, strict=False))


def _parse_mac(value: Any) -> str:
    # Unquoted, YAML reads some MAC addresses as numbers to the base of 60.
    if not isinstance(value, str) or not _MAC.fullmatch(value):
        raise _refuse()
    return value.lower()


def _parse_serial(value: Any) -> str:
    if not _SERIAL.fullmatch(_parse_word(value)):
        raise _refuse()
    return str(value)


def _parse_wwn(value: Any) -> str:
    # Unquoted, YAML reads a wwn of digits alone, or with 0x before it, as a number.
    match = _WWN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _refuse()
    return match[1].lower()


def integer(lowest: int, highest: int, example: int) -> ValueType[int]:
    """
    Return the kind of a whole number between two bounds, both included.

    It may be quoted, since templates write it so.
    """

    def parse(value: Any) -> int:
        if isinstance(value, str) and _DIGITS.fullmatch(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise _refuse()
        if not lowest <= value <= highest:
            raise _refuse()
        return value

    return ValueType(f"a whole number from {lowest} to {highest}", str(example), parse)


def choice(*words: str) -> ValueType[str]:
    """Return the kind of a value that is one of a few words."""

    def parse(value: Any) -> str:
        if value not in words:
            raise _refuse()
        return str(value)

    return ValueType(f"one of {', '.join(words)}", words[0], parse, words)


def record(example: str, **fields: ValueType[Any]) -> ValueType[dict[str, Any]]:
    """Return the kind of a mapping whose keys are all known; all of them may be absent."""

    def parse(value: Any) -> dict[str, Any]:
        values = _parse_mapping(value)
        for unknown in sorted(set(values) - set(fields)):
            near = difflib.get_close_matches(unknown, fields, n=1)
            end = f"did you mean '{near[0]}'?" if near else f"expected {', '.join(fields)}"
            raise WrongPart(f"{shortened(unknown)} is not known here; {end}")
        return {name: _part(name, fields[name], content) for name, content in values.items()}

    return ValueType("a mapping", example, parse)


def not_both(kind: ValueType[dict[str, Any]], first: str, second: str) -> ValueType[dict[str, Any]]:
    """
    Return the kind of a mapping that has at most one of two fields.

    :param kind: The kind of mapping without that restriction.
    """

    def parse(value: Any) -> dict[str, Any]:
        parsed = kind.parse(value)
        if first in parsed and second in parsed:
            raise WrongPart(f"{first} and {second} exclude each other")
        return parsed

    return ValueType(kind.expected, kind.example, parse)


def mapping_of(name: str, kind: ValueType[T]) -> ValueType[dict[str, T]]:
    """
    Return the kind of a mapping whose keys the user chooses.

    :param name: One such key, for the example.
    :param kind: The kind of its values.
    """

    def parse(value: Any) -> dict[str, T]:
        return {key: _part(key, kind, content) for key, content in _parse_mapping(value).items()}

    return ValueType("a mapping", f"{{{name}: {kind.example}}}", parse)


def list_of(kind: ValueType[T]) -> ValueType[list[T]]:
    """Return the kind of a list whose items are all of one kind."""

    def parse(value: Any) -> list[T]:
        if not isinstance(value, (list, tuple)):
            raise _refuse()
        return [_part(f"item {number}", kind, item) for number, item in enumerate(value, 1)]

    return ValueType("a list", f"[{kind.example}]", parse)


def _parse_seed_file(value: Any) -> str | dict[str, Any]:
    if isinstance(value, str) and value.strip():
        return value
    return _parse_mapping(value)


_SEED_FILE: ValueType[Any] = ValueType("text or a mapping", "{}", _parse_seed_file)


def _parse_seed(value: Any) -> str | dict[str, Any]:
    if isinstance(value, str) and value in ("none", "keep"):
        return value
    files = _SEED_FILES.parse(value)
    if not files:
        raise _refuse()
    return files


ANYTHING: ValueType[Any] = ValueType("anything", "", _parse_anything)
TEXT = ValueType("text in quotes", '"007"', _parse_text)
WORD = ValueType("text on one line", '"007"', _parse_word)
BOOLEAN = ValueType("true or false", "true", _parse_boolean)
PORT = integer(1, 65535, 22)
MEMORY = ValueType("a size", "2GiB", lambda value: _parse_bytes(value, MIB), write=exact_size)
DISK_SIZE = ValueType("a size", "20GiB", lambda value: _parse_bytes(value, 1), write=exact_size)
DURATION = ValueType("a time", "10m", _parse_duration, write=exact_span)
FACTOR = ValueType("a number above 0", "1.5", _parse_factor)
MAPPING = ValueType("a mapping", "{roles: [web]}", _parse_mapping)
MINION = ValueType("a mapping", "{master: 192.168.16.1}", _parse_minion)
MASTER = ValueType(
    "a mapping of a new master's settings (a minion's master goes into minion: {master: …})",
    "{interface: 0.0.0.0}",
    _parse_mapping,
)
PATHS = ValueType("a mapping of paths", "{/srv/app.conf: /etc/app.conf}", _parse_paths)
_SEED_FILES = record(
    '{user_data: "#cloud-config"}',
    user_data=_SEED_FILE,
    meta_data=MAPPING,
    network_config=_SEED_FILE,
)
SEED: ValueType[Any] = ValueType(
    "none, keep or a mapping of user_data, meta_data, network_config", "keep", _parse_seed
)
ENVIRONMENT = ValueType("a mapping of texts", '{DEBUG: "yes"}', _parse_environment)
TEXTS = ValueType("a list of texts", '[web, "007"]', _parse_texts)
ADDRESS = ValueType("an IP address", "192.168.122.50", _parse_address)
CIDR = ValueType("a network", "192.168.122.0/24", _parse_cidr)
MAC = ValueType("a MAC address in quotes", '"52:54:00:12:34:56"', _parse_mac)
SERIAL = ValueType(
    "a serial number of letters, digits, spaces and _ . + -", '"disk-1"', _parse_serial
)
WWN = ValueType(
    "a world wide name of 16 hexadecimal digits in quotes", '"5000c50015ea71ad"', _parse_wwn
)
