"""One host is found that has a base; where that is not one, it is said which there are."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from saltext.kvmclone.errors import ConfigError, HostUnreachable, KvmCloneError, NotFound
from saltext.kvmclone.master import base_hosts
from saltext.kvmclone.model.base_content import BaseState
from tests.support.base_hosts import GOLD, RUST, Host, hosts_of


def host(name: str, digest: str = "") -> Host:
    return Host(name, BaseState("debian12", digest))


def found(*hosts: Host, besides: Collection[str] = (), alike: bool = False) -> str:
    return base_hosts.host_of(
        hosts_of(*hosts),
        "debian12",
        lambda one: base_hosts.state_of(one, "debian12"),
        "use {}".format,
        besides,
        alike,
    )


def test_the_only_host_that_has_it_is_found() -> None:
    other = Host("kvm01", BaseState("rocky9", GOLD, marked=True))
    assert found(other, host("kvm02")) == "kvm02"
    assert found(host("kvm01"), host("kvm02"), besides=["kvm01"]) == "kvm02"


def test_of_several_one_is_found_only_where_their_contents_are_known_to_be_the_same() -> None:
    same = host("kvm02", GOLD), host("kvm01", GOLD)
    assert found(*same, alike=True) == "kvm01"
    for hosts, alike in (
        (same, False),
        ((host("kvm02", GOLD), host("kvm01", RUST)), True),
        ((host("kvm02"), host("kvm01")), True),
    ):
        with pytest.raises(ConfigError, match="kvm01, kvm02") as refused:
            found(*hosts, alike=alike)
        assert "use kvm01" in refused.value.hint


@pytest.mark.parametrize(
    ("hosts", "error", "words"),
    [
        ([Host("kvm01")], NotFound, "No host has a base 'debian12'"),
        ([Host("kvm01", base_states=HostUnreachable("down"))], HostUnreachable, "kvm01"),
    ],
)
def test_it_is_missing_only_where_every_host_has_answered(
    hosts: list[Host], error: type[KvmCloneError], words: str
) -> None:
    with pytest.raises(error, match=words):
        found(Host("kvm02"), *hosts)
