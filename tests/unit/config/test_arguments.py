"""Arguments of a create are checked like a profile, and no secret is one."""

from __future__ import annotations

from typing import Any

import pytest

from saltext.kvmclone.errors import ConfigError, SecretInArgument
from saltext.kvmclone.model.plain import to_plain
from tests.support.catalogues import (
    catalogue_of,
)

PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n"


def test_arguments_are_checked_like_a_profile_and_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        catalogue_of({}).resolve(
            "small", "web1", {"cpus": "two", "clone_strateg": "full", "extends": "x", "os": "x"}
        )
    lines = caught.value.message.splitlines()
    expected = "'two' is not a whole number from 1 to 4096. For example: cpus=2"
    assert f"cpus: {expected}" in lines
    assert any("did you mean 'clone_strategy'?" in line for line in lines)
    assert any("extends: cannot be given as an argument" in line for line in lines)
    assert any("os: would be ignored" in line for line in lines)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("memory", "lots", "memory: 'lots' is not a size. For example: memory=2GiB"),
        (
            "networks",
            "[{network: default}]",
            "networks: '[{network: default}]' was read as text, since it has one pair of quotes "
            "too many. Write: networks='[{network: default}]'",
        ),
        (
            "disks",
            "{vda:",
            "disks: '{vda:' was read as text, since its brackets do not match; in a shell, put "
            "quotes around all of it. For example: disks='{vda: {size: 20GiB}}'",
        ),
        (
            "disks",
            "{vda: {sise: 1}}",
            "disks: vda: 'sise' is not known here; did you mean 'size'? For example: "
            "disks='{vda: {size: 20GiB}}'",
        ),
    ],
)
def test_a_wrong_argument_is_told_with_a_right_one_as_it_is_typed(
    key: str, value: Any, told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        catalogue_of({}).resolve("small", "web1", {key: value})
    assert caught.value.message == told


def test_a_list_in_quotes_in_a_file_is_told_without_the_quotes_of_a_shell() -> None:
    with pytest.raises(ConfigError) as caught:
        catalogue_of({"networks": "[{network: default}]"}).resolve("small", "web1")
    assert caught.value.message.endswith("Write: networks: [{network: default}]")


def test_what_salt_adds_to_keyword_arguments_is_passed_over() -> None:
    given_by_salt = {"__pub_jid": "1", "__pub_user": "root", "cpus": 2}
    assert catalogue_of({}).resolve("small", "web1", given_by_salt)[0].cpus == 2


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "sudo_password",
        "win_password",
        "pasword",
        "ssh_password",
        "passphrase",
        "private_key_passphrase",
        "api_token",
    ],
)
def test_a_secret_as_an_argument_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(SecretInArgument) as caught:
        catalogue_of({}).resolve("small", "web1", {name: "hunter2", "nonsense": 1})
    assert "job cache and must be changed" in caught.value.message
    assert name in caught.value.message
    assert "hunter2" not in str(caught.value)


def test_a_private_key_may_be_an_argument_as_a_path_but_not_as_itself() -> None:
    catalogue = catalogue_of({}, read_file=lambda path: PEM)
    request, secrets = catalogue.resolve("small", "web1", {"private_key": "/root/.ssh/id"})
    assert (request.login.private_key, secrets.private_key) == ("/root/.ssh/id", PEM)
    with pytest.raises(SecretInArgument):
        catalogue.resolve("small", "web1", {"private_key": PEM})


def test_a_seed_may_be_an_argument_as_a_word_but_not_as_its_contents() -> None:
    request, secrets = catalogue_of({}).resolve("small", "web1", {"seed": "keep"})
    assert (request.seed, secrets.seed) == ("keep", ())
    for contents in ({"user_data": "hunter2"}, ["hunter2"], "#cloud-config\npassword: hunter2\n"):
        with pytest.raises(SecretInArgument) as caught:
            catalogue_of({}).resolve("small", "web1", {"seed": contents})
        assert "hunter2" not in str(caught.value)


def test_the_contents_of_a_seed_are_secrets_of_the_profile() -> None:
    files = {"user_data": {"password": "sdb://store/kvm"}, "network_config": "version: 2"}
    catalogue = catalogue_of({"seed": files}, fetch={"sdb://store/kvm": "hunter2"}.__getitem__)
    request, secrets = catalogue.resolve("small", "web1")
    assert request.seed == "own"
    assert "hunter2" not in str((to_plain(request), secrets))
    assert dict(secrets.seed) == {
        "network-config": "version: 2",
        "user-data": '#cloud-config\n{\n "password": "hunter2"\n}\n',
    }
    assert (
        catalogue_of({"seed": {"user_data": "hunter2"}}).describe()["profiles"]["small"]["seed"]
        == "<hidden>"
    )
    assert catalogue_of({"seed": "keep"}).describe()["profiles"]["small"]["seed"] == "keep"


@pytest.mark.parametrize("key", ["b3BlbnNzaC1rZXktdjEA" * 10, "b3BlbnNz\naC1rZXktdjEA\n"])
def test_a_login_key_that_lost_its_frame_is_hidden_and_leaked_as_any_other(key: str) -> None:
    told = catalogue_of({"private_key": key}).describe()["profiles"]["small"]
    assert told["private_key"] == "<hidden>"
    with pytest.raises(SecretInArgument):
        catalogue_of({}).resolve("small", "web1", {"private_key": key})
    for path in ("keys/id_rsa", "/root/.ssh/" + "x" * 200, "sdb://store/" + "x" * 200):
        told = catalogue_of({"private_key": path}).describe()["profiles"]["small"]
        assert told["private_key"] == path


@pytest.mark.parametrize(
    "value", ["yes", {}, {"user-data": "x"}, {"user_data": 1}, {"meta_data": "x"}, []]
)
def test_a_wrong_seed_is_refused_and_not_repeated(value: Any) -> None:
    with pytest.raises(ConfigError, match="'seed': <hidden> is not none, keep or a mapping"):
        catalogue_of({"seed": value}).resolve("small", "web1")


def test_an_sdb_reference_is_no_secret_and_may_be_an_argument() -> None:
    catalogue = catalogue_of({}, fetch={"sdb://store/kvm": "hunter2"}.__getitem__)
    secrets = catalogue.resolve("small", "web1", {"password": "sdb://store/kvm"})[1]
    assert secrets.password == "hunter2"


@pytest.mark.parametrize("value", ["sdb://store/kvm", ["sdb://store/kvm"]])
def test_an_sdb_reference_as_any_other_argument_is_refused_unread(value: Any) -> None:
    with pytest.raises(ConfigError, match="only for password"):
        catalogue_of({}).resolve("small", "web1", {"description": "x", "tags": value})


def test_an_sdb_reference_deep_in_a_configured_mapping_is_followed() -> None:
    catalogue = catalogue_of(
        {"minion": {"token": ["sdb://store/x"]}}, fetch={"sdb://store/x": "y"}.__getitem__
    )
    assert catalogue.resolve("small", "web1")[0].deploy.minion["token"] == ["y"]
