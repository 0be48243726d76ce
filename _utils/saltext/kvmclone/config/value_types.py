"""
Define which values a key of a configuration takes, and turn them into typed ones.

Pure. Each :class:`ValueType` says in words what it expects and turns one YAML value into the
type that the rest of the library works with: sizes in bytes, times in seconds. YAML has
already decided between text, numbers and booleans; where it decided against the user's
intent (``password: 12345``) the words ask for quotes.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

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
_LONGEST_TIME = 1e10

#: Bytes in one MiB.
MIB = 1024**2


@dataclass(frozen=True)
class ValueType(Generic[T]):
    """
    One sort of value.

    :param expected: What a right value looks like; stands in error messages after
        "expected".
    :param parse: Turns the YAML value into the typed one, or raises ``ValueError``; the
        text of the error is not shown, ``expected`` is.
    :param write: Writes a typed value as people do.
    """

    expected: str
    parse: Callable[[Any], T]
    write: Callable[[T], str] = str


def _refuse() -> ValueError:
    return ValueError("not of this kind")


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


def _parse_memory(value: Any) -> int:
    return _parse_bytes(value, MIB)


def _parse_disk_size(value: Any) -> int:
    return _parse_bytes(value, 1)


def _parse_duration(value: Any) -> float:
    if _is_number(value):
        seconds = float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        seconds = float(match[1]) * _SECONDS[match[2].lower()]
    else:
        raise _refuse()
    if not 0 < seconds <= _LONGEST_TIME:
        raise _refuse()
    return seconds


def _write_bytes(size: int) -> str:
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size % 2**power == 0:
            return f"{size >> power}{unit}"
    return f"{size}B"


def _write_duration(seconds: float) -> str:
    for length, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds}s"


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
        _parse_mapping(settings["grains"])
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


def integer(lowest: int, highest: int) -> ValueType[int]:
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

    return ValueType(f"a whole number from {lowest} to {highest}", parse)


def choice(*words: str) -> ValueType[str]:
    """Return the kind of a value that is one of a few words."""

    def parse(value: Any) -> str:
        if value not in words:
            raise _refuse()
        return str(value)

    return ValueType(f"one of {', '.join(words)}", parse)


def record(**fields: ValueType[Any]) -> ValueType[dict[str, Any]]:
    """Return the kind of a mapping whose keys are all known; all of them may be absent."""
    words = "; ".join(f"{name}: {kind.expected}" for name, kind in fields.items())

    def parse(value: Any) -> dict[str, Any]:
        values = _parse_mapping(value)
        if unknown := set(values) - set(fields):
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        return {name: fields[name].parse(content) for name, content in values.items()}

    return ValueType(f"a mapping of ({words})", parse)


def not_both(kind: ValueType[dict[str, Any]], first: str, second: str) -> ValueType[dict[str, Any]]:
    """
    Return the kind of a mapping that has at most one of two fields.

    :param kind: The kind of mapping without that restriction.
    """

    def parse(value: Any) -> dict[str, Any]:
        parsed = kind.parse(value)
        if first in parsed and second in parsed:
            raise _refuse()
        return parsed

    return ValueType(f"{kind.expected}, not with both {first} and {second}", parse)


def mapping_of(name: str, kind: ValueType[T]) -> ValueType[dict[str, T]]:
    """
    Return the kind of a mapping whose keys the user chooses.

    :param name: What the keys stand for, for the message.
    :param kind: The kind of its values.
    """

    def parse(value: Any) -> dict[str, T]:
        return {key: kind.parse(content) for key, content in _parse_mapping(value).items()}

    return ValueType(f"a mapping from each {name} to {kind.expected}", parse)


def list_of(kind: ValueType[T]) -> ValueType[list[T]]:
    """Return the kind of a list whose items are all of one kind."""

    def parse(value: Any) -> list[T]:
        if not isinstance(value, (list, tuple)):
            raise _refuse()
        return [kind.parse(item) for item in value]

    return ValueType(f"a list, each item {kind.expected}", parse)


def either(first: ValueType[Any], second: ValueType[Any]) -> ValueType[Any]:
    """Return the kind of a value that is of one kind or of the other; the first is tried first."""

    def parse(value: Any) -> Any:
        try:
            return first.parse(value)
        except ValueError:
            return second.parse(value)

    return ValueType(f"{first.expected}, or {second.expected}", parse)


def _parse_seed_file(value: Any) -> str | dict[str, Any]:
    if isinstance(value, str) and value.strip():
        return value
    return _parse_mapping(value)


_SEED_FILE: ValueType[Any] = ValueType("text or a mapping", _parse_seed_file)


def _parse_seed(value: Any) -> str | dict[str, Any]:
    if isinstance(value, str) and value in ("none", "keep"):
        return value
    files = record(user_data=_SEED_FILE, meta_data=MAPPING, network_config=_SEED_FILE).parse(value)
    if not files:
        raise _refuse()
    return files


ANYTHING: ValueType[Any] = ValueType("anything", _parse_anything)
TEXT = ValueType("text (quote it)", _parse_text)
WORD = ValueType("text on one line, not empty (quote it)", _parse_word)
BOOLEAN = ValueType("true or false, without quotes", _parse_boolean)
PORT = integer(1, 65535)
MEMORY = ValueType("a size such as 2GiB, or a number of MiB", _parse_memory, _write_bytes)
DISK_SIZE = ValueType("a size such as 20GiB, or a number of bytes", _parse_disk_size, _write_bytes)
DURATION = ValueType(
    "a time such as 90s, 15m, 12h or 1d, or a number of seconds", _parse_duration, _write_duration
)
FACTOR = ValueType("a number above 0", _parse_factor)
MAPPING = ValueType("a mapping (KEY: VALUE lines, keys as text)", _parse_mapping)
MINION = ValueType(
    "a mapping (KEY: VALUE lines, keys as text), and so are grains in it", _parse_minion
)
MASTER = ValueType(
    "a mapping of a new master's settings (a minion's master goes into minion: {master: …})",
    _parse_mapping,
)
PATHS = ValueType("a mapping from local path to path in the guest", _parse_paths)
SEED: ValueType[Any] = ValueType(
    "none, keep, or a mapping of (user_data: text or a mapping; meta_data: a mapping; "
    "network_config: text or a mapping)",
    _parse_seed,
)
ENVIRONMENT = ValueType(
    "a mapping from variable to text or number (quote yes and no)", _parse_environment
)
TEXTS = ValueType("a list of texts (quote each)", _parse_texts)
ADDRESS = ValueType("an IP address such as 192.168.122.50", _parse_address)
CIDR = ValueType("a network such as 192.168.122.0/24", _parse_cidr)
MAC = ValueType('a MAC address such as "52:54:00:12:34:56" (quote it)', _parse_mac)
SERIAL = ValueType(
    "a serial number of letters, digits, blanks and _ . + - (quote it)",
    _parse_serial,
)
WWN = ValueType(
    'a world wide name of 16 hexadecimal digits such as "5000c50015ea71ad" (quote it)', _parse_wwn
)
