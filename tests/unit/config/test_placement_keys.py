"""Hosts and placement as they are written, and the master's limits: all that is wrong at once."""

from __future__ import annotations

from typing import Any

import pytest
import salt.config
import yaml

from saltext.kvmclone.config import cloud_files
from saltext.kvmclone.config.catalogue import build
from saltext.kvmclone.config.placement_keys import FleetSettings, settings
from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.model.placement import (
    PACK,
    ROUND_ROBIN,
    SPREAD,
    HostLimits,
    Placed,
    Placement,
)
from saltext.kvmclone.model.request import Request
from tests.support.catalogues import BASE, LOCAL, catalogue_of, message_of, profile, provider

GIB = 2**30
FLEET = {"driver": "libvirt", "hosts": ["kvm01", "kvm02"]}


def wish(keys: dict[str, Any], provider_keys: dict[str, Any] = FLEET, **given: Any) -> Placement:
    found = catalogue_of(keys, provider_keys)
    return found.resolve("small", "web1", given)[0].placement


@pytest.mark.parametrize(
    ("written", "found"),
    [
        (None, Placement(("kvm01", "kvm02"))),
        ("spread", Placement(("kvm01", "kvm02"), order=SPREAD)),
        ("most-free-memory", Placement(("kvm01", "kvm02"), order=SPREAD)),
        ("round-robin", Placement(("kvm01", "kvm02"), order=ROUND_ROBIN)),
        ({"order": "pack", "push": False}, Placement(("kvm01", "kvm02"), order=PACK)),
        ({"push": True}, Placement(("kvm01", "kvm02"), push=True)),
        (
            {"apart": "db", "required": True},
            Placement(("kvm01", "kvm02"), apart="db", required=True),
        ),
    ],
)
def test_a_placement_is_a_word_or_a_mapping(written: Any, found: Placement) -> None:
    assert wish({"placement": written, "tags": ["db"]}) == found


def test_hosts_are_a_list_or_an_expression() -> None:
    assert wish({}, {"driver": "libvirt", "hosts": "kvm*"}) == Placement(expression="kvm*")
    compound = "G@role:kvm and not kvm03"
    assert wish({"hosts": compound}) == Placement(expression=compound)
    assert wish({"hosts": ["kvm03"]}) == Placement(("kvm03",))


def test_of_host_and_hosts_the_nearer_one_counts() -> None:
    pinned = catalogue_of({"placement": "pack"}, FLEET).resolve("small", "web1", {"host": "kvm09"})
    assert pinned[0].host == "kvm09"
    assert not pinned[0].placement.is_wanted
    spread = catalogue_of({"hosts": ["a"]}, {"driver": "libvirt", "host": "b"})
    assert spread.resolve("small", "web1")[0].host == ""
    assert spread.resolve("small", "web1", {"host": "c"})[0].host == "c"
    assert wish({"host": "b"}, FLEET, hosts=["c"]) == Placement(("c",))


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"placement": "free"}, "'free' is not one of spread, pack, fewest-clones, round-robin"),
        ({"placement": "sprad"}, "For example: placement: spread"),
        ({"placement": {"oder": "pack"}}, "did you mean 'order'"),
        ({"placement": {"push": "now"}}, "'now' is not true or false"),
        ({"placement": {"required": True}}, "required needs apart"),
        ({"placement": {"apart": "db"}}, "'tags' does not have it"),
        ({"placement": {"apart": "db"}, "tags": "web"}, "'tags' does not have it"),
        ({"hosts": []}, "is not a Salt target expression or a list of minion ids"),
        ({"hosts": ["kvm*"]}, "'kvm*' in the list is no minion id"),
        ({"hosts": ["kvm01", "kvm01"]}, "kvm01 stands in the list twice"),
        ({"hosts": 7}, "7 is not a Salt target expression"),
        ({"host": "a", "hosts": "b"}, "excludes 'host'"),
        ({"url": "qemu+ssh://kvm01/system"}, "names one machine"),
    ],
)
def test_what_is_wrong_is_named_where_it_stands(keys: dict[str, Any], text: str) -> None:
    sections = [provider("local-kvm", FLEET), profile("small", {**BASE, **keys})]
    assert text in message_of(*sections)
    with pytest.raises(ConfigError):
        build(sections).resolve("small", "web1")


def test_a_placement_without_hosts_does_nothing_and_says_so() -> None:
    sections = [provider("local-kvm", LOCAL), profile("small", {**BASE, "placement": "pack"})]
    assert "'hosts', which is missing" in message_of(*sections)
    below = provider("local-kvm", {**LOCAL, "placement": "pack"})
    found = build([below, profile("small", {**BASE, "hosts": "kvm*"})])
    assert found.problems.found == ()
    both = {"driver": "libvirt", "host": "a", "hosts": "b"}
    assert "excludes 'host'" in message_of(provider("p", both))


def test_an_argument_is_held_against_the_same_rules() -> None:
    found = catalogue_of({}, FLEET)
    for given in ({"placement": "free"}, {"placement": {"apart": "x"}}, {"hosts": ["a b"]}):
        with pytest.raises(ConfigError):
            found.resolve("small", "web1", given)


def test_a_host_takes_what_names_it_and_leaves_the_rest_to_the_master() -> None:
    found = catalogue_of({}, FLEET)
    request, _ = found.resolve_here("web1", {"profile": "small"}, "kvm01")
    assert not request.placement.is_wanted
    for keys in ({}, {"hosts": "kvm*"}):
        with pytest.raises(ConfigError, match="one of several KVM hosts") as refused:
            found.resolve_here("web1", {"profile": "small", **keys}, "kvm03")
        assert "salt-run kvmclone.create small web1" in refused.value.hint
    assert found.resolve_here("web1", {"profile": "small", "host": "kvm03"}, "kvm03")


def test_where_it_was_placed_makes_no_other_request_of_it() -> None:
    request = Request("web1", "base", placement=Placement(("kvm01", "kvm02")))
    for host in ("kvm01", "kvm02"):
        for placed in (Placed(), Placed(HostLimits(cpu_ratio=2), 7.0)):
            there = Request("web1", "base", host=host, placed=placed)
            assert there.digest() == request.digest()
    assert Request("web1", "base", host="kvm01").digest() != request.digest()
    assert Request("web1", "base").digest() == request.digest()


# --- the master's configuration -------------------------------------------------------


def test_a_host_has_its_own_limits_and_those_of_every_host() -> None:
    found, faults = settings(
        {
            "hosts": {
                "*": {"reserve": {"memory": "4GiB", "disk": "50GiB"}, "cpu_ratio": 4},
                "kvm01": {"reserve": {"memory": 0}, "maintenance": True},
                "kvm02": None,
            },
            "at_once": 50,
            "at_once_per_pool": "1",
            "providers": {},
        }
    )
    assert faults == []
    every = HostLimits(4 * GIB, 50 * GIB, 4)
    assert found.limits("kvm02") == found.limits("any") == every
    assert found.limits("kvm01") == HostLimits(0, 50 * GIB, 4, maintenance=True)
    assert (found.at_once, found.at_once_per_host, found.at_once_per_pool) == (50, 8, 1)


@pytest.mark.parametrize("section", [None, {}, {"hosts": None}, {"providers": {}}])
def test_without_any_there_are_defaults(section: Any) -> None:
    assert settings(section) == (FleetSettings(), [])


def test_all_that_is_wrong_with_the_limits_is_said_at_once() -> None:
    _found, faults = settings(
        {
            "hosts": {
                "kvm*": {},
                7: {},
                "kvm01": {"reserve": {"memory": "lots"}},
                "kvm02": {"cpu_ratio": 0},
                "kvm03": {"maintenance": "yes"},
                "kvm04": {"ratio": 2},
                "kvm05": 3,
            },
            "at_once": 0,
            "at_once_per_host": True,
        }
    )
    assert [key for key, _text in faults] == [
        "at_once", "at_once_per_host", "hosts", "hosts", "hosts:kvm01", "hosts:kvm02",
        "hosts:kvm03", "hosts:kvm04", "hosts:kvm05",
    ]  # fmt: skip
    assert "reserve: memory: 'lots' is not a size" in dict(faults)["hosts:kvm01"]
    assert "did you mean 'cpu_ratio'" in dict(faults)["hosts:kvm04"]
    assert settings({"hosts": ["kvm01"]})[1][0][0] == "hosts"
    assert settings({"at_once_per_hosts": 2})[1] == [
        ("at_once_per_hosts", "there is no such key; did you mean 'at_once_per_host'?")
    ]


def test_wrong_limits_are_a_problem_of_the_configuration_and_hide_no_host(tmp_path: Any) -> None:
    path = tmp_path / "master"
    part = {"hosts": {"kvm01": {"cpu_ratio": "x"}}, "at_once": -1}
    path.write_text(yaml.safe_dump({"root_dir": str(tmp_path), "kvm_clone": part}))
    opts = salt.config.master_config(str(path))
    problems = cloud_files.read(opts).problems
    assert [one.key for one in problems.found] == ["at_once", "hosts:kvm01"]
    assert problems.forbidding_gone() is None
    assert problems.hiding_hosts() == {}
    with pytest.raises(ConfigError, match="2 problems"):
        cloud_files.fleet_settings(opts)
    assert cloud_files.fleet_settings({}) == FleetSettings()
