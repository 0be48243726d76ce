"""Who mistypes a command is told in plain words what is wrong, and how it is typed."""

from __future__ import annotations

from typing import Any

import pytest

from saltext.kvmclone.config.usage import Command
from saltext.kvmclone.errors import ConfigError, SecretInArgument


def create(profile: str, *names: str, name: str | None = None, **overrides: Any) -> None: ...


def plan(profile: str, name: str, **overrides: Any) -> None: ...


def destroy(*names: str, name: str | None = None, force: bool = False) -> None: ...


def gc(name: str | None = None, apply: bool = False) -> None: ...


def wait(name: str, timeout: int = 600, url: str | None = None) -> None: ...


def listing() -> None: ...


@pytest.mark.parametrize(
    ("function", "words", "keywords", "message", "hint"),
    [
        (create, [], {}, "Which profile and which name?", "create PROFILE NAME"),
        (create, [], {"name": "web1"}, "Which profile?", "create PROFILE name=web1"),
        (
            create,
            ["centos7"],
            {"cpus": 2},
            "Which name? 'centos7' was read as the profile.",
            "create centos7 NAME cpus=2",
        ),
        (
            create,
            ["web1"],
            {"profile": "centos7"},
            "Which profile? Both 'web1' and 'centos7' were given.",
            "create centos7 web1",
        ),
        (
            create,
            ["web1"],
            {"profil": "centos7"},
            "create does not take 'profil'. Did you mean 'profile'?",
            "create centos7 web1",
        ),
        (
            plan,
            ["centos7", "web1", "web2"],
            {},
            "'web2' is one word too many; plan takes PROFILE NAME [KEY=VALUE…].",
            "plan centos7 web1",
        ),
        (destroy, [], {}, "Which name?", "destroy NAME"),
        (
            destroy,
            ["web1"],
            {"forse": True},
            "destroy does not take 'forse'. Did you mean 'force'?",
            "destroy web1 force=True",
        ),
        (
            destroy,
            ["web1"],
            {"yes": True},
            "destroy does not take 'yes'; it takes NAME [NAME…] [force=True].",
            "destroy web1",
        ),
        (
            destroy,
            ["web1", "force"],
            {},
            "'force' is a switch of destroy; write force=True.",
            "destroy web1 force=True",
        ),
        (gc, ["apply"], {}, "'apply' is a switch of gc; write apply=True.", "gc apply=True"),
        (wait, [], {}, "Which name?", "wait NAME"),
        (
            wait,
            ["web1"],
            {"name": "web2"},
            "Which name? Both 'web1' and 'web2' were given.",
            "wait NAME",
        ),
        (
            wait,
            ["a", 60, "u", "v", "w"],
            {},
            "'v', 'w' are too many words; wait takes NAME [timeout=600] [url=URL].",
            "wait a 60 u",
        ),
        (listing, ["x"], {}, "'x' is one word too many; listing takes no arguments.", "listing"),
        (
            create,
            ["a b"],
            {"disks": {"vda": {}}},
            "Which name? 'a b' was read as the profile.",
            "create 'a b' NAME 'disks={\"vda\": {}}'",
        ),
    ],
)
def test_a_mistake_is_named_with_the_command_as_it_is_right(
    function: Any, words: list[Any], keywords: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Command.of(f"salt-run {function.__name__}", function).require(words, keywords)
    assert (caught.value.message, caught.value.hint) == (message, f"salt-run {hint}")


@pytest.mark.parametrize(
    ("function", "words", "keywords"),
    [
        (create, ["centos7", "web1", "web2"], {"cpus": 2}),
        (create, ["centos7"], {"names": ["web1"]}),
        (create, [], {"profile": "centos7", "name": "web1"}),
        # Which keys a profile may have is judged with the values, all at once.
        (create, ["centos7", "web1"], {"memry": "2GiB"}),
        (destroy, ["web1"], {"force": True}),
        (destroy, [], {"name": "force"}),
        (wait, ["timeout"], {"url": "qemu:///system"}),
        (listing, [], {}),
    ],
)
def test_what_is_right_passes(function: Any, words: list[Any], keywords: dict[str, Any]) -> None:
    Command.of("salt-run x", function).require(words, keywords)


def test_a_secret_among_wrong_arguments_is_not_repeated() -> None:
    with pytest.raises(SecretInArgument) as caught:
        Command.of("salt-run create", create).require([], {"password": "canary"})
    assert "canary" not in str(caught.value)


def stop(*names: str, name: str | None = None, tag: str | None = None) -> None: ...


def test_a_selection_stands_in_the_place_of_names() -> None:
    command = Command.of("stop", stop)
    command.require([], {"tag": "web"})
    command.require(["web1"], {})
    for keywords in ({}, {"tag": None}):
        with pytest.raises(ConfigError, match=r"Which name\?"):
            command.require([], keywords)


def remove(base: str, *only_hosts: str, yes: bool = False) -> None: ...


def test_what_only_narrows_a_command_may_be_left_out() -> None:
    command = Command.of("salt-run kvmclone.remove", remove)
    for words in (["gold"], ["gold", "kvm01", "kvm02"]):
        command.require(words, {})
    with pytest.raises(ConfigError, match="it takes BASE \\[HOST…\\] \\[yes=True\\]"):
        command.require(["gold"], {"quux": 1})
    with pytest.raises(ConfigError, match="Which base"):
        command.require([], {})
