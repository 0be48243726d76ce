"""A wrong section is refused where it is used, whole; whatever does not use it works."""

from __future__ import annotations

from typing import Any

import pytest

from saltext.kvmclone.config.catalogue import Catalogue, KeyLocation, Problem, Section, build
from saltext.kvmclone.errors import ConfigError
from tests.support.catalogues import BASE, LOCAL, profile, provider

SOUND = (provider("local-kvm", LOCAL), profile("small", BASE))


def refusal(catalogue: Catalogue, name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        catalogue.resolve(name, "web1")
    return caught.value.message


@pytest.mark.parametrize(
    "wrong",
    [
        profile("a", {**BASE, "clone_stratgy": "full"}),
        profile("a", {**BASE, "provider": "nowhere"}),
        profile("a", {"base_domain": "base"}),
        profile("a", None),
        profile(7, BASE),
        profile("a", {**BASE, "extends": "nothing"}),
        provider("kvm02", {"driver": "libvirt"}),
        provider("kvm02", {**LOCAL, "urll": "x"}),
        provider("kvm02", ["text"]),
        Section(KeyLocation.PROVIDER, "kvm02", [dict(LOCAL), dict(LOCAL)], "FILE:1"),
    ],
    ids=lambda section: f"{section.kind.name}-{section.name}-{section.keys}"[:60],
)
def test_a_wrong_section_stops_nobody_who_does_not_use_it(wrong: Section) -> None:
    catalogue = build([*SOUND, wrong])
    assert catalogue.resolve("small", "web1")[0].base_domain == "base"
    assert set(catalogue.providers) == {"local-kvm"}
    (warning,) = catalogue.problems.elsewhere()
    assert f"'{wrong.name}'" in warning
    assert catalogue.describe()["problems"]


def test_who_uses_it_hears_all_of_its_problems_with_the_lines_of_the_keys() -> None:
    keys = {"provider": "nowhere", "cpus": "two", "clone_stratgy": "full"}
    places = {key: f"FILE:{line}" for line, key in enumerate(keys, 4)}
    catalogue = build([*SOUND, Section(KeyLocation.PROFILE, "a", keys, "FILE:3", (places,))])
    lines = refusal(catalogue, "a").splitlines()[1:]
    assert [line.partition(" is ")[0] for line in lines] == [
        "FILE:4: section 'a': key 'provider': there",
        "FILE:5: section 'a': key 'cpus': 'two'",
        "FILE:6: section 'a': key 'clone_stratgy': there",
        "FILE:3: section 'a': key 'base_domain':",
    ]


def test_the_problems_of_a_provider_are_those_of_its_profiles_and_of_no_others() -> None:
    bad = provider("bad", {**LOCAL, "pol": "fast"})
    catalogue = build([*SOUND, bad, profile("b", {**BASE, "provider": "bad", "cpus": "two"})])
    text = refusal(catalogue, "b")
    assert "key 'pol'" in text
    assert "key 'cpus'" in text
    with pytest.raises(ConfigError, match="'pol'"):
        catalogue.resolve("small", "web1", {"provider": "bad"})
    with pytest.raises(ConfigError, match="'pol'"):
        catalogue.resolve_inline("web1", {"provider": "bad", "base_domain": "base"})
    with pytest.raises(ConfigError, match="'pol'"):
        catalogue.resolve_machine(
            {"name": "web1", "provider": "bad:libvirt", **BASE} | {"provider": "bad:libvirt"}
        )


def test_a_wrong_key_of_a_section_concerns_those_that_extend_it() -> None:
    common = profile("common", {"provider": "local-kvm", "cpu": 2})
    catalogue = build([*SOUND, common, profile("w", {"extends": "common", "base_domain": "b"})])
    assert "section 'common': key 'cpu'" in refusal(catalogue, "w")


def test_what_a_section_lacks_does_not_concern_those_that_extend_it_and_have_it() -> None:
    common = profile("common", {"cpus": 2})
    catalogue = build([*SOUND, common, profile("w", {"extends": "common", **BASE})])
    assert catalogue.resolve("w", "web1")[0].cpus == 2
    assert "key 'provider': is missing" in refusal(catalogue, "common")


def test_the_provider_that_an_extended_profile_names_concerns_only_itself() -> None:
    bad = provider("bad", {**LOCAL, "pol": "fast"})
    common = profile("common", {**BASE, "provider": "bad"})
    catalogue = build([*SOUND, bad, common, profile("w", {"extends": "common", **BASE})])
    assert catalogue.resolve("w", "web1")


def test_a_name_that_is_defined_twice_is_refused_and_no_other() -> None:
    catalogue = build(
        [*SOUND, profile("a", BASE, "one:1"), profile("a", {**BASE, "cpus": 2}, "two:2")]
    )
    assert refusal(catalogue, "a").startswith("two:2: section 'a': is defined differently in one:1")
    assert catalogue.resolve("small", "web1")


def test_a_provider_that_is_defined_twice_is_read_by_neither_definition() -> None:
    twice = provider("local-kvm", {**LOCAL, "url": "qemu+ssh://other/system"}, "two:2")
    other = provider("other", LOCAL)
    catalogue = build([*SOUND, twice, other, profile("b", {**BASE, "provider": "other"})])
    assert set(catalogue.providers) == {"other"}
    assert "is defined differently" in refusal(catalogue, "small")
    assert catalogue.resolve("b", "web1")


def test_a_wrong_key_of_the_cloud_file_concerns_every_machine_and_hides_no_host() -> None:
    places = {"ssh_port": "/etc/salt/cloud:3"}
    catalogue = build(SOUND, {"ssh_port": "many"}, cloud_places=places)
    assert refusal(catalogue, "small").startswith("/etc/salt/cloud:3: key 'ssh_port': 'many'")
    with pytest.raises(ConfigError, match="ssh_port"):
        catalogue.resolve_inline("web1", {"base_domain": "base"})
    assert catalogue.problems.hiding_hosts() == {}
    assert catalogue.problems.forbidding_gone() is None


# --- is it certain which hosts there are ----------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        {"driver": "libvirt"},
        {"driver": "libvrt", "url": "qemu:///system"},
        {"driver": "Libvirt", "host": "kvm02"},
        {"drivr": "libvirt", "host": "kvm02"},
        {"url": "qemu+ssh://kvm02/system"},
        {"host": "kvm02"},
        {"driver": "libvirt", "host": 7},
        {"extends": "nothing:libvirt", "host": "kvm02"},
        {"driver": ["libvirt"], "host": "kvm02"},
        None,
    ],
    ids=str,
)
def test_a_provider_that_was_meant_to_be_ours_may_have_a_host(keys: Any) -> None:
    problems = build([*SOUND, provider("kvm02", keys)]).problems
    assert set(problems.hiding_hosts()) == {"kvm02"}
    assert "'kvm02'" in str(problems.forbidding_gone())


@pytest.mark.parametrize(
    "keys",
    [
        {"driver": "ec2", "id": "x", "location": "eu"},
        {"driver": "vmware", "url": "10.0.0.1", "user": "x"},
        {"extends": "amazon:ec2", "location": "x"},
        {"user": "x", "apikey": "y"},
    ],
    ids=str,
)
def test_a_provider_of_another_driver_is_none_of_our_business(keys: Any) -> None:
    assert build([*SOUND, provider("other", keys)]).problems.found == ()
    of_others = "driver" in keys or "extends" in keys
    assert bool(build([*SOUND, provider(7, keys)]).problems.found) is not of_others


def test_a_provider_that_extends_a_wrong_one_may_have_a_host_of_its_own() -> None:
    parent = provider("parent", {**LOCAL, "pol": "fast"})
    child = provider("child", {"extends": "parent:libvirt", "url": "qemu+ssh://kvm02/system"})
    assert set(build([*SOUND, parent, child]).problems.hiding_hosts()) == {"parent", "child"}


def test_a_file_that_cannot_be_read_forbids_to_call_anybody_gone() -> None:
    for kind, hides in (
        (KeyLocation.PROVIDER, True),
        (KeyLocation.GLOBAL, True),
        (KeyLocation.PROFILE, False),
    ):
        broken = Problem("FILE:9", "", "", "is not valid YAML: x", kind)
        catalogue = build(SOUND, problems=[broken])
        assert bool(catalogue.problems.hiding_hosts()) is hides
        assert "FILE:9: is not valid YAML" in str(catalogue.problems.forbidding_gone())


def test_a_profile_that_is_not_found_may_stand_in_the_file_that_could_not_be_read() -> None:
    broken = Problem("FILE:9", "", "", "is not valid YAML: x", KeyLocation.PROFILE)
    catalogue = build(SOUND, problems=[broken])
    assert "It may be in a file that cannot be read: FILE:9" in refusal(catalogue, "web")
    assert catalogue.resolve("small", "web1")
    wrong = profile("a", {**BASE, "provider": "nowhere"})
    broken = Problem("FILE:9", "", "", "is not valid YAML: x", KeyLocation.PROVIDER)
    assert "FILE:9" in refusal(build([*SOUND, wrong], problems=[broken]), "a")
