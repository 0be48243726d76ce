"""A map of salt-cloud's is read as salt-cloud reads it, and judged whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import salt.config

from saltext.kvmclone.config import map_files
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
    return map_files.read(opts, "web")


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


RANGES = [
    ("p: 'web[1-3]'", ["web1", "web2", "web3"]),
    ("p:\n  - web[08-10].example.com", [f"web{n}.example.com" for n in ("08", "09", "10")]),
    ("p:\n  - web[1,3]: {cpus: 2}\n  - db", ["web1", "web3", "db"]),
    ("p: {'a[1-2]b[1-2]': {}}", ["a1b1", "a1b2", "a2b1", "a2b2"]),
]


@pytest.mark.parametrize(("text", "names"), RANGES)
def test_a_range_is_as_many_machines_as_it_is_on_the_command_line(
    opts: dict[str, Any], text: str, names: list[str]
) -> None:
    assert [name for _profile, name, _keys in read(opts, text)] == names


def test_the_keys_below_a_range_are_those_of_each_and_are_judged_once(
    opts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    told = read(opts, "p:\n  - web[1-3]: {cpus: 2, image: x}\n")
    assert told == [("p", f"web{n}", {"cpus": 2}) for n in (1, 2, 3)]
    told[0][2]["cpus"] = 4
    assert told[1][2]["cpus"] == 2
    assert len([one for one in caplog.messages if "'image'" in one]) == 1
    with pytest.raises(ConfigError) as refused:
        read(opts, "p:\n  - web[1-3]: {cpus: many}\n")
    assert refused.value.message.count("web") == 1 + refused.value.message.count("web.map")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("p:\n  - web[1-\n", "line 2: p, 'web[1-': The brackets"),
        ("p:\n  - web[3-1]\n", "line 2: p, 'web[3-1]': The range '3-1'"),
        ("p:\n  - web[a-c]\n", "is no range of numbers"),
        ("p:\n  - web[1-2]\n  - web2\n", "line 3: 'web2' is named twice"),
        ("p:\n  - web[1-2]\nq:\n  - web[2-3]\n", "line 4: 'web2' is named twice"),
        ("p:\n  - web[1,1]\n", "line 2: p, 'web[1,1]': Named twice: web1"),
        ("p:\n  - web_[1-2]\n", "line 2: p, 'web_[1-2]': "),
        ("p:\n  - web[1-2]: {name: web1}\n", "it is given another name"),
        ("p:\n  - web[1-100000]\n", "100,000 names, and one command takes at most 1,000"),
        ("p:\n  - a[1-600]\n  - b[1-600]\n", "1,200 machines or more, and one command takes"),
    ],
)
def test_a_range_that_is_wrong_is_refused_as_on_the_command_line(
    opts: dict[str, Any], text: str, words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        read(opts, text)
    assert words in refused.value.message
    assert refused.value.hint


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


@pytest.mark.parametrize(
    "text", ["", "7", "[a]", "p: []", "p: {}\nq: []", "p: {one: ", "{{ x }", "{% if %}"]
)
def test_what_is_no_map_is_refused_with_a_word(opts: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(opts, text)
    assert refused.value.hint


def test_a_map_that_is_not_there_is_looked_for_where_salt_cloud_does(opts: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="no map 'nosuch'") as refused:
        map_files.read(opts, "nosuch")
    assert "cloud.maps.d/nosuch" in refused.value.hint


def refusal(opts: dict[str, Any], text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        read(opts, text)
    return refused.value.message


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("p:\n  - web1:\n    deploy: false\n", 3, "deploy"),
        ("p:\n  - web1:\n    provider: ny:libvirt\n", 3, "provider"),
        ("p:\n  - web1: {cpus: 2}\n    minion: {master: here}\n", 3, "minion"),
        ("p:\n  - deploy: false\n    web1:\n", 2, "deploy"),
        ("p:\n  - web1\n  - deploy: false\n", 3, "deploy"),
        ("p:\n  - web1:\n    map_grains: {a: b}\n", 3, "map_grains"),
        ("p:\n  web1:\n  deploy: false\n", 3, "deploy"),
        ("p:\n  - web1\ndeploy: false\n", 3, "deploy"),
        ("#!jinja|yaml\np:\n  - web1:\n    deploy: false\n", 4, "deploy"),
        ("{# why #}p:\n  - web1:\n    deploy: {{ False }}\n", 3, "deploy"),
        ("p:\n  web1:\n  grains: {role: web}\n", 3, "grains"),
        ("p:\n  web1:\n  minion:\n    master: here\n", 3, "minion"),
        ("p:\n  - web1:\n  - map_grains: {role: web}\n", 3, "map_grains"),
        ("p:\n  - web1:\n    deplyo: false\n", 3, "deplyo"),
        ("p:\n  - web1:\n    cpu: 2\n", 3, "cpu"),
    ],
)
def test_a_key_one_step_short_is_no_machine(
    opts: dict[str, Any], text: str, line: int, key: str
) -> None:
    said = refusal(opts, text)
    assert f"line {line}: '{key}' " in said
    assert "indent it" in said


@pytest.mark.parametrize(
    ("text", "meant"), [("deplyo: false", "deploy"), ("cpu: 2", "cpus"), ("autostrt: on", "auto")]
)
def test_a_misspelt_key_one_step_short_is_told_which_was_meant(
    opts: dict[str, Any], text: str, meant: str
) -> None:
    assert f"Did you mean '{meant}" in refusal(opts, f"p:\n  - web1:\n    {text}\n")


def test_all_keys_one_step_short_are_named_at_once(opts: dict[str, Any]) -> None:
    said = refusal(
        opts, "p:\n  - a:\n    deploy: false\n    cpus: 2\n  - b: {nosuch: 1}\nq:\n  c: x\n"
    )
    for word in ("line 3: 'deploy'", "line 4: 'cpus'", "line 5: p, 'b'", "line 7: q, 'c'"):
        assert word in said


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("p:\n  - deploy\n", ["deploy"]),
        ("p:\n  - web1\n  - deploy: {cpus: 2}\n", ["web1", "deploy"]),
        ("p:\n  - deploy:\n", ["deploy"]),
        ("p: deploy\n", ["deploy"]),
        ("p:\n  master: {cpus: 2}\n  gateway: {}\n  web1:\n", ["master", "gateway", "web1"]),
        ("p:\n  - web1:\n    web2: {cpus: 2}\n", ["web1", "web2"]),
        ("p:\n  - minion: {cpus: 2, grains: {role: web}}\n", ["minion"]),
        ("p:\n  - host1:\n    host2: true\n", ["host1", "host2"]),
    ],
)
def test_a_machine_may_be_called_like_a_key(
    opts: dict[str, Any], text: str, names: list[str]
) -> None:
    assert [name for _profile, name, _keys in read(opts, text)] == names


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("p:\n  - web1\n    web2\n", "line 2: p, 'web1 web2'.*item of its own"),
        ("p:\n  - web1\n  -\n", "line 3: 'p': an item is empty"),
        ("p:\n  - [web1]\n", "line 2: 'p': an item is a list"),
        ("p:\n  - web1: fast\n", "line 2: p, 'web1': not a mapping"),
        ("p:\n  - name: web1\n    cpus: 2\n", "line 2: a machine is named by the item itself"),
        ("p:\n  - web1\nq:\n  - web1\n", "line 4: 'web1' is named twice"),
        ("p:\n  - 7\n", "line 2: p, '7'.*Quote it"),
        ("p:\nq: [web1]\n", "line 1: 'p' has no list of names"),
        ("p:\n\t- web1\n", r"line 2 is indented with a tab; use spaces"),
        ("p:\n  - web1\np:\n  - web2\n", "conflicting ID 'p'"),
        (
            "{% for n in 'ab' %}\np{{ n }}:\n  - {{ n }}:\n    deploy: off\n{% endfor %}",
            "line 4 as rendered: 'deploy'.*line 8 as rendered: 'deploy'",
        ),
    ],
)
def test_other_slips_are_told_with_their_line(opts: dict[str, Any], text: str, word: str) -> None:
    assert re.search(word, refusal(opts, text), re.DOTALL)


def test_what_salt_cloud_works_on_is_judged_for_our_profiles_alone(
    opts: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "web.map"
    path.write_text("p:\n  - web1:\n    deploy: false\nec2:\n  - web2:\n    size: large\n")
    map_files.require_shape({**opts, "map": str(path)}, ["other"])
    map_files.require_shape(opts, ["p"])
    served = {**opts, "file_roots": {"base": [str(tmp_path)]}, "map": "salt://web.map"}
    with pytest.raises(ConfigError, match="line 3: 'deploy'"):
        map_files.require_shape(served, ["p"])
    with pytest.raises(ConfigError) as refused:
        map_files.require_shape({**opts, "map": str(path)}, ["p"])
    assert "line 3: 'deploy'" in refused.value.message
    assert "size" not in refused.value.message
