"""
Say how a command of ours is typed, and what is wrong with one that was typed otherwise.

Pure. All of it is derived from the signature of the command's function, so there is no table to
keep. Python's own words would tell a person who mistyped of positions and of keyword arguments.
"""

from __future__ import annotations

import difflib
import inspect
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from saltext.kvmclone.config.schema import KEYS
from saltext.kvmclone.config.validate import refuse_secrets
from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.model.redacted_text import HIDDEN

#: What selects machines where no name is given, in the commands that take it.
SELECTION = ("tag", "host", "profile", "base")

#: How a ``*parameter`` is called that may be left out: what it narrows is everything then.
OPTIONAL = "only_"


def arguments(keys: Mapping[str, Any], named: Iterable[str] = ("profile",)) -> list[str]:
    """
    Return keys as they are given as arguments, without values that may be secrets.

    :param named: Those that are no profile keys, and may be shown.
    """
    shown = {*named, *(key for key, known in KEYS.items() if known.visible)}
    return [
        f"{key}={_written(value) if key in shown else HIDDEN}"
        for key, value in keys.items()
        if value is not None
    ]


def _written(value: Any) -> str:
    # Of anything but text, JSON is also YAML.
    return str(value) if isinstance(value, (str, bool)) else json.dumps(value, default=str)


@dataclass(frozen=True)
class Command:
    """
    One of our commands.

    :param typed: How it begins: ``salt-run kvmclone.create``.
    :param parameters: Those of its function. One without a default has to be given; of ``*names``
        at least one, unless it comes as ``name=`` or ``names=``, or is selected otherwise.
    """

    typed: str
    parameters: tuple[Parameter, ...]

    @classmethod
    def of(cls, typed: str, function: Callable[..., Any]) -> Command:
        """Return the command that calls a function."""
        return cls(typed, tuple(inspect.signature(function).parameters.values()))

    def require(self, words: Sequence[Any], keywords: Mapping[str, Any]) -> None:
        """
        Refuse arguments that the function does not take, or that are too few.

        :param words: What was given by position.
        :param keywords: What was given by name.
        :raises SecretInArgument: One of them is, or looks like, a secret.
        :raises ConfigError: The first mistake; the hint is the command without it.
        """
        refuse_secrets({name: value for name, value in keywords.items() if name not in self._named})
        if text := next(self._mistakes(words, keywords), ""):
            switched = self._switched(words)
            left = [word for word in words if word not in switched]
            known = {self._meant(name): value for name, value in keywords.items()}
            raise ConfigError(text, self._line(left, {**known, **dict.fromkeys(switched, True)}))

    @property
    def name(self) -> str:
        """Return the name of the function."""
        return self.typed.rpartition(" ")[2]

    def _mistakes(self, words: Sequence[Any], keywords: Mapping[str, Any]) -> Iterator[str]:
        if unknown := [key for key in keywords if self._meant(key) != key]:
            meant = [right for key in unknown if (right := self._meant(key))]
            end = f". Did you mean {_listed(meant)}?" if meant else f"; it takes {self._taken()}."
            yield f"{self.name} does not take {_listed(unknown)}{end}"
        ordered = [one for one in self.parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        for one, word in zip(ordered, words, strict=False):
            if one.name in keywords:
                yield f"Which {one.name}? Both {word!r} and {keywords[one.name]!r} were given."
        for word in self._switched(words):
            yield f"'{word}' is a switch of {self.name}; write {word}=True."
        surplus = words[len(ordered) :]
        if surplus and not self._several:
            many = "is one word too many" if len(surplus) == 1 else "are too many words"
            yield f"{_listed(surplus)} {many}; {self.name} takes {self._taken()}."
        if missing := self._missing(len(words), keywords):
            read = [
                f" '{word}' was read as the {one.name}."
                for one, word in zip(ordered, words, strict=False)
            ]
            yield f"Which {' and which '.join(missing)}?{''.join(read)}"

    @property
    def _named(self) -> list[str]:
        kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
        return [one.name for one in self.parameters if one.kind in kinds]

    def _switched(self, words: Sequence[Any]) -> list[Any]:
        """Return the words that are the names of switches; the first ones may be a clone's."""
        required = [
            one
            for one in self.parameters
            if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
        ]
        switches = [one.name for one in self.parameters if isinstance(one.default, bool)]
        first = max(len(required), bool(self._several))
        return [word for word in words[first:] if word in switches]

    @property
    def _several(self) -> str:
        """Return the name of ``*names``; empty for a function without."""
        kinds = {one.kind: one.name for one in self.parameters}
        return kinds.get(Parameter.VAR_POSITIONAL, "")

    def _meant(self, keyword: str) -> str:
        """Return the keyword as it is right; empty where none is near."""
        any_key = any(one.kind is one.VAR_KEYWORD for one in self.parameters)
        if keyword == self._several or keyword in self._named or (any_key and keyword in KEYS):
            return keyword if any_key or keyword in self._named else ""
        close = difflib.get_close_matches(keyword, self._named, n=1, cutoff=0.75)
        # Which profile keys there are is checked later, all of them at once.
        return close[0] if close else keyword if any_key else ""

    def _missing(self, words: int, keywords: Mapping[str, Any]) -> list[str]:
        missing = []
        for one in self.parameters:
            if one.kind is one.VAR_POSITIONAL:
                missing += [one.name.removesuffix("s")] if self._unnamed(words, keywords) else []
            elif one.kind is one.POSITIONAL_OR_KEYWORD and one.name not in keywords:
                words -= 1
                if words < 0 and one.default is one.empty:
                    missing.append(one.name.replace("_", " "))
        return missing

    def _unnamed(self, words: int, keywords: Mapping[str, Any]) -> bool:
        """Return whether no name is left for ``*names``, and nothing selects the machines."""
        selecting = [
            one.name
            for one in self.parameters
            if one.kind is one.KEYWORD_ONLY and one.name in SELECTION
        ]
        instead = (self._several, "name", *selecting)
        if self._several.startswith(OPTIONAL):
            return False
        return words <= 0 and all(keywords.get(key) is None for key in instead)

    def _taken(self) -> str:
        """Return what the command takes, as it is typed."""
        shown = [one for one in self.parameters if not (self._several and one.name == "name")]
        return " ".join(map(_form, shown)) or "no arguments"

    def _line(self, words: Sequence[Any], keywords: Mapping[str, Any]) -> str:
        """Return the command with what was given, and with a word for what is missing."""
        left, named = list(words), {key: value for key, value in keywords.items() if key}
        parts: list[str] = []
        for one in self.parameters:
            required = one.default is one.empty
            if one.kind is one.VAR_POSITIONAL:
                unnamed = self._unnamed(len(left), keywords)
                parts += [_one_of(one)] if unnamed else map(_written, left)
            elif one.kind is one.VAR_KEYWORD:
                continue
            elif required and one.name in named:
                value = named.pop(one.name)
                both = left.pop(0) if left and not self._several else None
                # Where there are names, the word that stands there may be the first of them.
                parts.append(_written(value) if both is None else one.name.upper())
            elif left and one.kind is one.POSITIONAL_OR_KEYWORD:
                word = _written(left.pop(0))
                parts += [word] if one.name not in named else []
            elif required:
                parts.append(one.name.upper())
        parts += arguments(named, self._named)
        return " ".join([self.typed, *map(shlex.quote, parts)])


def _one_of(several: Parameter) -> str:
    """Return the word for one of several: of ``*names``, ``*hosts`` or ``*only_hosts``."""
    return several.name.removeprefix(OPTIONAL)[:-1].upper()


def _form(one: Parameter) -> str:
    word = one.name.upper()
    if one.kind is one.VAR_POSITIONAL:
        word, optional = _one_of(one), one.name.startswith(OPTIONAL)
        return f"[{word}…]" if optional else f"{word} [{word}…]"
    if one.kind is one.VAR_KEYWORD:
        return "[KEY=VALUE…]"
    if one.default is one.empty:
        return word
    if isinstance(one.default, bool):
        return f"[{one.name}={not one.default}]"
    return f"[{one.name}={one.default or word}]"


def _listed(words: Iterable[Any]) -> str:
    return ", ".join(f"'{word}'" for word in words)
