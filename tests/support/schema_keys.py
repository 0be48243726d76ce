"""The places of libvirt's own schema whose values it leaves to whoever writes a definition."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from lxml import etree

from tests.unit.plan.rewrite.test_schema import PLACES

_RNG = "{http://relaxng.org/ns/structure/1.0}"

_PARTS = tuple(f"{_RNG}{name}" for name in ("element", "attribute", "text", "data"))

#: Data types that hold a number.
_NUMBERS = ("int", "long", "short", "byte", "double", "integer")


class _Schema:
    def __init__(self, path: Path) -> None:
        self.defined: dict[str, list[etree._Element]] = {}
        self.starts: list[etree._Element] = []
        self._read: set[Path] = set()
        self._load(path)
        self._walked: set[tuple[str, int | None, str]] = set()

    def _load(self, path: Path) -> None:
        if path in self._read:
            return
        self._read.add(path)
        root = etree.parse(str(path)).getroot()
        for one in root.iter(f"{_RNG}include"):
            self._load(path.parent / one.get("href", ""))
        for one in root.iter(f"{_RNG}define"):
            self.defined.setdefault(one.get("name", ""), []).append(one)
        if path.name == "domain.rng":
            self.starts = root.findall(f"{_RNG}start")

    def parts(self, node: etree._Element, seen: tuple[str, ...] = ()) -> Iterator[etree._Element]:
        """What a pattern consists of, references followed, up to attributes and elements."""
        for child in node.iterchildren(etree.Element):
            if child.tag == f"{_RNG}ref":
                name = child.get("name", "")
                for one in self.defined.get(name, []) if name not in seen else []:
                    yield from self.parts(one, (*seen, name))
            elif child.tag in (f"{_RNG}element", f"{_RNG}attribute") or child.tag in (
                f"{_RNG}text",
                f"{_RNG}data",
            ):
                yield child
            else:
                yield from self.parts(child, seen)

    def is_free(self, node: etree._Element) -> bool:
        """Whether a value may be any text, or any word."""
        for part in self.parts(node):
            if part.tag == f"{_RNG}text":
                return True
            if part.tag == f"{_RNG}data" and not part.get("type", "").lower().endswith(_NUMBERS):
                patterns = [one.text or "" for one in part.findall(f"{_RNG}param[@name='pattern']")]
                if not patterns or any(_takes_words(pattern) for pattern in patterns):
                    return True
        return node.tag == f"{_RNG}attribute" and len(node) == 0

    def walk(self, node: etree._Element, place: str) -> Iterator[str]:
        """Every free place below a pattern."""
        for part in self.parts(node):
            name = part.get("name", "")
            if part.tag == f"{_RNG}attribute" and name and self.is_free(part):
                yield f"{place}@{name}"
            if part.tag != f"{_RNG}element" or not name:
                continue
            inner = f"{place}/{name}" if place else name
            key = (str(part.base), part.sourceline, "/".join(inner.split("/")[-2:]))
            if key in self._walked:
                continue
            self._walked.add(key)
            if self.is_free(part):
                yield inner
            yield from self.walk(part, inner)


def _takes_words(pattern: str) -> bool:
    """Whether a pattern is more than digits, a bus address or the first letters of a path."""
    element = etree.fromstring(
        f"<element xmlns='{_RNG[1:-1]}' name='a' datatypeLibrary="
        "'http://www.w3.org/2001/XMLSchema-datatypes'><data type='string'/></element>"
    )
    data = element[0]
    param = etree.SubElement(data, f"{_RNG}param", name="pattern")
    param.text = pattern
    taken = etree.Element("a")
    taken.text = "canary7f3a"
    return etree.RelaxNG(element).validate(taken)


@cache
def free_places() -> frozenset[str]:
    """Every free place of a domain's definition, as ``devices/disk/source@file``."""
    path = next(place for place in map(Path, PLACES) if place.exists())
    schema = _Schema(path)
    (start,) = schema.starts
    (domain,) = [part for part in schema.parts(start) if part.tag == f"{_RNG}element"][:1]
    return frozenset(schema.walk(domain, ""))
