"""Write sizes and times as people write them. Pure."""

from __future__ import annotations

import datetime
import ipaddress

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")

#: Seconds of each unit of a span of time, longest first.
_SPANS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def size(count: int) -> str:
    """Return a number of bytes in the largest unit that keeps it above one: ``1.5 GiB``."""
    value, unit = float(count), _SIZES[0]
    for unit in _SIZES:
        if value < 1024 or unit == _SIZES[-1]:
            break
        value /= 1024
    digits = 0 if unit == "B" or value >= 100 or value == int(value) else 1
    return f"{value:.{digits}f} {unit}"


def exact_size(count: int) -> str:
    """Return a number of bytes as a profile may say it, with nothing rounded: ``640MiB``."""
    value, power = count, 0
    while value and value % 1024 == 0 and power < len(_SIZES) - 1:
        value, power = value // 1024, power + 1
    return f"{value}{_SIZES[power]}"


def exact_span(seconds: float) -> str:
    """Return a number of seconds as a profile may say it, with nothing rounded: ``90m``."""
    for unit, length in _SPANS:
        if seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds}s"


def span(seconds: float) -> str:
    """Return a span of time in its two largest units: ``3d4h``, ``12m5s``, ``40s``."""
    left = max(0, round(seconds))
    words: list[str] = []
    for unit, length in _SPANS:
        count, left = divmod(left, length)
        if count or words:
            words.append(f"{count}{unit}" if count else "")
        if len(words) == 2:
            break
    return "".join(words) or "0s"


def took(seconds: float) -> str:
    """Return how long a piece of work took: ``27.2 s``, ``12m5s``."""
    seconds = min(seconds, 1e15)  # a host may say anything, and a sum of it be infinite
    return f"{seconds:.1f} s" if seconds < 100 else span(seconds)


def moment(epoch: float) -> str:
    """
    Return a point in time in ISO form, in this machine's time zone: ``2026-11-29 07:12:01+00:00``.

    :param epoch: Seconds since the epoch.
    """
    try:
        return datetime.datetime.fromtimestamp(epoch).astimezone().isoformat(" ", "seconds")
    except (OSError, OverflowError, ValueError):  # a host may say anything
        return "at no time"


def short_moment(epoch: float) -> str:
    """Return the same to the minute, for a table: ``2026-11-29 07:12``."""
    return moment(epoch)[:16]


def address_key(text: str) -> tuple[int, int]:
    """Return what addresses are sorted by: IPv4 before IPv6, by number; none comes last."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return 9, 0
    return address.version, int(address)
