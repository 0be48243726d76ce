"""A runner function is honest: whatever goes wrong is an error with a hint, and exit code 1."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone import entrypoints
from saltext.kvmclone.errors import NotFound
from saltext.kvmclone.hosts.outcome import Outcome

Runner = Callable[..., dict[str, Any]]

RUNNER = Path(__file__).parents[2] / "_runners/kvmclone.py"

#: Salt's loader puts this into a runner's globals, here as there.
__context__: dict[str, Any] = {}

#: What the runner could not import: a sentence, or nothing.
MISSING = ""
__opts__ = {"__cli": "salt-master"}


@pytest.fixture(autouse=True)
def context() -> Iterator[dict[str, Any]]:
    __context__.clear()
    yield __context__
    __context__.clear()


@entrypoints.runner_function
def greet(word: str, *names: str, loud: bool = False) -> dict[str, Any]:
    """Say hello."""
    return {"said": [word, *names, loud], "retcode": 0}


@entrypoints.runner_function
def list_(kind: str = "") -> dict[str, Any]:
    """A name that Salt knows by an alias."""
    return {"kind": kind, "retcode": 0}


def failing(error: BaseException) -> Runner:
    @entrypoints.runner_function
    def fail() -> dict[str, Any]:
        raise error

    return fail


def test_an_answer_passes_untouched(context: dict[str, Any]) -> None:
    assert greet("hi", "ann", loud=True) == {"said": ["hi", "ann", True], "retcode": 0}
    assert "retcode" not in context


def test_salts_own_keywords_are_dropped() -> None:
    assert greet("hi", "ann", __pub_user="root", __pub_jid="1")["said"] == ["hi", "ann", False]


def test_an_error_of_ours_keeps_its_type_and_its_hint(context: dict[str, Any]) -> None:
    answer = failing(NotFound("There is no clone 'web1'.", "kvmclone.list"))()
    assert answer == {
        "error": {
            "type": "NotFound",
            "message": "There is no clone 'web1'.",
            "hint": "kvmclone.list",
        },
        "retcode": 1,
    }
    assert context["retcode"] == 1


def test_a_failure_inside_the_answer_counts_too(context: dict[str, Any]) -> None:
    @entrypoints.runner_function
    def destroy() -> dict[str, Any]:
        return entrypoints.clones(
            [Outcome("web1", "ready"), Outcome("web2", "", None, NotFound("no", "look"))]
        )

    answer = destroy()
    assert answer["retcode"] == context["retcode"] == 1
    assert "error" not in answer["clones"]["web1"]
    assert answer["clones"]["web2"]["error"]["type"] == "NotFound"


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda: greet("hi", "ann", loudly=True), id="mistyped keyword"),
        pytest.param(greet, id="missing argument"),
        pytest.param(lambda: list_("a", "b"), id="one too many"),
    ],
)
def test_wrong_arguments_are_an_error_of_the_user(
    call: Callable[[], dict[str, Any]], context: dict[str, Any]
) -> None:
    answer = call()
    assert answer["error"]["type"] == "ConfigError"
    assert answer["retcode"] == context["retcode"] == 1


def test_the_error_names_the_argument_and_the_function_as_the_user_knows_it() -> None:
    error = greet("hi", "ann", louder=True)["error"]
    assert error["message"] == "kvmclone.greet does not take 'louder'. Did you mean 'loud'?"
    assert error["hint"] == "salt-run kvmclone.greet hi ann loud=True"
    assert "kvmclone.list takes [kind=KIND]" in list_("a", "b")["error"]["message"]


@pytest.mark.parametrize("fault", [ValueError("boom"), TypeError("boom"), KeyError("boom")])
def test_a_fault_of_ours_is_not_success(
    fault: Exception, context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[tuple[object, ...]] = []
    monkeypatch.setattr(entrypoints.log, "exception", lambda *words: logged.append(words))
    answer = failing(fault)()
    assert len(logged) == 1
    assert answer["error"]["type"] == "HostError"
    assert "boom" in answer["error"]["message"]
    assert "log" in answer["error"]["hint"]
    assert answer["retcode"] == context["retcode"] == 1


def test_an_interrupt_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt):
        failing(KeyboardInterrupt())()


def test_salt_sees_the_name_and_the_documentation_but_not_the_signature_below() -> None:
    assert greet.__name__ == "greet"
    assert greet.__doc__ == "Say hello."
    assert not hasattr(greet, "__wrapped__")
    assert [parameter.kind for parameter in inspect.signature(greet).parameters.values()] == [
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    ]


def test_a_runner_that_lacks_a_package_says_so_before_all_else(
    monkeypatch: pytest.MonkeyPatch, context: dict[str, Any]
) -> None:
    sentence = entrypoints.missing_package("lxml")
    monkeypatch.setitem(globals(), "MISSING", sentence)
    answer = greet(loudly=True)
    assert answer["error"]["type"] == "MissingPackage"
    assert answer["error"]["message"] == sentence
    assert answer["retcode"] == context["retcode"] == 1


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("libvirt", "libvirt-python"),
        ("lxml.etree", "lxml"),
        ("paramiko.auth_strategy", "'paramiko>=3.2'"),
        ("jinja2", "Jinja2"),
    ],
)
def test_a_missing_package_comes_with_the_line_that_installs_it(module: str, package: str) -> None:
    sentence = entrypoints.missing(ModuleNotFoundError(f"No module named '{module}'", name=module))
    assert sentence.endswith(f"salt-pip install {package}")


def test_a_text_that_cannot_be_encoded_is_not_quoted() -> None:
    with pytest.raises(UnicodeEncodeError) as caught:
        "canary\ud800".encode()
    assert "canary" not in str(failing(caught.value)())


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Any]]]:
    """The names that the runner's ``create`` takes its arguments for; nothing is made."""
    spec = importlib.util.spec_from_file_location("kvmclone_runner", RUNNER)
    assert spec is not None and spec.loader is not None
    runner = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runner)
    vars(runner).update(__opts__={}, __context__={})
    asked: list[Any] = []

    class Noting:
        def __init__(self, _opts: Any, _on_ready: Any) -> None: ...

        def create(self, _profile: str, names: list[Any], _overrides: Any) -> list[Outcome]:
            asked[:] = names
            return []

    monkeypatch.setattr(runner.fleet, "Fleet", Noting)

    def create(*names: Any, **keywords: Any) -> list[Any]:
        answer = runner.create("centos7", *names, **keywords)
        assert answer == {"clones": {}, "retcode": 0}
        return asked

    yield create


@pytest.mark.parametrize(
    ("names", "keywords", "expected"),
    [
        (("web1",), {}, ["web1"]),
        ((), {"names": ["web1", "web2"]}, ["web1", "web2"]),
        ((), {"name": "web1"}, ["web1"]),
        (("a",), {"names": ("b",), "name": "c"}, ["a", "b", "c"]),
        (("a",), {"names": None, "name": None}, ["a"]),
        # A lone name is one name, not as many as it has letters.
        ((), {"names": "web1"}, ["web1"]),
        # What YAML made of a name that nobody quoted goes on to be refused as that.
        ((), {"names": 7}, [7]),
        ((), {"name": 0}, [0]),
        ((), {"name": False}, [False]),
    ],
)
def test_a_name_is_taken_whole_however_it_is_given(
    wanted: Callable[..., list[Any]],
    names: tuple[Any, ...],
    keywords: dict[str, Any],
    expected: list[Any],
) -> None:
    assert wanted(*names, **keywords) == expected
