"""What is read back is what was written; what was not written like that is refused."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.model.clone import Address, Clone, CloneDisk
from saltext.kvmclone.model.enrolment import Enrolment, GuestFile
from saltext.kvmclone.model.host_reports import CloneReport, Daemon, HostReport
from saltext.kvmclone.model.leftovers import Leftover, Unfinished
from saltext.kvmclone.model.plain import from_plain, to_plain
from saltext.kvmclone.model.record import Minion, Owner, Work
from saltext.kvmclone.model.request import DiskChanges, InterfaceChanges, Request, Secrets

TEXT = st.text(max_size=8)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
WIRE = [Request, Clone, Unfinished, Leftover, Work, Owner, Minion, Enrolment, Daemon, HostReport]


@dataclasses.dataclass(frozen=True)
class Part:
    number: int
    share: float = 1.0


@dataclasses.dataclass(frozen=True)
class Whole:
    """A field of every type that there is."""

    name: str
    parts: tuple[Part, ...]
    pair: tuple[str, int] = ("a", 1)
    data: bytes = b""
    maybe: int | None = None
    named: dict[str, Part] = dataclasses.field(default_factory=dict)
    listed: list[str] = dataclasses.field(default_factory=list)
    some: frozenset[str] = frozenset()
    free: dict[str, Any] = dataclasses.field(default_factory=dict)
    sure: bool = False
    part: Part = Part(1)


WHOLE = Whole(
    "web1", (Part(1), Part(2, 0.5)), ("b", 2), bytes(range(256)), 7, {"x": Part(3)}, ["y"],
    frozenset("ba"), {"k": [1, {"l": None}]}, True, Part(9),
)  # fmt: skip


def travelled(value: Any) -> Any:
    return json.loads(json.dumps(to_plain(value)))


def test_a_field_of_every_type_survives_the_journey() -> None:
    defaults = Whole("", ())
    names = [field.name for field in dataclasses.fields(Whole)]
    assert all(getattr(WHOLE, name) != getattr(defaults, name) for name in names)
    assert from_plain(Whole, travelled(WHOLE)) == WHOLE
    assert from_plain(Whole, travelled(defaults)) == defaults


def test_what_the_master_and_a_host_tell_each_other_survives_the_journey() -> None:
    address = Address("eth0", "52:54:00:00:00:01", "192.0.2.7", 24, "ipv4", "lease")
    clone = Clone(
        "web1", "uuid", "kvm01", "base", "p", "quick", "running", "ready", "192.0.2.7", (address,),
        (CloneDisk("vda", "/p/a", "qcow2", "overlay"),), Minion("web1"), ("w",), True, {"a": 1.5},
    )  # fmt: skip
    request = Request(
        "web1", "base", disks={"vda": DiskChanges(7)}, networks=(InterfaceChanges("lan"),),
        tags=("a",), overrides={"cpus": 2},
    )  # fmt: skip
    enrolment = Enrolment(
        "web1", {"master": "m"}, script_env={"A": "b"}, secrets=Secrets("pw", stored=("s",)),
        files=(GuestFile("/a", bytes(range(256)), 0o600),), remarks=("r",),
    )  # fmt: skip
    known = HostReport(("web1",), (CloneReport("web1", "0" * 36, "ready", "", "", ""),), ("x",))
    for value in (clone, request, enrolment, known):
        assert from_plain(type(value), travelled(value)) == value


@pytest.mark.parametrize("kind", WIRE)
@given(data=st.data())
def test_whatever_a_hostile_host_says_is_refused_or_of_the_type(kind: type, data: Any) -> None:
    """Also in one field of an answer that is right otherwise; no other error escapes."""
    told = data.draw(ANYTHING)
    names = [field.name for field in dataclasses.fields(kind)]
    whole = travelled(_example(kind))
    whole[data.draw(st.sampled_from(names))] = told
    for said in (told, whole):
        try:
            found = from_plain(kind, said)
        except ValueError:
            continue
        assert from_plain(kind, travelled(found)) == found


def _example(kind: type) -> Any:
    filled: dict[Any, Any] = {
        Unfinished: lambda: Unfinished("n", Work(Owner(), "dead", "", "", ""), Minion(), ()),
        Work: lambda: Work(Owner(), "dead", "", "", ""),
        Clone: lambda: Clone(*[""] * 8),
        Request: lambda: Request("n", "b"),
        Leftover: lambda: Leftover("n", "volume", "", ""),
        Enrolment: lambda: Enrolment("n"),
        Daemon: lambda: Daemon("", "", "", "", "", frozenset(), frozenset()),
    }
    return filled.get(kind, kind)()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"extra": 1}, "Whole has a field that is not known: 'extra'"),
        ({"name": None}, "Whole.name is NoneType instead of str"),
        ({"name": 7}, "Whole.name is int instead of str"),
        ({"sure": 1}, "Whole.sure is int instead of bool"),
        ({"maybe": True}, "Whole.maybe is bool instead of int"),
        ({"maybe": 1.0}, "Whole.maybe is float instead of int"),
        ({"maybe": "1"}, "Whole.maybe is str instead of int"),
        ({"part": []}, "Whole.part is list instead of dict"),
        ({"part": {}}, "Whole.part lacks 'number'"),
        ({"part": {"number": 1, "share": math.nan}}, "Whole.part.share is not a finite number"),
        ({"part": {"number": 1, "share": 10**400}}, "Whole.part.share is not a finite number"),
        ({"part": {"number": 1, "share": True}}, "Whole.part.share is bool instead of float"),
        ({"parts": {}}, "Whole.parts is dict instead of list"),
        ({"parts": "x"}, "Whole.parts is str instead of list"),
        ({"parts": [{"number": 1}, 7]}, r"Whole.parts\[1\] is int instead of dict"),
        ({"pair": ["a"]}, "Whole.pair has 1 items instead of 2"),
        ({"pair": [1, "a"]}, r"Whole.pair\[0\] is int instead of str"),
        ({"data": "?"}, "Whole.data is not base64"),
        ({"data": "ä"}, "Whole.data is not base64"),
        ({"named": {"x": 1}}, r"Whole.named\['x'\] is int instead of dict"),
        ({"named": {1: {"number": 1}}}, "a key of Whole.named is int instead of str"),
        ({"some": [["x"]]}, r"Whole.some\[0\] is list instead of str"),
        ({"free": []}, "Whole.free is list instead of dict"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_the_field(
    change: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        from_plain(Whole, {**to_plain(WHOLE), **change})


def test_a_missing_field_is_refused_and_one_with_a_default_is_what_an_earlier_version_wrote() -> (
    None
):
    whole = to_plain(WHOLE)
    del whole["maybe"]
    assert from_plain(Whole, whole) == dataclasses.replace(WHOLE, maybe=None)
    del whole["parts"]
    with pytest.raises(ValueError, match="Whole lacks 'parts'"):
        from_plain(Whole, whole)


def test_a_refusal_quotes_no_value() -> None:
    enrolment = to_plain(Enrolment("web1", secrets=Secrets(password="canary")))
    for wrong in ({"minion_id": ["canary"]}, {"secrets": {"password": ["canary"]}}):
        with pytest.raises(ValueError) as caught:
            from_plain(Enrolment, {**enrolment, **wrong})
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (list[Part], [{"number": 1, "share": 1.0}]),
        (list[dict[str, Any]], [{"a": 1}]),
        (Sequence[str], ["a"]),
        (Mapping[str, str], {"a": "b"}),
        (Annotated[Mapping[str, str], "x"], {"a": "b"}),
        (dict[str, float], {"a": 1.0}),
    ],
    ids=str,
)
def test_the_types_of_parameters_and_answers_are_read_alike(kind: Any, data: Any) -> None:
    assert to_plain(from_plain(kind, data)) == data
    for wrong in (None, 7, "x", [7], {"a": []}):
        with pytest.raises(ValueError):
            from_plain(kind, wrong)


def test_whole_seconds_are_seconds() -> None:
    found = from_plain(Part, {"number": 1, "share": 2})
    assert (found.share, type(found.share)) == (2.0, float)


@given(keys=st.dictionaries(TEXT, PLAIN, max_size=3))
def test_what_is_free_arrives_as_it_is(keys: dict[str, Any]) -> None:
    request = Request("web1", "base", overrides=keys)
    assert from_plain(Request, travelled(request)) == request
