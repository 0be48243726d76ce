"""Two names are shown as one daemon only where everything says that they are one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from saltext.kvmclone.errors import HostUnreachable
from saltext.kvmclone.hosts import daemons
from saltext.kvmclone.model.host_reports import Daemon

SAME = Daemon("h", "kvm01", "QEMU", "system", "", frozenset(), frozenset())


class Host:
    """A daemon that says one thing after the other of itself, the last one for ever."""

    def __init__(self, *told: Any, **keys: Any) -> None:
        self.told = [self.full(one, keys) for one in told]

    @staticmethod
    def full(one: Any, keys: dict[str, Any]) -> Any:
        return replace(SAME, domains=frozenset(one), **keys) if isinstance(one, str) else one

    def daemon(self) -> Any:
        told = self.told.pop(0) if len(self.told) > 1 else self.told[0]
        if isinstance(told, Exception):
            raise told
        return told


def grouped(*hosts: Host) -> daemons.Grouping:
    labels = "abcdef"
    return daemons.group(list(zip(labels, hosts, strict=False)))  # type: ignore[arg-type]


def test_names_of_one_daemon_are_one_group_under_the_first_of_them() -> None:
    found = grouped(Host("xy"), Host("zw", uuid="other"), Host("xy"))
    assert found.groups == (("a", "c"), ("b",))
    assert found.collisions == ()


@pytest.mark.parametrize(
    "other",
    [
        {"uuid": "h2"},
        {"name": "kvm02"},
        {"driver": "LXC"},
        {"mode": "session", "user": "eve"},
        {"user": "eve"},
    ],
    ids=str,
)
def test_where_anything_differs_they_are_two_although_the_machines_agree(
    other: dict[str, str],
) -> None:
    """A host's whole image may have been copied, machines and all."""
    assert grouped(Host("xy"), Host("xy", **other)).groups == (("a",), ("b",))


def test_a_host_uuid_that_a_vendor_shipped_twice_is_a_collision_and_not_one_host() -> None:
    found = grouped(Host("xy"), Host("zw"), Host("xy"))
    assert found.groups == (("a", "c"), ("b",))
    assert found.collisions == (("a", "b"),)


def test_system_and_session_of_one_host_are_no_collision() -> None:
    assert grouped(Host("xy"), Host("z", mode="session", user="eve")).collisions == ()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("x", "xy"), ("xy",)),  # defined between the two looks
        (("xy", "x"), ("x",)),  # removed
        (("xy", "xz"), ("x",)),  # both
        (("xy", "xz"), ("xyz",)),
        (("", "x"), ("x",)),  # the first machine of all
    ],
)
def test_a_machine_that_comes_or_goes_between_two_looks_does_not_make_two_of_one(
    first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    assert grouped(Host(*first), Host(*second)).groups == (("a", "b"),)


def test_one_machine_that_both_have_does_not_make_one_of_two() -> None:
    """It was copied from one to the other, say."""
    found = grouped(Host("xy"), Host("xz"))
    assert found.groups == (("a",), ("b",))
    assert found.collisions == (("a", "b"),)


def test_without_machines_pools_and_networks_tell() -> None:
    assert grouped(Host("", others=frozenset("p")), Host("", others=frozenset("p"))).groups == (
        ("a", "b"),
    )
    assert grouped(Host("", others=frozenset("p")), Host("", others=frozenset("q"))).groups == (
        ("a",),
        ("b",),
    )


def test_two_that_have_nothing_at_all_are_shown_as_two() -> None:
    """They could be one or not; a host that is not shown would be the worse mistake."""
    found = grouped(Host(""), Host(""))
    assert found.groups == (("a",), ("b",))
    assert found.collisions == ()


@pytest.mark.parametrize("mute", [HostUnreachable("older modules"), replace(SAME, uuid="")])
def test_who_does_not_tell_is_one_of_its_own(mute: Any) -> None:
    host = Host("xy")
    host.told = [mute]
    assert grouped(Host("xy"), host, host).groups == (("a",), ("b",), ("c",))
