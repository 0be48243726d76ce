"""What comes out of a store, or should have been a path, is a secret in every message."""

from __future__ import annotations

import pytest

from saltext.kvmclone.errors import ConfigError
from tests.support.catalogues import BASE, LOCAL, catalogue_of


@pytest.mark.parametrize(
    "value", ["AAAAB3NzaC1yc2EAAAADAQABAAABcanary", "sdb://store/kvm", "/" + "canary" * 40]
)
def test_a_login_key_that_lost_its_frame_is_not_told_as_the_path_that_it_is_not(value) -> None:
    def unreadable(path: str) -> str:
        raise FileNotFoundError(2, "No such file", path)

    catalogue = catalogue_of(
        {"private_key": value}, read_file=unreadable, fetch={"sdb://store/kvm": "canary"}.get
    )
    with pytest.raises(ConfigError, match="cannot be read: No such file") as caught:
        catalogue.resolve("small", "web1")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("key", ["password", "sudo_password", "private_key_passphrase"])
def test_the_newline_at_the_end_of_a_store_s_file_is_not_typed_at_a_prompt(key) -> None:
    held = {"sdb://store/kvm": "it's 100% sécret\n"}
    catalogue = catalogue_of({key: "sdb://store/kvm"}, fetch=held.__getitem__)
    assert getattr(catalogue.resolve("small", "web1")[1], key) == "it's 100% sécret"
    held["sdb://store/kvm"] = "canary one\ncanary two\n"
    with pytest.raises(ConfigError, match=f"{key} has more than one line") as caught:
        catalogue.resolve("small", "web1")
    assert "canary" not in str(caught.value)


def test_whatever_came_out_of_a_store_is_known_as_a_secret() -> None:
    held = {"sdb://s/a": "one", "sdb://s/b": {"deep": ["two", 3, None]}}
    keys = {"inline_script": ["sdb://s/a"], "minion": {"x": "sdb://s/b"}}
    secrets = catalogue_of(keys, fetch=held.__getitem__).resolve("small", "web1")[1]
    assert secrets.stored == ("one", "two", "3")


def test_what_salt_cloud_s_core_took_out_of_a_store_is_a_secret_and_on_no_record() -> None:
    kept = {
        "inline_script": ["echo hello", "sdb://s/script"],
        "minion": {"master": "192.0.2.1", "deep": [{"token": "sdb://s/token"}]},
        "script_env": {"PIN": "sdb://s/pin"},
        "script_args": "sdb://s/args",
        "private_key": "sdb://s/key",
    }
    catalogue = catalogue_of(kept)
    machine = {
        **LOCAL,
        **BASE,
        "name": "web1",
        "profile": "small",
        "cpus": 3,
        "inline_script": ["echo hello", "canary script"],
        "minion": {"master": "192.0.2.1", "deep": [{"token": "canary-token"}], "more": 1},
        "script_env": {"PIN": "canary"},
        "script_args": "canary args",
        "private_key": "-----BEGIN PRIVATE KEY-----\ncanary\n",
    }
    request, secrets = catalogue.resolve_machine(machine)
    assert request.overrides == {"cpus": 3, "minion": {"more": 1}}
    told = {"canary script", "canary-token", "canary", "canary args", machine["private_key"]}
    assert set(secrets.stored) == told
