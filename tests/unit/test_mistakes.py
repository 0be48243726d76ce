"""What people mistype, and what they are told: what is wrong, and what to type instead."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import salt.config
import salt.loader
import salt.minion
import salt.utils.args
from salt.exceptions import CommandExecutionError

from tests.support.world import minion_opts

CHECKOUT = Path(__file__).parents[2]

PROFILES = {
    "centos7": {"provider": "local-kvm", "base_domain": "base"},
    "debian_12": {"provider": "local-kvm", "base_domain": "base"},
}

#: What was typed after ``salt-run``; what is said; the hint.
AT_MASTER = [
    ("create", "Which profile and which name?", "salt-run kvmclone.create PROFILE NAME"),
    (
        "create centos7",
        "Which name? 'centos7' was read as the profile.",
        "salt-run kvmclone.create centos7 NAME",
    ),
    (
        "create web1 centos7",
        "'web1' is not a profile, but 'centos7' is.",
        "salt-run kvmclone.create centos7 web1",
    ),
    (
        "create web1 debian_12",
        "'web1' is not a profile, but 'debian_12' is.",
        "salt-run kvmclone.create debian_12 web1",
    ),
    (
        "create web1 web2 centos7 cpus=2",
        "'web1' is not a profile, but 'centos7' is.",
        "salt-run kvmclone.create centos7 web1 web2 cpus=2",
    ),
    (
        "plan web1 centos7",
        "'web1' is not a profile, but 'centos7' is.",
        "salt-run kvmclone.plan centos7 web1",
    ),
    (
        "create centos web1",
        "There is no profile 'centos'. Did you mean 'centos7'?",
        "salt-run kvmclone.create centos7 web1",
    ),
    ("create x web1", "There is no profile 'x'.", "The profiles here: centos7, debian_12."),
    (
        "create web1 profile=centos7",
        "Which profile? Both 'web1' and 'centos7' were given.",
        "salt-run kvmclone.create centos7 web1",
    ),
    (
        "plan centos7 web1 web2",
        "'web2' is one word too many; kvmclone.plan takes PROFILE NAME [xml=True] [KEY=VALUE…].",
        "salt-run kvmclone.plan centos7 web1",
    ),
    ("destroy", "Which name?", "salt-run kvmclone.destroy NAME"),
    (
        "destroy web1 forse=True",
        "kvmclone.destroy does not take 'forse'. Did you mean 'force'?",
        "salt-run kvmclone.destroy web1 force=True",
    ),
    (
        "destroy web1 force",
        "'force' is a switch of kvmclone.destroy; write force=True.",
        "salt-run kvmclone.destroy web1 force=True",
    ),
    (
        "destroy web1 force=\"'true'\"",
        "force: 'true' is neither true nor false.",
        "Type force=True or force=False, without quotes. If it is one more name: name one clone at "
        "a time.",
    ),
    (
        "gc apply",
        "'apply' is a switch of kvmclone.gc; write apply=True.",
        "salt-run kvmclone.gc apply=True",
    ),
    ("map", "Which file?", "salt-run kvmclone.map FILE"),
    (
        "create centos7 web1 memory=lots",
        "memory: 'lots' is not a size. For example: memory=2GiB",
        "Correct it and run the command again.",
    ),
    (
        "create centos7 web1 cpu=2",
        "cpu: there is no such key; did you mean 'cpus'?",
        "Correct it and run the command again.",
    ),
    (
        "create centos7 web1 user=root",
        "user: there is no such key here; write it as ssh_username",
        "Correct it and run the command again.",
    ),
    (
        "create centos7 web1 clone_strategy=quik",
        "clone_strategy: 'quik' is not one of full, quick, instant. For example: "
        "clone_strategy=quick",
        "Correct it and run the command again.",
    ),
    (
        "create centos7 web1 deploy=\"'no'\"",
        "deploy: 'no' is text, since it is in quotes; take them away. For example: deploy=true",
        "Correct it and run the command again.",
    ),
    (
        "create centos7 web1 networks=\"'[{network: default}]'\"",
        "networks: '[{network: default}]' was read as text, since it has one pair of quotes too "
        "many. Write: networks='[{network: default}]'",
        "Correct it and run the command again.",
    ),
    (
        "create centos7 web1 provider=local-kmv",
        "There is no provider 'local-kmv'.",
        "Did you mean 'local-kvm'?",
    ),
    (
        "create centos7 007",
        "The name 7 was read as an integer, not as text.",
        'Quote it, in YAML name: "7", on the command line name=\'"7"\'.',
    ),
    (
        "create centos7 yes",
        "The name True was read as a boolean, not as text.",
        'Quote it, in YAML name: "yes", on the command line name=\'"yes"\'.',
    ),
]

#: The same after ``salt-call kvm_clone.``
ON_HOST = [
    ("create", "Which name? Hint: salt-call kvm_clone.create NAME"),
    ("show", "Which name? Hint: salt-call kvm_clone.show NAME"),
    (
        "stop web1 foo=bar",
        "kvm_clone.stop does not take 'foo'; it takes NAME [url=URL]. "
        "Hint: salt-call kvm_clone.stop web1",
    ),
    (
        "create web1 start",
        "'start' is a switch of kvm_clone.create; write start=True. "
        "Hint: salt-call kvm_clone.create web1 start=True",
    ),
    (
        "create web1",
        "What is 'web1' to be cloned from? Give a profile or a base. "
        "Hint: salt-call kvm_clone.create web1 profile=PROFILE   or: "
        "salt-call kvm_clone.create web1 base_domain=BASE",
    ),
    (
        "create centos7",
        "'centos7' is a profile. What is the clone to be called? "
        "Hint: salt-call kvm_clone.create NAME profile=centos7",
    ),
    (
        "plan centos7 web1 cpus=2",
        "'web1' is not a profile, but 'centos7' is. "
        "Hint: salt-call kvm_clone.plan web1 profile=centos7 cpus=2",
    ),
    (
        "create web1 profile=centos",
        "There is no profile 'centos'. Did you mean 'centos7'? "
        "Hint: salt-call kvm_clone.create web1 profile=centos7",
    ),
]


def answer_of(functions: Any, name: str, words: list[str]) -> Any:
    """What Salt's command line makes of the words, and the function of that."""
    function = functions[name]
    args, kwargs = salt.minion.load_args_and_kwargs(function, salt.utils.args.parse_input(words))
    return function(*args, **kwargs)


@pytest.fixture(scope="module")
def runners(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The runners of a master with two profiles."""
    folder = tmp_path_factory.mktemp("master")
    providers = {"local-kvm": {"driver": "libvirt", "host": "kvm01"}}
    configuration = {
        "root_dir": str(folder),
        "pki_dir": str(folder / "pki"),
        "cachedir": str(folder / "cache"),
        "extension_modules": str(folder / "none"),
        "module_dirs": [str(CHECKOUT)],
        "kvm_clone": {"providers": providers, "profiles": PROFILES},
    }
    (folder / "master").write_text(json.dumps(configuration))
    return salt.loader.runner(salt.config.master_config(str(folder / "master")), context={})


@pytest.mark.parametrize(("typed", "message", "hint"), AT_MASTER)
def test_the_runner_says_what_is_wrong_and_what_to_type(
    runners: Any, typed: str, message: str, hint: str
) -> None:
    function, *words = shlex.split(typed)
    answer = answer_of(runners, f"kvmclone.{function}", words)
    assert answer["retcode"] == 1
    told = {**answer.get("clones", {}), **answer.get("plans", {})}
    for error in [one["error"] for one in told.values()] or [answer["error"]]:
        assert (error["message"], error["hint"]) == (message, hint)


def test_the_runner_answers_to_the_name_of_the_execution_module(runners: Any) -> None:
    assert answer_of(runners, "kvm_clone.destroy", [])["error"]["message"] == "Which name?"


@pytest.mark.parametrize(("typed", "said"), ON_HOST)
def test_the_execution_module_says_what_is_wrong_and_what_to_type(
    tmp_path: Path, typed: str, said: str
) -> None:
    function, *words = shlex.split(typed)
    opts = minion_opts(tmp_path)
    providers = {"local-kvm": {"driver": "libvirt", "url": "qemu:///system"}}
    opts["kvm_clone"] = {"providers": providers, "profiles": PROFILES}
    functions = salt.loader.minion_mods(opts, context={})
    with pytest.raises(CommandExecutionError) as caught:
        answer_of(functions, f"kvm_clone.{function}", words)
    assert str(caught.value).partition(": ")[2] == said


@pytest.mark.parametrize(
    "line",
    [
        "create web pw=hunter2",
        "create centos web1 pw=hunter2",
        "plan web1 centos7 seed='{user_data: hunter2}'",
        "create centos7 apikey=hunter2",
    ],
)
def test_what_may_be_a_secret_is_not_repeated_in_a_hint(runners: Any, line: str) -> None:
    function, *words = shlex.split(line)
    answer = answer_of(runners, f"kvmclone.{function}", words)
    assert "hint" in json.dumps(answer)
    assert "hunter2" not in json.dumps(answer)


def test_a_clone_may_be_called_like_a_switch(runners: Any) -> None:
    answer = answer_of(runners, "kvmclone.destroy", ["force"])
    assert "is a switch" not in json.dumps(answer)


def test_every_part_of_the_runner_answers_to_both_names(runners: Any) -> None:
    for name in ("asked", "list", "work_off", "create"):
        assert f"kvm_clone.{name}" in runners
        assert f"kvmclone.{name}" in runners
