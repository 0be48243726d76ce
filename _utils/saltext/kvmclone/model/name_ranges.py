"""
Read several names from one word: ``web[01-20]`` and ``web[1-3,7].example.com``.

Pure. What comes out is not checked here; :func:`.names.check` does that for each name.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone.errors import ConfigError, InvalidName

#: Most names that one command takes.
MOST_NAMES = 1000

#: One range: numbers, and numbers from-to, separated by commas.
_RANGE = re.compile(r"\[([^\[\]]*)\]")
_PART = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")

#: A word with one of these was meant to be part of a value, not a name.
_OF_A_VALUE = frozenset("{}\"':= ")

_EXAMPLE = (
    "A range is written 'web[01-20]' or 'web[1-3,7]', in quotes. Otherwise a name has no brackets."
)


@dataclass(frozen=True)
class _Numbers:
    """
    Numbers from ``first`` to ``last``.

    :param width: How many digits each of them has at least.
    """

    first: int
    last: int
    width: int


@dataclass(frozen=True)
class _Choice:
    """What stands in one pair of brackets."""

    numbers: tuple[_Numbers, ...]

    def __len__(self) -> int:
        return sum(one.last - one.first + 1 for one in self.numbers)

    def texts(self) -> list[str]:
        """Return each number as it stands in a name."""
        return [
            f"{number:0{one.width}}"
            for one in self.numbers
            for number in range(one.first, one.last + 1)
        ]


def expand(words: Iterable[Any]) -> list[Any]:
    """
    Return every name that some words stand for, in order.

    :param words: Names and ranges; what is no text, or no range, is returned as it is.
    :raises InvalidName: Brackets that are no range.
    :raises ConfigError: More than :data:`MOST_NAMES` names, or one of them twice.
    """
    parsed = [_parsed(word) for word in words]
    count = sum(
        math.prod(len(part) for part in parts if isinstance(part, _Choice)) for parts in parsed
    )
    if count > MOST_NAMES:
        raise too_many(f"That is {count:,} names")
    names: list[Any] = []
    for parts in parsed:
        if not any(isinstance(part, _Choice) for part in parts):
            names += parts  # one, that may be anything but text
        else:
            choices = (part.texts() if isinstance(part, _Choice) else [part] for part in parts)
            names += map("".join, itertools.product(*choices))
    times = Counter(map(str, names))
    if twice := sorted(name for name, number in times.items() if number > 1):
        shown = ", ".join(twice[:5]) + (f" and {len(twice) - 5} more" if len(twice) > 5 else "")
        raise ConfigError(f"Named twice: {shown}.", "Name each clone once.")
    return names


def too_many(said: str) -> ConfigError:
    """
    Return the error for more names than one command takes.

    :param said: How many there are: the beginning of the sentence.
    """
    return ConfigError(
        f"{said}, and one command takes at most {MOST_NAMES:,}.",
        "Is a range longer than it was meant to be? Otherwise give them in several commands.",
    )


def _parsed(word: Any) -> list[Any]:
    """Return the parts of a word: texts, and a :class:`_Choice` for each pair of brackets."""
    if not isinstance(word, str) or not set(word) & set("[]") or set(word) & _OF_A_VALUE:
        return [word]
    pieces = _RANGE.split(word)
    if any(set(text) & set("[]") for text in pieces[::2]):
        raise InvalidName(f"The brackets of {word!r:.80} do not match.", _EXAMPLE)
    return [
        _Choice(tuple(_numbers(part, word) for part in piece.split(","))) if number % 2 else piece
        for number, piece in enumerate(pieces)
        if number % 2 or piece
    ]


def _numbers(part: str, word: str) -> _Numbers:
    found = _PART.fullmatch(part)
    if found is None:
        raise InvalidName(
            f"{part!r:.40} in {word!r:.80} is no range of numbers up to 9 digits.", _EXAMPLE
        )
    first, last = found[1], found[2] or found[1]
    if int(first) > int(last):
        raise InvalidName(
            f"The range {part!r} in {word!r:.80} ends before it begins.",
            f"Write it [{last}-{first}].",
        )
    is_padded = any(len(number) > 1 and number[0] == "0" for number in (first, last))
    if is_padded and len(first) != len(last) and (len(first) > len(last) or last[0] == "0"):
        width = max(len(first), len(last))
        raise InvalidName(
            f"The numbers of the range {part!r} in {word!r:.80} have different numbers of digits.",
            f"Write it [{int(first):0{width}}-{int(last):0{width}}].",
        )
    return _Numbers(int(first), int(last), len(first) if is_padded else 0)
