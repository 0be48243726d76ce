"""
Turn dataclasses into plain data and back, by their fields and type hints.

What is read may be anybody's: a hostile host's answer, a file that was edited. So every value is
held against its type hint, and what does not fit is refused; nothing is dropped or converted.
"""

from __future__ import annotations

import base64
import collections.abc
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """
    Return a value as JSON can hold it; :func:`from_plain` reads it back.

    :param value: A dataclass, or mappings and sequences of such; bytes become base64.
    """
    if dataclasses.is_dataclass(value):
        return {
            field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(to_plain, value))
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def from_plain(kind: type[T], data: Any) -> T:
    """
    Return the value of a type that :func:`to_plain` made plain.

    A field with a default may be missing, so that what an earlier version wrote is still read.

    :param kind: A dataclass, or any type hint made of ``str``, ``int``, ``float``, ``bool``,
        ``bytes``, ``None``, ``Any``, dataclasses, lists, tuples, sets, mappings and sequences.
    :raises ValueError: A field is unknown, missing or of another type; says which, and quotes no
        value.
    """
    value: T = _read(kind, data, getattr(kind, "__name__", "it"))
    return value


def _read(kind: Any, data: Any, where: str) -> Any:
    if kind is Any:
        return data
    if dataclasses.is_dataclass(kind):
        return _object(kind, data, where)
    parts = typing.get_args(kind)
    origin = typing.get_origin(kind) or kind
    if origin in (typing.Union, types.UnionType):
        chosen = [part for part in parts if part is not type(None)]
        return None if data is None else _read(chosen[0], data, where)
    if origin is typing.Annotated:
        return _read(parts[0], data, where)
    if origin in (str, int, float, bool, bytes):
        return _scalar(origin, data, where)
    if origin in (dict, collections.abc.Mapping):
        _require(data, dict, where)
        return {
            _scalar(str, key, f"a key of {where}"): _read(parts[1], item, f"{where}[{key!r:.60}]")
            for key, item in data.items()
        }
    _require(data, (list, tuple), where)
    if origin is tuple and parts[-1] is not Ellipsis:
        if len(data) != len(parts):
            raise ValueError(f"{where} has {len(data)} items instead of {len(parts)}")
        kinds: Any = parts
    else:
        kinds = [parts[0]] * len(data)
    read = (_read(kinds[n], item, f"{where}[{n}]") for n, item in enumerate(data))
    return (list if origin is collections.abc.Sequence else origin)(read)


@functools.cache
def hints(kind: Any) -> dict[str, Any]:
    """Return the type hints of a dataclass's fields, by name."""
    return typing.get_type_hints(kind, include_extras=True)


def _object(kind: Any, data: Any, where: str) -> Any:
    _require(data, dict, where)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := [key for key in data if key not in fields]:
        raise ValueError(f"{where} has a field that is not known: {unknown[0]!r:.60}")
    for name, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise ValueError(f"{where} lacks '{name}'")
    return kind(**{key: _read(hints(kind)[key], data[key], f"{where}.{key}") for key in data})


def _scalar(kind: Any, data: Any, where: str) -> Any:
    if kind is bytes:
        text = _scalar(str, data, where)
        try:
            return base64.b64decode(text, validate=True)
        except ValueError as error:
            raise ValueError(f"{where} is not base64") from error
    if kind is float and type(data) is int:
        data = float(data) if abs(data) < 2**1000 else math.inf
    _require(data, kind, where, but=bool if kind is int else ())
    if kind is float and not math.isfinite(data):
        raise ValueError(f"{where} is not a finite number")
    return data


def _require(data: Any, wanted: Any, where: str, but: Any = ()) -> None:
    if not isinstance(data, wanted) or isinstance(data, but):
        name = "list" if isinstance(wanted, tuple) else wanted.__name__
        raise ValueError(f"{where} is {type(data).__name__} instead of {name}")
