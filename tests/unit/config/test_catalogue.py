"""Promises about providers and profiles: what wins, and what arguments may do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.config import validate
from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.errors import ConfigError, InvalidName
from saltext.kvmclone.model.request import Deploy, Secrets
from tests.support.catalogues import (
    BASE,
    LOCAL,
    PROFILE_PLACE,
    catalogue_of,
    message_of,
    profile,
    resolved,
)

PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n"


# --- the documented text ------------------------------------------------------------


def test_the_documented_profile_resolves_to_what_it_documents() -> None:
    documented = {
        "ip_source": "ip-learning",
        "ssh_username": "root",
        "password": "my-very-secret-password",
        "clone_strategy": "quick",
        "deploy_command": "sh /tmp/.saltcloud/deploy.sh",
        "script_args": "-F",
        "grains": {"clones-are-awesome": True},
        "minion": {"master": "192.168.16.1", "master_port": 5506},
    }
    request, secrets = catalogue_of(documented, {**LOCAL, "validate_xml": False}).resolve(
        "small", "my-centos7-clone"
    )
    assert (request.name, request.base_domain, request.url) == (
        "my-centos7-clone",
        "base",
        "qemu:///system",
    )
    assert (request.clone_strategy, request.ip_source) == ("quick", "ip-learning")
    assert request.validate_xml is False
    assert request.login.sudo is False
    assert request.deploy.command == "sh /tmp/.saltcloud/deploy.sh"
    assert request.deploy.script_args == "-F"
    assert request.deploy.grains == {"clones-are-awesome": True}
    assert request.deploy.minion["master_port"] == 5506
    assert secrets == Secrets(password="my-very-secret-password")


def test_a_minimal_profile_gets_the_promised_defaults() -> None:
    request = resolved({})
    assert (request.clone_strategy, request.ip_source) == ("full", "auto")
    assert (request.on_failure, request.reset_identity, request.autostart) == (
        "destroy",
        True,
        None,
    )
    assert (request.wait.timeout, request.login.port, request.login.tty) == (600.0, 22, True)
    assert request.deploy.enabled is True
    assert request.deploy.keysize == Deploy.keysize
    assert request.deploy.script == "", "nobody named a script, and that must be visible"


def test_sudo_is_used_by_default_only_where_the_user_is_not_root() -> None:
    assert resolved({"ssh_username": "admin"}).login.sudo is True
    assert resolved({"ssh_username": "admin", "sudo": False}).login.sudo is False


@pytest.mark.parametrize("written", ["local-kvm", "local-kvm:libvirt"])
def test_a_provider_may_be_named_with_or_without_its_driver(written: str) -> None:
    assert resolved({"provider": written}).provider == "local-kvm"


# --- lookup -------------------------------------------------------------------------


def test_a_key_is_looked_up_in_arguments_profile_provider_and_cloud_file() -> None:
    catalogue = catalogue_of(
        {"ssh_port": 3},
        {**LOCAL, "ssh_port": 2, "ssh_username": "of-provider"},
        {"ssh_port": 1, "ssh_username": "of-cloud-file", "script_args": "-of-cloud-file"},
    )
    request = catalogue.resolve("small", "web1")[0]
    assert request.login.port == 3
    assert request.login.username == "of-provider"
    assert request.deploy.script_args == "-of-cloud-file"
    assert catalogue.resolve("small", "web1", {"ssh_port": 4})[0].login.port == 4


def test_minion_settings_of_all_places_are_merged_and_the_nearest_wins() -> None:
    request = resolved(
        {"minion": {"master": "c", "grains": {"a": 1, "b": 1}}, "grains": {"b": 2}},
        provider_keys={**LOCAL, "minion": {"master": "b", "hash_type": "sha512"}},
        cloud_file={"minion": {"master": "a", "log_level": "debug"}},
    )
    minion = {key: request.deploy.minion[key] for key in ("master", "hash_type", "log_level")}
    assert minion == {"master": "c", "hash_type": "sha512", "log_level": "debug"}
    assert request.deploy.grains == {"a": 1, "b": 2}


def test_the_grain_that_names_the_profile_is_written_unless_switched_off() -> None:
    origin = {"driver": "libvirt", "provider": "local-kvm:libvirt", "profile": "small"}
    assert resolved({}).deploy.minion == {"grains": {"salt-cloud": origin}}
    assert resolved({"enable_cloud_grains": False}).deploy.minion == {}


def test_an_empty_value_counts_as_not_given() -> None:
    assert resolved({"clone_strategy": None, "script": None}).clone_strategy == "full"


def test_unknown_entries_of_the_cloud_file_are_not_our_business() -> None:
    request = resolved({}, cloud_file={"timeout": 5, "ssh_gateway": "x", "colour": "blue"})
    assert request.base_domain == "base"


def test_a_wrong_value_in_the_cloud_file_is_an_error_with_its_path() -> None:
    text = message_of(cloud_file={"ssh_port": "many"}, cloud_place="/srv/cloud")
    expected = "'many' is not a whole number from 1 to 65535. For example: ssh_port: 22"
    assert text == f"/srv/cloud: key 'ssh_port': {expected}"


def test_merging_changes_neither_of_the_two() -> None:
    under, over = {"minion": {"a": 1}}, {"minion": {"b": [2]}}
    merged = validate.merge(under, over)
    merged["minion"]["b"].append(3)
    assert (under, over) == ({"minion": {"a": 1}}, {"minion": {"b": [2]}})


NESTED = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=6
)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), NESTED)


@given(MAPPINGS, MAPPINGS)
def test_merging_keeps_every_key_and_the_upper_scalar(under: Any, over: Any) -> None:
    merged = validate.merge(under, over)
    assert set(merged) == set(under) | set(over)
    assert validate.merge(merged, over) == merged
    assert all(merged[key] == value for key, value in over.items() if isinstance(value, int))


def test_the_name_is_checked_before_anything_else() -> None:
    with pytest.raises(InvalidName):
        catalogue_of({}).resolve("nothing", "a/b", {"password": "x"})
    with pytest.raises(InvalidName):
        Catalogue().resolve_inline("-a", {})


def test_an_unknown_profile_is_an_error_that_guesses_or_lists() -> None:
    with pytest.raises(ConfigError) as caught:
        catalogue_of({}).resolve("smal", "web1")
    assert caught.value.hint == "Did you mean 'small'?"
    with pytest.raises(ConfigError) as caught:
        Catalogue().resolve("small", "web1")
    assert caught.value.hint == "No profile is configured here."


# --- without a profile --------------------------------------------------------------


def test_a_clone_can_be_described_by_arguments_alone() -> None:
    request, secrets = Catalogue().resolve_inline(
        "web1", {"base_domain": "base", "clone_strategy": "quick", "pool": "fast"}
    )
    assert (request.profile, request.provider, request.url) == ("", "", "qemu:///system")
    assert (request.clone_strategy, request.pool) == ("quick", "fast")
    assert secrets == Secrets()


def test_arguments_alone_may_start_from_a_profile_or_a_provider() -> None:
    catalogue = catalogue_of({"cpus": 2}, {**LOCAL, "pool": "fast"})
    of_profile = catalogue.resolve_inline("web1", {"profile": "small", "memory": 512})[0]
    assert (of_profile.cpus, of_profile.memory) == (2, 512 * 1024**2)
    of_provider = catalogue.resolve_inline(
        "web1", {"provider": "local-kvm:libvirt", "base_domain": "base"}
    )[0]
    assert (of_provider.pool, of_provider.provider, of_provider.cpus) == (
        "fast",
        "local-kvm",
        None,
    )


def test_arguments_without_a_base_say_so() -> None:
    with pytest.raises(ConfigError, match="base_domain"):
        Catalogue().resolve_inline("web1", {"cpus": 2})


# --- secrets ------------------------------------------------------------------------


def test_a_login_key_is_read_only_when_its_profile_is_used() -> None:
    def unreadable(path: str) -> str:
        raise PermissionError(13, "Permission denied", path)

    catalogue = catalogue_of({"private_key": "/root/.ssh/id"}, read_file=unreadable)
    with pytest.raises(ConfigError) as caught:
        catalogue.resolve("small", "web1")
    assert caught.value.message.startswith(
        f"{PROFILE_PLACE}: section 'small': key 'private_key': cannot be read"
    )
    assert "/root/.ssh/id" in caught.value.message


def test_a_login_key_may_stand_in_the_configuration_itself() -> None:
    request, secrets = catalogue_of({"private_key": PEM}).resolve("small", "web1")
    assert (request.login.private_key, secrets.private_key) == ("", PEM)


def test_an_sdb_reference_is_followed_only_when_its_profile_is_used() -> None:
    asked: list[str] = []

    def fetch(uri: str) -> Any:
        asked.append(uri)
        return 42

    catalogue = catalogue_of({"password": "sdb://store/kvm"}, fetch=fetch)
    assert asked == []
    with pytest.raises(ConfigError) as caught:
        catalogue.resolve("small", "web1")
    assert asked == ["sdb://store/kvm"]
    assert "key 'password': <hidden> is not text" in caught.value.message


def test_the_list_of_profiles_holds_no_secret() -> None:
    catalogue = catalogue_of(
        {"password": "hunter2", "private_key": PEM, "script_env": {"TOKEN": "hunter2"}},
        {**LOCAL, "sudo_password": "hunter2"},
    )
    described = catalogue.describe()
    assert "hunter2" not in str(described)
    assert "PRIVATE KEY" not in str(described)
    assert described["profiles"]["small"]["base_domain"] == "base"
    assert described["profiles"]["small"]["place"] == PROFILE_PLACE
    assert described["providers"]["local-kvm"]["url"] == "qemu:///system"


def test_a_catalogue_does_not_show_its_secrets_when_printed() -> None:
    catalogue = catalogue_of({"password": "hunter2"}, {**LOCAL, "sudo_password": "hunter2"})
    assert "hunter2" not in repr(catalogue)
    assert "hunter2" not in repr(profile("small", {"password": "hunter2"}))


# --- salt-cloud ---------------------------------------------------------------------


def test_a_machine_of_salt_clouds_core_is_understood_with_all_that_comes_along() -> None:
    machine = {
        **LOCAL,
        **BASE,
        "name": "web1",
        "provider": "local-kvm:libvirt",
        "profile": "small",
        "password": "hunter2",
        "cpus": 2,
        "os": "bootstrap-salt",
        "priv_key": "made by the core",
        "pub_key": "made by the core",
        "inline_script": None,
        "timeout": 5,
    }
    request, secrets = Catalogue().resolve_machine(machine, settings={"timeout"})
    assert (request.name, request.provider, request.profile) == ("web1", "local-kvm", "small")
    assert (request.cpus, secrets.password) == (2, "hunter2")


def test_what_a_map_says_and_no_profile_may_is_refused_all_at_once() -> None:
    machine = {**LOCAL, **BASE, "name": "web1", "profile": "small", "provider": "p:libvirt"}
    wrong = {"clone_strategi": "quick", "cpus": "many", "win_installer": "x.exe"}
    with pytest.raises(ConfigError) as caught:
        Catalogue().resolve_machine({**machine, **wrong, "requires": ["web0"]})
    assert "clone_strategi" in str(caught.value)
    assert "'many' is not" in str(caught.value)
    assert "win_installer" in str(caught.value)
    assert "requires" not in str(caught.value)


def test_the_cloud_file_speaks_for_the_machines_of_a_map_as_well() -> None:
    machine = {**LOCAL, **BASE, "name": "web1", "profile": "small", "minion": {"log_level": "info"}}
    catalogue = Catalogue(cloud_file={"minion": {"master": "192.0.2.1"}, "keysize": 3072})
    request, _secrets = catalogue.resolve_machine(machine)
    assert request.deploy.minion["master"] == "192.0.2.1"
    assert request.deploy.minion["log_level"] == "info"
    assert request.deploy.keysize == 3072


# --- what is ignored is said ----------------------------------------------------------


def test_an_ignored_key_is_said_when_a_machine_is_made_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    catalogue = catalogue_of({"known_hosts_file": "/dev/null", "minion": {"id": "x"}})
    catalogue.resolve("small", "web1")
    said = caplog.text
    assert f"{PROFILE_PLACE}: section 'small': key 'known_hosts_file': is ignored" in said
    assert "a minion is called like its clone" in said


def test_what_only_a_fork_goes_by_is_said_to_be_ignored_beside_another_strategy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = "it counts with clone_strategy: instant alone"
    quick = {"clone_strategy": "quick"}
    for keys, provider in (
        ({"clone_strategy": "instant", "instant": "prefer"}, LOCAL),
        (quick, {**LOCAL, "instant": "prefer"}),  # for other profiles of it
    ):
        catalogue_of(keys, provider).resolve("small", "web1")
    assert said not in caplog.text
    catalogue_of({**quick, "warm": "auto"}).resolve("small", "web1")
    assert f"key 'warm': is ignored: {said}" in caplog.text
    catalogue_of(quick).resolve("small", "web1", {"instant": "prefer"})
    assert f"key 'instant': is ignored: {said}" in caplog.text


def test_an_ignored_key_of_the_provider_is_said_too(caplog: pytest.LogCaptureFixture) -> None:
    catalogue_of({}, {**LOCAL, "has_ssh_agent": True}).resolve("small", "web1")
    assert "key 'has_ssh_agent': is ignored: write it as ssh_agent: True" in caplog.text


def test_profiles_that_ignore_nothing_are_made_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    catalogue_of({"has_ssh_agent": False, "keep_tmp": False}).resolve("small", "web1")
    assert [one for one in caplog.records if one.name.startswith("saltext")] == []


def test_the_list_of_profiles_says_what_is_ignored() -> None:
    assert catalogue_of({}).describe()["warnings"] == []
    (warning,) = catalogue_of({"tmp_dir": "/x"}).describe()["warnings"]
    assert "key 'tmp_dir': is ignored" in warning


def test_an_ignored_key_is_said_to_salt_cloud_wherever_it_stands(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In the profile, also where salt-cloud has a setting of that name, or in the map alone."""
    catalogue = catalogue_of({"delete_sshkeys": True})
    machine = {**LOCAL, **BASE, "name": "web1", "profile": "small", "os": "bootstrap-salt"}
    told = {**machine, "delete_sshkeys": True, "tmp_dir": "/x", "sync_after_install": "all"}
    catalogue.resolve_machine(told, settings={"delete_sshkeys", "sync_after_install"})
    assert "section 'small': key 'delete_sshkeys': is ignored" in caplog.text
    assert "section 'small': key 'tmp_dir': is ignored" in caplog.text
    assert "sync_after_install" not in caplog.text
    assert "'os'" not in caplog.text


def test_what_a_map_says_beyond_the_profile_is_kept_for_a_resume() -> None:
    """The profile alone would make another minion of it; a secret is in no record."""
    catalogue = catalogue_of({"minion": {"log_level": "info"}, "password": "of-the-profile"})
    below = {**LOCAL, **BASE, "profile": "small", "provider": "local-kvm:libvirt", "name": "web1"}
    own = {
        "minion": {"log_level": "info", "master": "192.0.2.1"},
        "grains": {"role": "web"},
        "cpus": 2,
        "inline_script": ["true"],
    }
    machine = {**below, "deploy": True, "script_args": "", "password": "of-the-map", **own}
    request, _secrets = catalogue.resolve_machine(machine)
    assert "of-the-map" not in str(request)
    with_token = {**machine, "script_env": {"TOKEN": "canary"}}
    assert "canary" not in str(catalogue.resolve_machine(with_token)[0].overrides)
    again, _secrets = catalogue.resolve("small", "web1", request.overrides)
    assert again == request


@pytest.mark.parametrize(
    ("written", "kept"),
    [("keep", {"seed": "keep"}), ({"user_data": "canary"}, {})],
)
def test_of_a_seed_in_a_map_the_word_alone_is_kept_for_a_resume(
    written: Any, kept: dict[str, Any]
) -> None:
    catalogue = catalogue_of({})
    machine = {**LOCAL, **BASE, "name": "web1", "profile": "small", "provider": "local-kvm:libvirt"}
    request, _secrets = catalogue.resolve_machine({**machine, "seed": written})
    assert request.overrides == kept
    again, _secrets = catalogue.resolve("small", "web1", request.overrides)
    assert (again == request) is bool(kept)


def test_what_salt_cloud_took_from_a_store_is_in_no_record() -> None:
    """Its core has replaced the references in profiles before it asks for the machine."""
    minion = {"mysql.pass": "sdb://store/mysql", "log_level": "info"}
    catalogue = catalogue_of({"minion": minion, "preflight_cmds": ["sdb://store/command"]})
    machine = {**LOCAL, **BASE, "name": "web1", "profile": "small", "provider": "local-kvm:libvirt"}
    resolved_by_core = {
        "minion": {"mysql.pass": "canary", "log_level": "info", "master": "192.0.2.1"},
        "preflight_cmds": ["canary"],
    }
    request, _secrets = catalogue.resolve_machine({**machine, **resolved_by_core})
    assert request.overrides == {"minion": {"master": "192.0.2.1"}}


def test_nothing_is_noted_of_a_profile_that_no_resume_could_read() -> None:
    """One of the pillar, say."""
    machine = {**LOCAL, **BASE, "name": "web1", "profile": "of-pillar", "grains": {"a": "b"}}
    assert catalogue_of({}).resolve_machine(machine)[0].overrides == {}


def test_a_machine_of_its_profile_alone_departs_in_nothing() -> None:
    catalogue = catalogue_of({"minion": {"id": "x"}}, {**LOCAL, "cpus": 3})
    machine = {**LOCAL, **BASE, "name": "web1", "profile": "small", "cpus": 3}
    machine["provider"] = "local-kvm:libvirt"
    told = {**machine, "minion": {"id": "x"}, "deploy": True, "script_args": ""}
    assert catalogue.resolve_machine(told)[0].overrides == {}
