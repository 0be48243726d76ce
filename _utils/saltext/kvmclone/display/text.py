"""Lay out text for a terminal: tables, wrapped sentences, hints that can be pasted. Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_GAP = "  "

#: Columns that may be this wide are cut further where nothing else can be, characters.
_WIDE = 20

#: Likewise of names.
_LONG = 12

#: What stands between two commands of one hint.
_NEXT_HINT = "   "

#: What stands before a command that ends a sentence.
_COMMAND = re.compile(r"(?<=:) (?=salt-run\s)")

#: The domain at the end of a host's name.
_DOMAIN = re.compile(r"(?<=[\w-])\.[A-Za-z][\w.-]*$")

#: Characters that nobody sees, and that turn the text after them around.
_INVISIBLE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u2069\\ufeff]"
)


@dataclass(frozen=True)
class Column:
    """
    One column of a table.

    :param least: Characters below which it is not cut, while others can be cut instead.
    :param right: Its cells stand at the right, as numbers do.
    :param names: Its cells are names: their ends tell them apart as much as their beginnings, so
        they are cut in the middle, and first by a domain that all of them share.
    """

    title: str
    least: int = 6
    right: bool = False
    names: bool = False


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int) -> list[str]:
    """
    Return a table with a heading, cut to a width where that can be done.

    :param rows: A cell for each column.
    :param width: Characters in a line.
    """
    titles = [column.title for column in columns]
    body = [[" ".join(cell.split()) for cell in row] for row in rows]
    if natural_width(columns, body) > width:
        body = _without_domains(columns, body)
    cells = [titles, *body]
    widths = [max(len(row[n]) for row in cells) for n in range(len(columns))]
    room = width - len(_GAP) * (len(columns) - 1)
    least = [max(column.least, len(column.title)) for column in columns]
    _shrink(widths, least, room)
    halved = [low // 2 if low >= (_LONG if c.names else _WIDE) else low
              for low, c in zip(least, columns, strict=True)]  # fmt: skip
    _shrink(widths, halved, room)
    return [_GAP.join(map(_fitted, row, widths, columns)).rstrip() for row in cells]


def _fitted(cell: str, width: int, column: Column) -> str:
    if column.names and len(cell) > width and "://" not in cell:
        shown = cut_middle(cell.removesuffix("…"), width)
    else:
        shown = cut(cell, width)
    return shown.rjust(width) if column.right else shown.ljust(width)


def _without_domains(columns: Sequence[Column], rows: list[list[str]]) -> list[list[str]]:
    """Return rows whose names lack the domain that all names of a column share."""
    for n, column in enumerate(columns):
        domains = {found[0] for row in rows if (found := _DOMAIN.search(row[n]))}
        if column.names and len(domains) == 1:
            (domain,) = domains
            for row in rows:
                row[n] = f"{row[n].removesuffix(domain)}…" if row[n].endswith(domain) else row[n]
    return rows


def _shrink(widths: list[int], least: Sequence[int], room: int) -> None:
    """Make columns narrower, those with most to spare first, until they fit or cannot be."""
    for _ in range(sum(widths) - room):
        spare = [have - low for have, low in zip(widths, least, strict=True)]
        if max(spare) <= 0:
            break
        widths[spare.index(max(spare))] -= 1


def natural_width(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    """Return how wide a table is where nothing of it is cut."""
    cells = [[column.title for column in columns], *rows]
    widths = [max(len(row[n]) for row in cells) for n in range(len(columns))]
    return sum(widths) + len(_GAP) * (len(columns) - 1)


def cut(text: str, width: int) -> str:
    """Return a text of at most ``width`` characters; what is cut off leaves a ``…``."""
    return text if len(text) <= width else f"{text[: max(0, width - 1)]}…"


def cut_middle(text: str, width: int) -> str:
    """Return a text of at most ``width`` characters with its beginning and its end."""
    tail = max(0, (width - 1) // 3)
    return text if len(text) <= width else cut(text, width - tail) + text[len(text) - tail :]


def cut_path(path: str, width: int) -> str:
    """Return a path of at most ``width`` characters, as far as its last part allows."""
    if len(path) <= width or "/" not in path:
        return path
    return f"…/{path.rpartition('/')[2]}"


def wrapped(sentence: str, width: int, first: str = "", rest: str | None = None) -> list[str]:
    """
    Return a text in lines; a long word, such as a path, stays whole.

    :param sentence: A line of it, such as one that a script printed, stays a line of its own.
    :param first: What the first line begins with, ``rest`` the others; as wide as ``first`` where
        it is None.
    """
    below = " " * len(first) if rest is None else rest
    return [
        line
        for number, part in enumerate(sentence.splitlines())
        for line in textwrap.wrap(
            part,
            width,
            initial_indent=below if number else first,
            subsequent_indent=below,
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]


def reason(sentence: str, width: int, first: str = "", rest: str | None = None) -> list[str]:
    """
    Return a sentence in lines; a command that ends it has a line of its own, to be pasted.

    :param first: See :func:`wrapped`, as for ``rest``.
    """
    said, *command = _COMMAND.split(sentence, maxsplit=1)
    below = " " * len(first) if rest is None else rest
    return [*wrapped(said, width, first, rest), *(f"{below}{one}" for one in command)]


def hint_parts(text: str) -> list[str]:
    """Return what a hint says to do, one thing after the other."""
    return [part.strip() for part in text.split(_NEXT_HINT) if part.strip()]


def hint(text: str, indent: str = "  ") -> list[str]:
    """Return a hint, each of its commands in one line, so that it can be pasted."""
    parts = hint_parts(text)
    return [f"{indent}{'Hint: ' if n == 0 else '      '}{part}" for n, part in enumerate(parts)]


def warnings(sentences: Iterable[str], width: int, indent: str = "  ") -> list[str]:
    """Return warnings, each marked with ``!``."""
    return [line for said in sentences for line in wrapped(said, width, f"{indent}! ")]


def pairs(rows: Iterable[tuple[str, Sequence[str]]], indent: str = "  ") -> list[str]:
    """
    Return keys with their values, one below the other; without value there is no line.

    :param rows: A key and the lines of its value.
    """
    shown = [(key, [line for line in lines if line]) for key, lines in rows]
    shown = [(key, lines) for key, lines in shown if lines]
    wide = max((len(key) for key, _lines in shown), default=0) + len(_GAP)
    return [
        f"{indent}{key if n == 0 else '':<{wide}}{line}"
        for key, lines in shown
        for n, line in enumerate(lines)
    ]


def visible(text: str) -> str:
    """Return a text with the characters written out that nobody would see."""
    return _INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def counted(number: int, thing: str) -> str:
    """Return a number with its noun: ``1 clone``, ``3 clones``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
