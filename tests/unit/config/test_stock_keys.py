"""Spares as a profile asks for them: what cannot be kept is refused where it is written."""

from __future__ import annotations

from typing import Any

import pytest

from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.model.spares import Stock
from tests.support.catalogues import BASE, LOCAL, catalogue_of, message_of, profile, provider


@pytest.mark.parametrize(
    ("keys", "stock"),
    [
        ({}, Stock()),
        ({"spares": 0}, Stock()),
        ({"spares": 3}, Stock(3)),
        ({"spares": "3", "spare_names": "ci-{id}.example.org"}, Stock(3, "ci-{id}.example.org")),
        ({"spares": 0, "deploy": False}, Stock()),
        ({"spare_names": "ci-{id}", "deploy": False}, Stock(0, "ci-{id}")),
    ],
)
def test_spares_are_a_number_and_a_pattern_of_names(keys: dict[str, Any], stock: Stock) -> None:
    assert catalogue_of(keys).resolve("small", "web1")[0].stock == stock


def test_a_provider_may_ask_for_the_spares_of_its_profiles() -> None:
    request, _secrets = catalogue_of({}, {**LOCAL, "spares": 2}).resolve("small", "web1")
    assert request.stock == Stock(2)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"spares": -1}, "-1 is not a whole number"),
        ({"spares": 1.5}, "1.5 is not a whole number"),
        ({"spares": True}, "True is not a whole number"),
        ({"spares": 5000}, "5000 is not a whole number"),
        ({"spares": "many"}, "'many' is not a whole number"),
        ({"spare_names": "ci"}, "do not have {id} in them once"),
        ({"spare_names": "{id}{id}"}, "do not have {id} in them once"),
        ({"spare_names": "ci_{id}"}, "cannot be used: it contains '_'"),
        ({"spare_names": 7}, "7 is not a name with {id}"),
        ({"spares": 1, "deploy": False}, "needs a minion"),
        ({"spares": 1, "bootstrap": "none"}, "needs a minion"),
        ({"spares": 1, "ip_source": "reserve", "address": "192.168.122.5"}, "only one machine"),
        ({"spares": 1, "networks": [{"mac": "52:54:00:00:00:01"}]}, "only one machine"),
    ],
)
def test_what_cannot_be_kept_in_stock_is_refused(keys: dict[str, Any], said: str) -> None:
    sections = [provider("local-kvm", LOCAL), profile("small", {**BASE, **keys})]
    assert said in message_of(*sections)


def test_a_profile_whose_name_no_machine_can_have_needs_names_for_its_spares() -> None:
    local = provider("local-kvm", LOCAL)
    said = message_of(local, profile("small_ci", {**BASE, "spares": 1}))
    assert "key 'spare_names': is missing" in said and "ci-{id}" in said
    named = {**BASE, "spares": 1, "spare_names": "ci-{id}"}
    assert catalogue_of(named).problems.found == ()


@pytest.mark.parametrize("key", ["spares", "spare_names"])
def test_one_machine_does_not_ask_for_spares(key: str) -> None:
    value = {"spares": 2, "spare_names": "x-{id}"}[key]
    with pytest.raises(ConfigError, match="cannot be given as an argument") as refused:
        catalogue_of({}).resolve("small", "web1", {key: value})
    assert key in refused.value.message


def test_one_machine_of_a_map_does_not_ask_for_spares() -> None:
    machine = {"name": "web1", "profile": "small", "provider": "local-kvm", "spares": 2}
    machine |= {"base_domain": "base"}
    made = catalogue_of({"spares": 2}).resolve_machine(machine)[0]
    assert "spares" not in made.overrides
    with pytest.raises(ConfigError, match="spares: cannot be given as an argument"):
        catalogue_of({"spares": 2}).resolve_machine({**machine, "spares": 3})


def test_one_machine_of_a_profile_with_spares_may_be_another_one() -> None:
    given = {"deploy": False, "ip_source": "reserve", "address": "192.168.122.5"}
    request, _secrets = catalogue_of({"spares": 2}).resolve("small", "web1", given)
    assert request.address == "192.168.122.5"
