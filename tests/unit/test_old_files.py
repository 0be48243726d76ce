"""
Promises to those who come with files of salt-cloud: shapes that were found in the wild.

They were read by Salt's own libvirt driver, which passed over whatever it did not know. So each
works as it did, or the answer says what to write instead.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.catalogue import (
    BASE,
    LOCAL,
    catalogue_of,
    message_of,
    profile,
    provider,
    resolved,
)


def message(keys: dict[str, Any]) -> str:
    return message_of(provider("local-kvm", LOCAL), profile("small", {**BASE, **keys}))


# --- what is carried over from other drivers ----------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        {"ssh_connect_timeout": 1200, "wait_for_fun_timeout": 1200, "wait_for_passwd_timeout": 5},
        {"image": "base-el7", "size": "small", "location": "rack 3"},
        {"requires": ["db1"], "sync_after_install": "grains", "display_ssh_output": False},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_what_salt_documents_for_every_driver_is_ignored_with_a_word(keys: dict[str, Any]) -> None:
    catalogue = catalogue_of(keys)
    assert catalogue.resolve("small", "web1")[0] == resolved({})
    assert len(catalogue.warnings) == len(keys)
    for key, warning in zip(keys, catalogue.warnings, strict=True):
        assert f"key '{key}': is ignored: " in warning


def test_an_image_and_a_size_that_name_nothing_are_passed_over_in_silence() -> None:
    assert catalogue_of({"image": "", "size": "", "location": None}).warnings == ()


@pytest.mark.parametrize(
    ("key", "value", "ours"),
    [
        ("ssh_password", "hunter2", "password"),
        ("ssh_key_file", "/root/.ssh/id", "private_key"),
        ("user", "centos", "ssh_username"),
        ("clonefrom", "base", "base_domain"),
        ("num_cpus", 2, "cpus"),
        ("devices", {"network": {}}, "disks and networks"),
    ],
)
def test_a_key_of_another_driver_is_told_what_it_is_called_here(
    key: str, value: Any, ours: str
) -> None:
    text = message({key: value})
    assert text.endswith(f"key '{key}': is not a key that is known here; write it as {ours}")
    assert "hunter2" not in text


@pytest.mark.parametrize("key", ["rename_on_destroy", "delete_ssh_keys", "power_on"])
def test_a_key_that_never_had_an_effect_may_be_taken_out(key: str) -> None:
    said = "is not a key that is known here, nor was it to Salt's libvirt driver; take it out"
    assert message({key: True}).endswith(f"key '{key}': {said}")


def test_disks_that_were_asked_for_are_not_lost_in_silence() -> None:
    assert "'volumes': is refused: a clone has its base's disks; " in message({"volumes": [1]})
    assert catalogue_of({"volumes": []}).warnings == ()


def test_who_has_set_deploy_false_already_is_not_told_to() -> None:
    assert "take it out" in message({"deploy": False, "win_username": "Administrator"})


# --- values -------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["192.168.16.1", ["salt1", "salt2"]])
def test_who_wrote_the_minions_master_one_level_too_high_is_told_where_it_stands(
    address: Any,
) -> None:
    assert "a minion's master stands in minion: {master: …}" in message({"master": address})


@pytest.mark.parametrize("grains", [["web"], [{"role": "web"}], "web"])
def test_grains_of_a_minion_that_are_no_mapping_are_named_as_the_fault(grains: Any) -> None:
    text = message({"minion": {"grains": grains}})
    assert "key 'minion': " in text
    assert text.endswith("and so are grains in it")
    assert resolved({"minion": {"grains": None}}).deploy.grains == {}


def test_a_number_that_a_template_put_in_quotes_is_a_number() -> None:
    assert resolved({"ssh_port": "4910", "keysize": "3072"}).login.port == 4910
    assert "'65536' is not a whole number" in message({"ssh_port": "65536"})


def test_a_yes_in_a_scripts_environment_is_told_to_be_quoted() -> None:
    assert "(quote yes and no)" in message({"script_env": {"BS_PIP_ALLOWED": True}})
