"""Promises about sections held against each other: what is refused, and how it is said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.config import schema
from saltext.kvmclone.config.catalogue import KEYS, KeyLocation, Problem, Section, build
from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.model.plain import from_plain, to_plain
from saltext.kvmclone.model.request import DiskChanges, InterfaceChanges, Request
from tests.support.catalogues import (
    BASE,
    LOCAL,
    PROFILE_PLACE,
    catalogue_of,
    message_of,
    profile,
    provider,
    resolved,
)

# --- extends ------------------------------------------------------------------------


def test_a_profile_extends_another_whatever_their_order_and_depth() -> None:
    catalogue = build(
        [
            profile("large", {"extends": "medium", "minion": {"c": 3}}),
            profile("medium", {"extends": "small", "cpus": 2, "minion": {"b": 2}}),
            profile("small", {**BASE, "cpus": 1, "minion": {"a": 1}}),
            provider("local-kvm", LOCAL),
        ]
    )
    large = catalogue.profiles["large"].keys
    assert (large["cpus"], large["minion"]) == (2, {"a": 1, "b": 2, "c": 3})
    assert catalogue.profiles["small"].keys["minion"] == {"a": 1}, "the base stays as it was"


def test_a_provider_extends_another_with_its_driver() -> None:
    catalogue = build(
        [
            provider("remote", {"extends": "local-kvm:libvirt", "url": "qemu+ssh://kvm02/system"}),
            provider("local-kvm", {**LOCAL, "pool": "fast"}),
        ]
    )
    assert catalogue.providers["remote"]["pool"] == "fast"
    assert catalogue.providers["remote"]["url"] == "qemu+ssh://kvm02/system"


def test_extending_nothing_or_oneself_is_an_error_and_not_a_loop() -> None:
    text = message_of(
        provider("local-kvm", LOCAL),
        profile("a", {"extends": "b"}),
        profile("b", {"extends": "a"}),
        profile("c", {"extends": "nothing"}),
        profile("d", {"extends": ["a"]}),
    )
    assert "section 'c': key 'extends': there is no section 'nothing' to extend" in text
    assert "extends this section in turn" in text
    assert "there is no section ['a'] to extend" in text


# --- problems -----------------------------------------------------------------------


def test_a_wrong_value_is_named_with_file_section_key_value_and_expectation() -> None:
    text = message_of(
        provider("local-kvm", LOCAL), profile("centos7", {**BASE, "clone_strategy": "quik"})
    )
    assert text == (
        "/etc/salt/cloud.profiles:1: section 'centos7': key 'clone_strategy': "
        "'quik' is not one of full, quick, instant. For example: clone_strategy: quick"
    )


def test_all_problems_of_all_files_are_reported_at_once() -> None:
    text = message_of(
        provider("local-kvm", {**LOCAL, "validate_xml": "no"}),
        profile("a", {**BASE, "cpus": "two"}),
        profile("b", {"base_domain": "base"}, "/etc/salt/cloud.profiles.d/b.conf:7"),
        profile("c", {"provider": "local-kvm"}),
        problems=[Problem("/etc/salt/cloud", "", "", "is not valid YAML")],
    )
    assert text.startswith("5 problems in the configuration:\n")
    assert len(text.splitlines()) == 6


def test_a_profile_without_a_provider_is_named_with_its_file() -> None:
    text = message_of(profile("lost", {"base_domain": "base"}, "/srv/x.conf:3"))
    assert text.startswith("/srv/x.conf:3: section 'lost': key 'provider': is missing")


def test_an_unknown_provider_is_an_error_that_lists_the_known_ones() -> None:
    text = message_of(provider("local-kvm", LOCAL), profile("a", {**BASE, "provider": "locl"}))
    assert "there is no provider 'locl'; did you mean 'local-kvm'?" in text


def test_a_provider_without_a_driver_is_said_to_lack_it() -> None:
    text = message_of(provider("local-kvm", {"url": "qemu:///system"}), profile("a", BASE))
    assert "has no driver; expected driver: libvirt" in text


@pytest.mark.parametrize("driver", [["libvirt"], {"libvirt": None}, 3, True])
def test_a_driver_that_is_no_word_is_an_error(driver: Any) -> None:
    said = message_of(provider("kvm", {"driver": driver, "url": "qemu:///system"}))
    assert f"section 'kvm': key 'driver': {driver!r} is not a driver's name" in said


def test_a_missing_base_domain_is_an_error_unless_the_provider_has_one() -> None:
    lacking = {"provider": "local-kvm"}
    assert "key 'base_domain': is missing" in message_of(
        provider("local-kvm", LOCAL), profile("a", lacking)
    )
    build([provider("local-kvm", {**LOCAL, "base_domain": "base"}), profile("a", lacking)])


def test_a_provider_needs_a_url_or_a_host() -> None:
    assert "key 'url': is missing" in message_of(provider("local-kvm", {"driver": "libvirt"}))
    build([provider("kvm01", {"driver": "libvirt", "host": "kvm01"})])


def test_an_unknown_key_is_an_error_that_guesses_what_was_meant() -> None:
    text = message_of(provider("local-kvm", LOCAL), profile("a", {**BASE, "clone_stratgy": "full"}))
    assert "key 'clone_stratgy': there is no such key; did you mean 'clone_strategy'?" in (text)


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        (profile, {**BASE, "driver": "libvirt"}),
        (provider, {**LOCAL, "provider": "local-kvm"}),
    ],
)
def test_a_key_in_the_wrong_sort_of_section_is_told_where_it_belongs(kind: Any, keys: Any) -> None:
    assert "belongs in a pro" in message_of(provider("local-kvm", LOCAL), kind("a", keys))


def test_two_different_definitions_of_one_name_are_an_error_that_names_both_places() -> None:
    text = message_of(
        provider("local-kvm", LOCAL),
        profile("a", BASE, "/srv/one.conf:1"),
        profile("a", {**BASE, "cpus": 2}, "/srv/two.conf:9"),
    )
    assert text.startswith("/srv/two.conf:9: section 'a': ")
    assert "defined differently in /srv/one.conf:1" in text


def test_the_same_definition_in_two_places_is_no_problem() -> None:
    build([provider("local-kvm", LOCAL), profile("a", BASE, "x"), profile("a", dict(BASE), "y")])


@pytest.mark.parametrize("name", [7, True, None])
def test_a_section_whose_name_yaml_made_a_number_is_an_error(name: Any) -> None:
    text = message_of(provider("local-kvm", LOCAL), profile(name, BASE))
    assert "is not text (quote it)" in text


@pytest.mark.parametrize("keys", [None, "text", 3, ["text"]])
def test_a_section_that_is_no_mapping_is_an_error(keys: Any) -> None:
    assert "expected a mapping" in message_of(profile("a", keys))
    assert "expected a mapping" in message_of(provider("a", keys))


def test_a_secret_of_the_wrong_type_is_not_shown() -> None:
    text = message_of(
        provider("local-kvm", LOCAL),
        profile("a", {**BASE, "password": 123456789, "sudo_password": ["hunter2"]}),
    )
    assert "key 'password': <hidden> is not text in quotes" in text
    assert "123456789" not in text
    assert "hunter2" not in text


YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
KEY_NAMES = st.sampled_from(sorted(KEYS)) | st.text(max_size=8) | st.integers()
SECTION_KEYS = st.dictionaries(KEY_NAMES, YAML, max_size=6) | YAML


@given(
    st.lists(
        st.builds(
            Section,
            st.sampled_from([KeyLocation.PROVIDER, KeyLocation.PROFILE]),
            st.sampled_from(["a", "b", 1]),
            SECTION_KEYS | st.just(LOCAL) | st.just({**BASE, "provider": "a"}),
            st.just("FILE"),
        ),
        max_size=4,
    )
)
def test_whatever_yaml_holds_the_answer_is_a_catalogue_or_one_config_error(
    sections: list[Section],
) -> None:
    try:
        build(sections)
    except ConfigError as error:
        assert "FILE" in error.message


# --- other drivers ------------------------------------------------------------------


def test_sections_of_other_drivers_are_passed_over_in_silence() -> None:
    catalogue = build(
        [
            provider("amazon", {"driver": "ec2", "id": "x", "securitygroup": "y"}),
            provider("amazon", {"driver": "ec2", "id": "z"}, "another file"),
            profile("large", {"provider": "amazon:ec2", "size": "t2.large"}),
            provider("local-kvm", LOCAL),
            profile("small", BASE),
        ]
    )
    assert sorted(catalogue.profiles) == ["small"]
    assert catalogue.warnings == ()
    with pytest.raises(ConfigError, match="belongs to the driver 'ec2'"):
        catalogue.resolve("large", "web1")


def test_one_provider_name_may_hold_several_drivers() -> None:
    both = [{"driver": "ec2", "id": "x"}, dict(LOCAL)]
    catalogue = build(
        [
            provider("site", both),
            profile("here", {**BASE, "provider": "site:libvirt"}),
            profile("there", {**BASE, "provider": "site"}),
        ]
    )
    assert sorted(catalogue.profiles) == ["here"], "without a driver salt-cloud takes the first"
    assert catalogue.others == {"there": "ec2"}


# --- the fate of keys ---------------------------------------------------------------


def test_an_ignored_key_is_warned_about_with_its_place_and_reason() -> None:
    warnings = catalogue_of({"known_hosts_file": "/dev/null"}).warnings
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{PROFILE_PLACE}: section 'small': key 'known_hosts_file'")


def test_a_minion_id_in_a_profile_is_dropped_with_a_warning() -> None:
    catalogue = catalogue_of({"minion": {"id": "all-the-same"}})
    assert "id" not in catalogue.resolve("small", "web1")[0].deploy.minion
    assert "a minion is called like its clone" in catalogue.warnings[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("win_installer", "/x.exe"),
        ("make_syndic", True),
        ("make_minion", False),
        ("ssh_gateway", "bastion"),
        ("master_sign_pub_file", "/x"),
    ],
)
def test_a_key_that_would_make_something_else_is_refused_with_the_way_out(
    key: str, value: Any
) -> None:
    text = message_of(provider("local-kvm", LOCAL), profile("a", {**BASE, key: value}))
    assert f"key {key!r}: is refused: " in text


def test_a_refused_key_that_asks_for_nothing_is_passed_over() -> None:
    harmless = {"make_master": False, "make_minion": True, "use_winrm": False, "gateway": None}
    assert catalogue_of(harmless).warnings == ()


def test_a_time_is_checked_where_it_stands() -> None:
    assert resolved({"ttl": "12h"}).ttl == 43200.0
    assert "key 'ttl': " in message_of(
        provider("local-kvm", LOCAL), profile("a", {**BASE, "ttl": "soon"})
    )


def test_wishes_for_disks_and_networks_are_typed() -> None:
    request = resolved(
        {
            "disks": {"vda": {"size": "20GiB", "strategy": "full"}, "vdb": {"action": "skip"}},
            "networks": [{"bridge": "br0", "mac": "52:54:00:AB:CD:EF"}, {"network": "default"}],
            "protect": True,
        }
    )
    assert request.protect
    assert request.disks == {
        "vda": DiskChanges(size=20 * 1024**3, strategy="full"),
        "vdb": DiskChanges(action="skip"),
    }
    assert request.networks == (
        InterfaceChanges(bridge="br0", mac="52:54:00:ab:cd:ef"),
        InterfaceChanges(network="default"),
    )
    assert from_plain(Request, json.loads(json.dumps(to_plain(request)))) == request


@pytest.mark.parametrize(
    "wrong",
    [
        {"disks": {"vda": {"sise": 1}}},
        {"disks": {"vda": {"size": "big"}}},
        {"disks": {"vda": {"size": 0}}},
        {"disks": {"vda": {"action": "copy"}}},
        {"disks": {"vda": {"strategy": "reflink"}}},
        {"disks": ["vda"]},
        {"networks": [{"network": "default", "bridge": "br0"}]},
        {"networks": [{"bridge": "br0", "portgroup": "x"}]},
        {"networks": [{"mac": "52:54:00:12:34"}]},
        {"disks": {"vda": {"serial": "a/b"}}},
        {"disks": {"vda": {"serial": 4711}}},
        {"disks": {"vda": {"wwn": "5000"}}},
        {"networks": [{"network": "default", "mac": "52:54:00:12:34"}]},
        {"networks": [{"network": "default", "vlan": 7}]},
        {"networks": {"network": "default"}},
        {"networks": [{"network": "lan", "portgroup": " "}]},
        {"disks": {"vdb": {"size": "3GiB", "format": "vmdk"}}},
        {"leave_out": {"serial0": True}},
        {"leave_out": [0]},
    ],
    ids=str,
)
def test_a_wish_that_makes_no_sense_is_an_error_of_the_configuration(wrong: dict[str, Any]) -> None:
    (key,) = wrong
    said = message_of(provider("local-kvm", LOCAL), profile("a", {**BASE, **wrong}))
    assert f"key '{key}': " in said


def test_devices_are_left_out_by_a_provider_a_profile_or_one_word() -> None:
    left = {"leave_out": ["filesystem", "qemu:commandline"]}
    assert resolved({}, provider_keys={**LOCAL, **left}).leave_out == tuple(left["leave_out"])
    assert resolved({"leave_out": "serial0"}, provider_keys={**LOCAL, **left}).leave_out == (
        "serial0",
    )
    assert resolved({"leave_out": []}, provider_keys={**LOCAL, **left}).leave_out == ()


def test_no_portgroup_is_another_wish_than_none() -> None:
    networks = [{"portgroup": ""}, {"network": "lan"}, {"portgroup": "red"}]
    wishes = resolved({"networks": networks}).networks
    assert [wish.portgroup for wish in wishes] == ["", None, "red"]


def test_every_ignored_and_refused_key_says_why() -> None:
    for key in KEYS.values():
        has_word = key.fate in (schema.KeySupport.IGNORED, schema.KeySupport.REFUSED)
        assert bool(key.word) is has_word, key.name


def test_no_key_stands_in_the_table_twice() -> None:
    assert len(KEYS) == len(schema.TABLE)


def test_every_honoured_key_reaches_the_request() -> None:
    bare = {**BASE, "ssh_username": "root"}
    examples: dict[str, Any] = {
        "url": "qemu+ssh://x/system",
        "host": "kvm01",
        "hosts": "kvm*",
        "validate_xml": False,
        "pool": "fast",
        "clone_strategy": "quick",
        "instant": "prefer",
        "warm": "auto",
        "cpus": 3,
        "memory": "1GiB",
        "description": "x",
        "autostart": True,
        "tags": ["x"],
        "ttl": "12h",
        "spares": 3,
        "spare_names": "ci-{id}",
        "disks": {"vda": {"action": "skip"}},
        "networks": [{"network": "x"}],
        "leave_out": ["serial0"],
        "protect": True,
        "on_failure": "keep",
        "address": "192.168.122.50",
        "pick": {"family": "ipv4"},
        "ip_source": "qemu-agent",
        "wait_for_ip_timeout": 5,
        "wait_for_ip_interval": 5,
        "wait_for_ip_interval_multiplier": 2,
        "ssh_username": "x",
        "ssh_port": 2222,
        "sudo": True,
        "tty": False,
        "private_key": "/x",
        "private_key_passphrase": "x",
        "ssh_agent": True,
        "deploy": False,
        "bootstrap": "ssh",
        "reset_identity": False,
        "script": "x",
        "script_args": "x",
        "script_env": {"x": "y"},
        "deploy_command": "x",
        "preflight_cmds": ["x"],
        "inline_script": ["x"],
        "file_map": {"/x": "/y"},
        "minion": {"x": 1},
        "grains": {"x": 1},
        "enable_cloud_grains": False,
        "master_finger": "aa:bb",
        "append_domain": "example.com",
        "keysize": 3072,
        "start_action": "state.apply",
        "make_master": True,
        "master": {"x": 1},
        "password": "x",
        "sudo_password": "x",
        "seed": "keep",
    }
    elsewhere = {
        "driver", "provider", "extends", "base_domain", "use_fqdn", "domain", "placement",
    }  # fmt: skip
    honoured = {key.name for key in KEYS.values() if key.fate is schema.KeySupport.HONOURED}
    assert honoured - elsewhere == set(examples)
    plain = catalogue_of(bare).resolve("small", "web1")
    for key, value in examples.items():
        catalogue = catalogue_of({**bare, key: value}, read_file=lambda path: "x")
        assert catalogue.resolve("small", "web1") != plain, key


@pytest.mark.parametrize("domain", ["a,db1", "*", "../../x", "a b", "x" * 250, "web[12]"])
def test_a_domain_with_which_salt_means_other_minions_is_refused(domain: str) -> None:
    for keys in ({"append_domain": domain}, {"minion": {"append_domain": domain}}):
        with pytest.raises(ConfigError, match="append_domain"):
            resolved(keys)


def test_use_fqdn_with_a_domain_means_append_domain() -> None:
    request = resolved({"use_fqdn": True, "domain": "example.com"})
    assert request.minion_id == "web1.example.com"
    assert resolved({"minion": {"append_domain": "example.com"}}).minion_id == "web1.example.com"
