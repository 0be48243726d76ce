"""
Promises to those who come with files of salt-cloud: shapes that were found in the wild.

They were read by Salt's own libvirt driver, which passed over whatever it did not know. So each
works as it did, or the answer says what to write instead.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import salt.config
import yaml

from saltext.kvmclone.config import cloud_files, map_files
from saltext.kvmclone.config.catalogue import Catalogue, build
from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.master.cloud_providers import configured_provider
from tests.support.catalogues import (
    BASE,
    LOCAL,
    catalogue_of,
    message_of,
    profile,
    provider,
    resolved,
)


def read(folder: Path, providers: str, profiles: str) -> Catalogue:
    (folder / "cloud.providers").write_text(providers)
    (folder / "cloud.profiles").write_text(profiles)
    return cloud_files.read({"conf_file": str(folder / "master")})


def message(keys: dict[str, Any]) -> str:
    return message_of(provider("local-kvm", LOCAL), profile("small", {**BASE, **keys}))


# --- what is shared between sections ------------------------------------------------


def test_a_profile_that_others_extend_needs_no_base_of_its_own() -> None:
    common = {"provider": "local-kvm", "ssh_username": "centos", "minion": {"master": "salt"}}
    web = {"extends": "common", "base_domain": "base", "minion": {"grains": {"role": "web"}}}
    catalogue = build([provider("local-kvm", LOCAL), profile("common", common), profile("w", web)])
    request = catalogue.resolve("w", "web1")[0]
    assert (request.base_domain, request.login.username) == ("base", "centos")
    assert request.deploy.minion["master"] == "salt"
    assert request.deploy.grains == {"role": "web"}
    with pytest.raises(ConfigError, match="'common': key 'base_domain': is missing"):
        catalogue.resolve("common", "web1")


def test_the_last_of_a_chain_still_needs_a_base() -> None:
    lacking = [profile("common", {"provider": "local-kvm"}), profile("w", {"extends": "common"})]
    text = message_of(provider("local-kvm", LOCAL), *lacking)
    assert text.splitlines() == [text]
    assert "section 'w': key 'base_domain': is missing" in text


def test_a_provider_that_others_extend_needs_no_daemon_of_its_own() -> None:
    common = provider("common", {"driver": "libvirt", "ssh_username": "centos"})
    kvm01 = provider("local-kvm", {"extends": "common:libvirt", "url": "qemu+ssh://kvm01/system"})
    catalogue = build([common, kvm01, profile("small", BASE)])
    assert set(catalogue.providers) == {"local-kvm"}
    request = catalogue.resolve("small", "web1")[0]
    assert (request.url, request.login.username) == ("qemu+ssh://kvm01/system", "centos")
    used = profile("other", {**BASE, "provider": "common"})
    assert "section 'common': key 'url': is missing" in message_of(common, kvm01, used)


def test_salt_cloud_lists_nothing_of_a_provider_that_only_lends_its_keys() -> None:
    common = {"driver": "libvirt", "ssh_username": "centos"}
    opts = {"providers": {"common": {"libvirt": common}, "local-kvm": {"libvirt": LOCAL}}}
    assert configured_provider(opts, "common:libvirt") is False
    assert configured_provider(opts, "local-kvm:libvirt") == LOCAL
    assert configured_provider(opts, "libvirt") == LOCAL


def test_one_name_for_several_drivers_and_entries_that_extend_others(tmp_path: Path) -> None:
    providers = """
production:
  - driver: ec2
    id: HJGRYCILJLKJYG
    rename_on_destroy: True
  - driver: libvirt
    url: qemu+ssh://root@kvm01/system?socket=/var/run/libvirt/libvirt-sock
    minion: {master: [salt1, salt2], master_type: failover}
develop:
  - extends: production:ec2
    location: ap-southeast-1
  - extends: production:libvirt
    validate_xml: no
"""
    profiles = """
el7:
  provider: develop:libvirt
  base_domain: base-el7
  script_args: -F -r
  grains:
    roles: [web, db]
ubuntu_ec2:
  provider: production:ec2
  image: ami-e565ba8c
  size: t2.micro
"""
    catalogue = read(tmp_path, providers, profiles)
    request = catalogue.resolve("el7", "web1")[0]
    assert (request.provider, request.validate_xml) == ("develop", False)
    assert request.deploy.minion["master"] == ["salt1", "salt2"]
    assert request.deploy.grains == {"roles": ["web", "db"]}
    assert catalogue.others == {"ubuntu_ec2": "ec2"}
    assert catalogue.warnings == ()


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
    assert text.endswith(f"key '{key}': there is no such key here; write it as {ours}")
    assert "hunter2" not in text


@pytest.mark.parametrize("key", ["rename_on_destroy", "delete_ssh_keys", "power_on"])
def test_a_key_that_never_had_an_effect_may_be_taken_out(key: str) -> None:
    said = "there is no such key, nor did Salt's libvirt driver know it; take it out"
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
    assert "a minion's master goes into minion: {master: …}" in message({"master": address})


@pytest.mark.parametrize("grains", [["web"], [{"role": "web"}], "web"])
def test_grains_of_a_minion_that_are_no_mapping_are_named_as_the_fault(grains: Any) -> None:
    text = message({"minion": {"grains": grains}})
    assert f"key 'minion': grains: {grains!r} is not a mapping" in text
    assert resolved({"minion": {"grains": None}}).deploy.grains == {}


def test_a_number_that_a_template_put_in_quotes_is_a_number() -> None:
    assert resolved({"ssh_port": "4910", "keysize": "3072"}).login.port == 4910
    assert "'65536' is not a whole number" in message({"ssh_port": "65536"})


def test_a_yes_in_a_scripts_environment_is_told_to_be_quoted() -> None:
    assert 'DEBUG: "yes"' in message({"script_env": {"BS_PIP_ALLOWED": True}})


# --- what does not go together ------------------------------------------------------


def test_commands_that_will_not_run_are_said_not_to(caplog: pytest.LogCaptureFixture) -> None:
    """Salt's driver ran inline_script also where nothing was deployed."""
    keys = {"deploy": False, "inline_script": ["echo hi"]}
    said = "key 'inline_script': is ignored: with deploy: False nothing runs in the guest"
    catalogue = catalogue_of(keys)
    assert said in catalogue.warnings[0]
    catalogue.resolve("small", "web1")
    assert said in caplog.text
    assert catalogue_of({"inline_script": ["echo hi"]}).warnings == ()


def test_no_deploy_says_so_of_the_profiles_commands(caplog: pytest.LogCaptureFixture) -> None:
    keys = {"inline_script": ["echo hi"]}
    machine = {**LOCAL, **BASE, **keys, "name": "web1", "profile": "small", "deploy": False}
    catalogue_of(keys).resolve_machine(machine, settings={"deploy"})
    assert "with deploy: False nothing runs in the guest" in caplog.text


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"domain": "example.com"}, "domain"),
        ({"domain": "example.com", "use_fqdn": False}, "domain"),
        ({"domain": "example.com", "minion": {"master": "a"}}, "domain"),
        ({"use_fqdn": True}, "use_fqdn"),
        ({"domain": "example.com", "use_fqdn": True}, ""),
        ({"domain": "example.com", "append_domain": "example.org"}, ""),
        ({"domain": "example.com", "minion": {"append_domain": "example.org"}}, ""),
        ({"domain": "example.com", "deploy": False}, ""),
        ({"domain": "example.com", "bootstrap": "none"}, ""),
        ({}, ""),
    ],
)
def test_half_of_what_puts_a_domain_behind_the_id_is_told_to_do_nothing(
    keys: dict[str, Any], key: str, caplog: pytest.LogCaptureFixture
) -> None:
    """salt-cloud reads 'domain' only beside 'use_fqdn', and neither says that it does not."""
    catalogue = catalogue_of(keys)
    request, _secrets = catalogue.resolve("small", "web1")
    assert (request.minion_id == "web1") or not key
    found = [text.partition(" ")[0] for text in catalogue.remarks("small", {})]
    assert found == ([f"'{key}'"] if key else [])
    assert ("does nothing alone" in caplog.text) == bool(key)
    assert len(catalogue.warnings) == len(found)


def test_the_lines_that_would_put_the_domain_there_are_named() -> None:
    (said,) = catalogue_of({"domain": "example.com"}).remarks("small", {})
    for line in ({"use_fqdn": True}, {"append_domain": "example.com"}):
        ((key, value),) = line.items()
        assert f"{key}: {value}" in said
        request, _ = catalogue_of({"domain": "example.com", **line}).resolve("small", "web1")
        assert request.minion_id == "web1.example.com"


def test_an_argument_counts_for_the_word_on_a_domain_too() -> None:
    catalogue = catalogue_of({"domain": "example.com"})
    assert catalogue.remarks("small", {"use_fqdn": True}) == ()
    assert catalogue.remarks(None, {"domain": "example.com"})
    assert catalogue.remarks(None, {}) == ()


# --- maps ---------------------------------------------------------------------------


@pytest.fixture
def opts(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "master").write_text(yaml.safe_dump({"root_dir": str(tmp_path)}))
    found: dict[str, Any] = salt.config.master_config(str(tmp_path / "master"))
    return found


def mapped(opts: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    path = Path(opts["conf_file"]).parent / "web.map"
    path.write_text(yaml.safe_dump({"small": [{"web1": keys}]}))
    ((_profile, _name, found),) = map_files.read(opts, path)
    return found


def test_a_maps_old_names_for_its_overrides_are_understood(opts: dict[str, Any]) -> None:
    old = {"map_grains": {"role": "web"}, "map_minion": {"retry_dns": 5}, "cpus": 2}
    assert mapped(opts, old) == {"grains": {"role": "web"}, "minion": {"retry_dns": 5}, "cpus": 2}
    with pytest.raises(ConfigError, match=r"'requires' sets an order.*volumes: is refused"):
        mapped(opts, {"map_requires": ["db1"], "map_volumes": [1]})


def test_what_is_ignored_in_a_profile_is_ignored_in_a_map_too(
    opts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    keys = {"ssh_interface": "private_ips", "minion": {"id": "x", "log_level": "info"}}
    assert mapped(opts, keys) == {"minion": {"log_level": "info"}}
    assert "web.map: small, 'web1': key 'ssh_interface': is ignored: " in caplog.text
    assert "a minion is called like its clone" in caplog.text


def test_a_fault_in_a_map_is_not_said_to_be_in_arguments(opts: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        mapped(opts, {"cpus": "many"})
    assert "small, 'web1': cpus: 'many' is not" in refused.value.message
