"""A map of salt-cloud's is read as salt-cloud reads it, and judged whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import salt.config

from saltext.kvmclone import maps
from saltext.kvmclone.errors import ConfigError


@pytest.fixture
def opts(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "master").write_text(f"root_dir: {tmp_path}\n")
    (tmp_path / "cloud.maps.d").mkdir()
    found: dict[str, Any] = salt.config.master_config(str(tmp_path / "master"))
    return found


def read(opts: dict[str, Any], text: str) -> list[tuple[str, Any, dict[str, Any]]]:
    path = Path(opts["conf_file"]).parent / "cloud.maps.d/web.map"
    path.write_text(text)
    return maps.read(opts, "web")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("p: one", ["one"]),
        ("p: [one, two]", ["one", "two"]),
        ("p:\n  - one\n  - two: {cpus: 2}\n  - three:\n", ["one", "two", "three"]),
        ("p: {one: {cpus: 2}, two: {}}", ["one", "two"]),
        ("p:\n{% for n in range(3) %}\n  - web{{ n }}\n{% endfor %}", ["web0", "web1", "web2"]),
    ],
)
def test_every_way_to_write_it_is_understood(
    opts: dict[str, Any], text: str, names: list[str]
) -> None:
    assert [name for _profile, name, _keys in read(opts, text)] == names


def test_keys_override_those_of_the_profile(opts: dict[str, Any]) -> None:
    told = read(opts, "p:\n  - one: {cpus: 2, name: one}\nq: [two]\n")
    assert told == [("p", "one", {"cpus": 2}), ("q", "two", {})]


def test_an_order_that_would_not_be_kept_is_refused(opts: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"'requires'.*salt-cloud -m"):
        read(opts, "p:\n  - one: {requires: [two]}\n  - two\n")


def test_a_machine_that_is_named_twice_over_is_refused(opts: dict[str, Any]) -> None:
    """salt-cloud would make 'other' and look for 'one' ever after."""
    with pytest.raises(ConfigError, match=r"'one'.*name: other"):
        read(opts, "p:\n  - one: {name: other}\n")


def test_everything_that_is_wrong_is_named_at_once(opts: dict[str, Any]) -> None:
    text = "p:\n  - one: {cpus: many}\n  - two: {cpu_count: x}\n  - three: [4]\n  - one\n"
    with pytest.raises(ConfigError) as refused:
        read(opts, text)
    for word in ("cpus", "cpu_count", "'three'", "'one' is named twice"):
        assert word in str(refused.value)


@pytest.mark.parametrize("keys", ["password: hush", "script_env: {TOKEN: hush}"])
def test_a_secret_in_a_map_would_stand_in_the_clones_record(
    opts: dict[str, Any], keys: str
) -> None:
    with pytest.raises(ConfigError, match=f"'{keys.partition(':')[0]}' is a secret") as refused:
        read(opts, f"p:\n  - one: {{{keys}}}\n")
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "7", "[a]", "p: {one: ", "{{ x }", "{% if %}"])
def test_what_is_no_map_is_refused_with_a_word(opts: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(opts, text)
    assert refused.value.hint


def test_a_map_that_is_not_there_is_looked_for_where_salt_cloud_does(opts: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="no map 'nosuch'") as refused:
        maps.read(opts, "nosuch")
    assert "cloud.maps.d/nosuch" in refused.value.hint
