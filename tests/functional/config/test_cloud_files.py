"""Promises about the files: found by Salt's rules, all mistakes named with file and line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import salt.config
import yaml

from saltext.kvmclone.config import cloud_files
from saltext.kvmclone.config.catalogue import KEYS, Catalogue
from saltext.kvmclone.config.validate import error_for
from saltext.kvmclone.errors import ConfigError
from tests.support.documented import PROFILE, PROVIDERS

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file below the configuration folder."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_file


@pytest.fixture
def documented(write: Write) -> None:
    """The documented provider and profile, in the folders that packages create."""
    write("cloud.providers.d/kvm.conf", PROVIDERS)
    write("cloud.profiles.d/kvm.conf", PROFILE)


@pytest.fixture
def opts(tmp_path: Path, write: Write) -> Callable[[], dict[str, Any]]:
    """A master's real options, read from what was written so far."""

    def read_master() -> Any:
        if not (tmp_path / "master").exists():
            write("master", f"root_dir: {tmp_path}\n")
        return salt.config.master_config(str(tmp_path / "master"))

    return read_master


def message_of(read: Callable[[], Catalogue]) -> str:
    return error_for(read().problems.found).message


@pytest.mark.usefixtures("documented")
def test_the_documented_files_work_to_the_letter(opts: Any) -> None:
    catalogue = cloud_files.read(opts())
    assert sorted(catalogue.profiles) == ["centos7"]
    request, secrets = catalogue.resolve("centos7", "my-centos7-clone")
    assert (request.base_domain, request.clone_strategy) == ("base-centos7-64", "quick")
    assert request.validate_xml is False
    assert request.deploy.minion["master"] == "192.168.16.1"
    assert secrets.password == "my-very-secret-password"


def test_a_machine_without_any_configuration_has_an_empty_catalogue(opts: Any) -> None:
    assert sorted(cloud_files.read(opts()).profiles) == []


def test_a_minion_reads_the_files_beside_its_own_configuration(
    tmp_path: Path, write: Write
) -> None:
    write("minion", f"id: kvm01\nroot_dir: {tmp_path}\n")
    write("cloud.providers", PROVIDERS)
    write("cloud.profiles", PROFILE)
    opts = salt.config.minion_config(str(tmp_path / "minion"))
    assert sorted(cloud_files.read(opts).profiles) == ["centos7"]


@pytest.mark.usefixtures("documented")
def test_what_salt_clouds_own_reader_makes_of_the_files_is_read_too(tmp_path: Path) -> None:
    opts = salt.config.cloud_config(
        str(tmp_path / "cloud"), master_config={"cachedir": "", "root_dir": "/"}
    )
    opts["conf_file"] = str(tmp_path / "cloud")
    assert sorted(cloud_files.read(opts).profiles) == ["centos7"]


@pytest.mark.usefixtures("documented")
def test_includes_and_moved_files_are_found_as_salt_finds_them(
    write: Write, opts: Any, tmp_path: Path
) -> None:
    write("cloud", "ssh_port: 1022\nprofiles_config: mine/profiles\n")
    write("cloud.conf.d/more.conf", "ssh_port: 2022\n")
    write("mine/profiles", "include: extra/*.conf\ndefault_include: none\n")
    write("mine/extra/a.conf", "a: {provider: local-kvm, base_domain: base}\n")
    catalogue = cloud_files.read(opts())
    assert sorted(catalogue.profiles) == ["a"]
    assert catalogue.resolve("a", "web1")[0].login.port == 2022
    assert catalogue.profiles["a"].place == f"{tmp_path}/mine/extra/a.conf:1"


def test_providers_in_the_cloud_file_itself_are_read_as_in_old_times(
    write: Write, opts: Any
) -> None:
    write("cloud", "providers:\n  old:\n    driver: libvirt\n    url: qemu:///system\n")
    write("cloud.profiles", "a: {provider: old, base_domain: base}\n")
    assert sorted(cloud_files.read(opts()).profiles) == ["a"]


def test_a_script_that_nobody_named_is_not_invented_from_salts_defaults(
    write: Write, opts: Any
) -> None:
    write("cloud.providers", PROVIDERS)
    write("cloud.profiles", "a: {provider: local-kvm, base_domain: base}\n")
    assert cloud_files.read(opts()).resolve("a", "web1")[0].deploy.script == ""
    write("cloud", "script: my-bootstrap\n")
    assert cloud_files.read(opts()).resolve("a", "web1")[0].deploy.script == "my-bootstrap"


# --- extends, held against Salt's own reader ----------------------------------------

EXTENDING_PROVIDERS = """\
base:
  driver: libvirt
  url: qemu:///system
  validate_xml: false
  minion: {master: one, log_level: debug}
derived:
  extends: base:libvirt
  url: qemu+ssh://kvm02/system
  minion: {master: two}
"""
EXTENDING_PROFILES = """\
small:
  provider: base
  base_domain: debian
  minion: {grains: {size: small, site: home}}
  preflight_cmds: [a, b]
large:
  extends: small
  provider: derived:libvirt
  cpus: 4
  minion: {grains: {size: large}}
  preflight_cmds: [c]
"""


def test_extends_gives_what_salts_own_reader_gives(write: Write, opts: Any, tmp_path: Path) -> None:
    write("cloud.providers", EXTENDING_PROVIDERS)
    write("cloud.profiles", EXTENDING_PROFILES)
    providers = salt.config.cloud_providers_config(str(tmp_path / "cloud.providers"))
    profiles = salt.config.vm_profiles_config(str(tmp_path / "cloud.profiles"), providers)
    catalogue = cloud_files.read(opts())

    def without(keys: dict[str, Any], *names: str) -> dict[str, Any]:
        return {name: value for name, value in keys.items() if name not in names}

    salts = without(providers["derived"]["libvirt"], "profiles")
    assert catalogue.providers["derived"] == salts
    for name in ("small", "large"):
        salts = without(profiles[name], "profile", "provider")
        assert without(catalogue.profiles[name].keys, "provider") == salts


def test_a_provider_that_is_extended_keeps_its_own_settings(write: Write, opts: Any) -> None:
    # Salt's reader writes the settings of the extending provider into the extended one.
    write("cloud.providers", EXTENDING_PROVIDERS)
    minion = cloud_files.read(opts()).providers["base"]["minion"]
    assert minion == {"master": "one", "log_level": "debug"}


# --- mistakes -----------------------------------------------------------------------


@pytest.mark.usefixtures("documented")
def test_all_mistakes_of_all_files_come_in_one_error_with_file_and_line(
    write: Write, opts: Any, tmp_path: Path
) -> None:
    write("cloud.profiles.d/a.conf", "\nlost:\n  base_domain: base\n")
    write("cloud.profiles.d/b.conf", "b:\n  provider: nowhere\n  base_domain: base\n")
    write("cloud.profiles.d/c.conf", "c: {provider: local-kvm, base_domain: x, cpu: 2}\n")
    write("cloud.profiles.d/d.conf", "d:\n  provider: local-kvm\n bad\n")
    write("cloud.profiles.d/e.conf", "just text\n")
    text = message_of(lambda: cloud_files.read(opts()))
    folder = f"{tmp_path}/cloud.profiles.d"
    assert f"{folder}/a.conf:2: section 'lost': key 'provider': is missing" in text
    assert f"{folder}/b.conf:2: section 'b': key 'provider': there is no provider" in text
    assert f"{folder}/c.conf:1: section 'c': key 'cpu': there is no such key" in text
    assert f"{folder}/d.conf:3: is not valid YAML" in text
    assert f"{folder}/e.conf: holds no sections" in text


def test_a_key_that_stands_twice_in_one_file_is_an_error_with_both_lines(
    write: Write, opts: Any, tmp_path: Path
) -> None:
    write("cloud.providers", PROVIDERS)
    write(
        "cloud.profiles",
        "a:\n  provider: local-kvm\n  base_domain: one\n  base_domain: two\n"
        "b: {provider: local-kvm, base_domain: x}\nb: {provider: local-kvm, base_domain: y}\n",
    )
    text = message_of(lambda: cloud_files.read(opts()))
    place = f"{tmp_path}/cloud.profiles"
    assert f"{place}:4: section 'a': key 'base_domain': occurs twice, in lines 3 and 4" in text
    assert f"{place}:6: section 'b': occurs twice, in lines 5 and 6" in text


def test_two_files_that_define_one_name_differently_are_both_named(
    write: Write, opts: Any, tmp_path: Path
) -> None:
    write("cloud.providers", PROVIDERS)
    write("cloud.profiles.d/one.conf", "a: {provider: local-kvm, base_domain: x}\n")
    write("cloud.profiles.d/two.conf", "a: {provider: local-kvm, base_domain: y}\n")
    text = message_of(lambda: cloud_files.read(opts()))
    assert f"{tmp_path}/cloud.profiles.d/two.conf:1: section 'a': is defined differently" in text
    assert f"{tmp_path}/cloud.profiles.d/one.conf:1" in text


def test_the_sign_that_a_broken_line_lacks_is_named(write: Write, opts: Any) -> None:
    write("cloud.profiles", "a:\n  base_domain: [b\n")
    assert re.search(r"expected ',' or '\]'", message_of(lambda: cloud_files.read(opts())))


def test_a_broken_line_with_a_password_is_not_quoted(write: Write, opts: Any) -> None:
    write("cloud.profiles", "a:\n  password: hunter2\n  'hunter2\n")
    assert "hunter2" not in message_of(lambda: cloud_files.read(opts()))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_named(write: Write, opts: Any) -> None:
    write("cloud.profiles", "a: {}\n").chmod(0)
    assert "cannot be read: Permission denied" in message_of(lambda: cloud_files.read(opts()))


def test_a_file_that_is_not_text_is_named(write: Write, opts: Any) -> None:
    write("cloud.profiles", "").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8 text" in message_of(lambda: cloud_files.read(opts()))


# --- the other places ---------------------------------------------------------------

OWN_SECTION = """\
kvm_clone:
  providers:
    local-kvm: {driver: libvirt, url: "qemu:///system"}
  profiles:
    of-master: {provider: local-kvm, base_domain: base}
    larger: {extends: of-master, cpus: 4}
"""


def test_the_masters_own_section_holds_the_same_dictionaries(
    write: Write, opts: Any, tmp_path: Path
) -> None:
    write("master", f"root_dir: {tmp_path}\n" + OWN_SECTION)
    catalogue = cloud_files.read(opts())
    assert sorted(catalogue.profiles) == ["larger", "of-master"]
    request = catalogue.resolve("larger", "web1")[0]
    assert (request.cpus, request.base_domain) == (4, "base")
    assert type(request.deploy.minion) is dict


@pytest.mark.usefixtures("documented")
def test_a_profile_in_the_pillar_may_use_a_provider_of_the_files(opts: Any) -> None:
    pillar = {"kvm_clone": {"profiles": {"p": {"provider": "local-kvm", "base_domain": "b"}}}}
    catalogue = cloud_files.read(opts(), pillar)
    assert catalogue.resolve("p", "web1")[0].validate_xml is False
    assert catalogue.profiles["p"].place == "pillar, kvm_clone:profiles"


@pytest.mark.usefixtures("documented")
def test_a_name_defined_in_the_files_and_in_the_pillar_names_both_places(
    opts: Any, tmp_path: Path
) -> None:
    pillar = {"kvm_clone": {"profiles": {"centos7": {"provider": "local-kvm"}}}}
    text = message_of(lambda: cloud_files.read(opts(), pillar))
    assert text.startswith("pillar, kvm_clone:profiles: section 'centos7': is defined differently")
    assert f"{tmp_path}/cloud.profiles.d/kvm.conf:1" in text


def test_a_slip_in_the_name_of_a_part_is_an_error_and_other_settings_are_not(opts: Any) -> None:
    assert cloud_files.read(opts(), {"kvm_clone": {"reactor": {"limit": 5}}})
    text = message_of(lambda: cloud_files.read(opts(), {"kvm_clone": {"profile": {}}}))
    assert text == "pillar, kvm_clone:profile: did you mean 'profiles'?"


@pytest.mark.parametrize("wrong", [[], "profiles", {"profiles": []}, {"providers": "x"}])
def test_a_section_of_the_wrong_shape_is_an_error(opts: Any, wrong: Any) -> None:
    assert "is not a mapping" in message_of(lambda: cloud_files.read(opts(), {"kvm_clone": wrong}))


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("kvm_clone:\n  providers: {kvm: {driver: libvirt, host: kvm01\n", True),
        ("kvm_clone:\n  providers: {}\n  providers: {}\n", True),
        ("other: [\n", False),
    ],
)
def test_a_file_of_the_master_that_salt_dropped_may_name_hosts(
    write: Write, opts: Any, text: str, counts: bool, tmp_path: Path
) -> None:
    """Salt logs that it cannot read one in master.d, and starts without it."""
    write("master.d/kvm.conf", text)
    problems = cloud_files.read(opts()).problems
    assert bool(problems.forbidding_gone()) is counts
    assert bool(problems.hiding_hosts()) is counts
    if counts:
        assert f"{tmp_path}/master.d/kvm.conf:" in str(problems.forbidding_gone())


@pytest.mark.parametrize("file", ["master", "master.d/b.conf"])
def test_the_masters_own_section_has_file_and_lines_too(
    write: Write, opts: Any, tmp_path: Path, file: str
) -> None:
    write("master", f"root_dir: {tmp_path}\n")
    part = "kvm_clone:\n  profiles:\n    a:\n      cpu: 2\n  providers:\n    b: {driver: libvirt}\n"
    write(file, f"root_dir: {tmp_path}\n{part}")
    text = message_of(lambda: cloud_files.read(opts()))
    assert f"{tmp_path}/{file}:5: section 'a': key 'cpu'" in text
    assert f"{tmp_path}/{file}:4: section 'a': key 'provider'" in text
    assert f"{tmp_path}/{file}:7: section 'b': key 'url'" in text


def test_a_section_that_another_file_of_the_master_replaces_is_named(
    write: Write, opts: Any, tmp_path: Path
) -> None:
    """Salt takes the last kvm_clone: whole; the providers of the first are gone without a word."""
    provider = "kvm_clone:\n  providers:\n    kvm: {driver: libvirt, host: kvm01}\n"
    write("master", f"root_dir: {tmp_path}\n{provider}")
    write("master.d/b.conf", "kvm_clone:\n  profiles: {}\n")
    problems = cloud_files.read(opts()).problems
    assert set(problems.hiding_hosts()) == {"kvm"}
    assert f"{tmp_path}/master:4: section 'kvm': is not part of what Salt read" in str(
        problems.forbidding_gone()
    )


def test_two_files_of_the_master_that_define_one_name_differently_are_both_named(
    write: Write, opts: Any, tmp_path: Path
) -> None:
    """Salt merges them, key by key."""
    for number in (1, 2):
        keys = f"{{driver: libvirt, host: kvm0{number}}}"
        write(f"master.d/{number}.conf", f"kvm_clone:\n  providers:\n    kvm: {keys}\n")
    catalogue = cloud_files.read(opts())
    assert catalogue.providers == {}
    assert f"{tmp_path}/master.d/2.conf:3: section 'kvm': is defined differently in" in str(
        catalogue.problems.forbidding_gone()
    )


# --- what works all the same ----------------------------------------------------------


@pytest.mark.usefixtures("documented")
@pytest.mark.parametrize("kind", ["providers", "profiles"])
@pytest.mark.parametrize(
    "text", ["x:\n  a: [\n", "x: {a: 1}\n\ty: 2\n", "just text\n", "x: &a\ny: *b\n"]
)
def test_what_stands_in_other_files_works_beside_one_that_cannot_be_read(
    write: Write, opts: Any, kind: str, text: str, tmp_path: Path
) -> None:
    write(f"cloud.{kind}.d/broken.conf", text)
    catalogue = cloud_files.read(opts())
    assert catalogue.resolve("centos7", "web1")
    assert "broken.conf" in str(catalogue.problems.forbidding_gone())
    assert bool(catalogue.problems.hiding_hosts()) is (kind == "providers")
    assert "broken.conf" in catalogue.problems.elsewhere()[0]


@pytest.mark.usefixtures("documented")
def test_the_line_is_that_of_the_key_wherever_it_comes_from(
    write: Write, opts: Any, tmp_path: Path
) -> None:
    write(
        "cloud.profiles.d/a.conf",
        "anchor: &anchor\n  provider: local-kvm\n  cpu: 2\n"
        "a:\n  <<: *anchor\n  base_domain: base\n  memry: 1\n",
    )
    write(
        "cloud.providers.d/b.conf",
        "two:\n  - driver: ec2\n    id: x\n  - driver: libvirt\n    host: kvm01\n    pol: fast\n",
    )
    text = message_of(lambda: cloud_files.read(opts()))
    assert f"{tmp_path}/cloud.profiles.d/a.conf:3: section 'a': key 'cpu'" in text
    assert f"{tmp_path}/cloud.profiles.d/a.conf:7: section 'a': key 'memry'" in text
    assert f"{tmp_path}/cloud.providers.d/b.conf:6: section 'two': key 'pol'" in text


@pytest.mark.usefixtures("documented")
def test_a_key_of_the_cloud_file_has_its_line_and_stops_creates_only(
    write: Write, opts: Any, tmp_path: Path
) -> None:
    write("cloud", "log_level: warning\nssh_port: many\n")
    catalogue = cloud_files.read(opts())
    assert "local-kvm" in catalogue.providers
    assert catalogue.problems.forbidding_gone() is None
    with pytest.raises(ConfigError, match=rf"{tmp_path}/cloud:2: key 'ssh_port': 'many'"):
        catalogue.resolve("centos7", "web1")


@pytest.mark.usefixtures("documented")
def test_providers_of_the_cloud_file_that_cannot_be_read_are_not_passed_over(
    write: Write, opts: Any
) -> None:
    write("cloud", "providers:\n  - old: {driver: libvirt, url: 'qemu+ssh://old/system'}\n")
    found = cloud_files.read(opts())
    assert "cloud:1: key 'providers': is not a mapping" in str(found.problems.forbidding_gone())
    found.problems.require_profile("centos7")


def test_a_link_to_a_file_that_is_not_there_is_named(write: Write, opts: Any) -> None:
    write("cloud.profiles", "a: {provider: x, base_domain: b}\n")
    (write("x", "").parent / "cloud.providers").symlink_to("/nowhere/providers")
    problems = cloud_files.read(opts()).problems
    assert "cloud.providers: cannot be read: No such file" in str(problems.forbidding_gone())


# --- sdb ----------------------------------------------------------------------------


@pytest.mark.usefixtures("documented")
def test_a_password_is_fetched_through_salts_sdb(
    write: Write, opts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KVM_PASSWORD", "hunter2")
    write("master", f"root_dir: {tmp_path}\nenvironment: {{driver: env}}\n")
    write(
        "cloud.profiles.d/a.conf",
        "a: {provider: local-kvm, base_domain: base, password: 'sdb://environment/KVM_PASSWORD'}\n"
        "b: {provider: local-kvm, base_domain: base, password: 'sdb://nowhere/KVM_PASSWORD'}\n"
        "c: {provider: local-kvm, base_domain: base, password: 'sdb://environment/NOT_THERE'}\n",
    )
    catalogue = cloud_files.read(opts())
    assert catalogue.resolve("a", "web1")[1].password == "hunter2"
    for profile in ("b", "c"):
        with pytest.raises(ConfigError, match="sdb://") as caught:
            catalogue.resolve(profile, "web1")
        assert "sdb profile" in caught.value.hint


# --- salt-cloud's keys --------------------------------------------------------------


@pytest.mark.parametrize(
    "source", ["utils/cloud.py", "cloud/__init__.py", "cloud/clouds/saltify.py"]
)
def test_every_key_that_the_installed_salt_cloud_reads_is_known(source: str) -> None:
    text = (Path(salt.config.__file__).parents[1] / source).read_text()
    read_by_salt = set(re.findall(r'get_cloud_config_value\(\s*"(\w+)"', text))
    assert read_by_salt - set(KEYS) == set()


def test_the_example_pillar_is_accepted_as_it_stands(opts: Any) -> None:
    example = yaml.safe_load((Path(__file__).parents[3] / "pillar.example").read_text())
    catalogue = cloud_files.read(opts(), example)
    assert sorted(catalogue.profiles) == ["debian", "debian-large"]
    assert catalogue.warnings == ()


@pytest.mark.parametrize(
    "value", ["*canary", "!canary", "!<canary> x", "!<<canary>>", "!a'canary", "%canary", "@canary"]
)
def test_a_password_that_yaml_stumbles_over_is_not_quoted(
    write: Write, opts: Any, value: str
) -> None:
    write("cloud.profiles.d/kvm.conf", f"small:\n  password: {value}\n")
    message = message_of(lambda: cloud_files.read(opts()))
    assert "kvm.conf:2: is not valid YAML" in message
    assert "canary" not in message
