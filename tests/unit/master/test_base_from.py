"""The master makes a base on the host that is meant, and never guesses."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from saltext.kvmclone import interrupts
from saltext.kvmclone.config.catalogue import Catalogue, build
from saltext.kvmclone.errors import BadImage, Interrupted
from saltext.kvmclone.hosts import make_base
from saltext.kvmclone.master import bases
from saltext.kvmclone.master.all_hosts import AllHosts
from saltext.kvmclone.model.base_request import BaseRequest, Origin
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.made_base import MadeBase
from tests.support.catalogues import profile, provider

HTTPS = "https://cloud.example.com/d.qcow2"


class Fleet:
    """What the work asks of a fleet."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.everywhere = AllHosts(catalogue, lambda *_way: None)  # type: ignore[arg-type]
        self.steps: dict[str, float] = {}

    def host(self, *_way: str) -> Any:
        return self

    def show(self, _name: str) -> Clone:
        interrupts.check()
        return Clone(*["x"] * 8, timings=dict(self.steps))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[BaseRequest]:
    """The requests that reach a host."""
    found: list[BaseRequest] = []

    def make(_host: Any, request: BaseRequest, _origin: Origin) -> MadeBase:
        found.append(request)
        return MadeBase(request.name, request.host, request.source, "sha256:00")

    monkeypatch.setattr(make_base, "make", make)
    return found


def fleet(*hosts: str) -> Fleet:
    providers = [provider(f"at-{host}", {"driver": "libvirt", "host": host}) for host in hosts]
    web = profile("web", {"provider": f"at-{hosts[-1]}", "base_domain": "x"}) if hosts else None
    return Fleet(build([*providers, *([web] if web else [])]))


def made(on: Fleet, **given: Any) -> dict[str, Any]:
    return bases.base_from(on, HTTPS, "debian12", given)  # type: ignore[arg-type]


def test_the_only_host_need_not_be_named(asked: list[BaseRequest]) -> None:
    answer = made(fleet("kvm01"))
    assert answer["retcode"] == 0
    assert answer["bases"]["debian12"]["source"] == HTTPS
    assert [request.host for request in asked] == ["kvm01"]


@pytest.mark.parametrize("given", [{"host": "kvm02"}, {"provider": "at-kvm02"}, {"profile": "web"}])
def test_of_several_the_named_one_makes_it(asked: list[BaseRequest], given: dict[str, Any]) -> None:
    assert made(fleet("kvm01", "kvm02"), **given)["retcode"] == 0
    assert [request.host for request in asked] == ["kvm02"]


@pytest.mark.parametrize("given", [{}, {"host": "kvm03"}])
def test_of_several_one_has_to_be_named(asked: list[BaseRequest], given: dict[str, Any]) -> None:
    answer = made(fleet("kvm01", "kvm02"), **given)
    error = answer["bases"]["debian12"]["error"]
    assert (answer["retcode"], error["type"]) == (1, "ConfigError")
    assert (
        "There is kvm01, kvm02" in error["message"] or "there is kvm01, kvm02" in error["message"]
    )
    assert "host=kvm01" in error["hint"]
    assert asked == []


def test_without_any_host_that_is_the_error(asked: list[BaseRequest]) -> None:
    assert made(fleet())["bases"]["debian12"]["error"]["type"] == "ConfigError"
    assert asked == []


def test_a_failure_is_the_error_of_that_base(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any) -> MadeBase:
        raise BadImage("none", "look")

    monkeypatch.setattr(make_base, "make", fail)
    assert made(fleet("kvm01")) == {
        "bases": {
            "debian12": {
                "name": "debian12",
                "error": {"type": "BadImage", "message": "none", "hint": "look"},
            }
        },
        "retcode": 1,
    }


def test_a_person_sees_each_step_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(bases, "_PROGRESS_POLL_S", 0.05)
    on = fleet("kvm01")

    def make(_host: Any, request: BaseRequest, _origin: Origin) -> MadeBase:
        on.steps["downloaded"] = 61.04
        time.sleep(0.4)
        steps = {**on.steps, "converted": 2.0}
        return MadeBase(request.name, "kvm01", HTTPS, "sha256:00", timings=steps)

    monkeypatch.setattr(make_base, "make", make)
    assert made(on)["retcode"] == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "debian12: downloaded  61.0 s",
        "debian12: converted    2.0 s",
    ]


def test_who_reads_along_does_not_lose_the_answer_at_an_interrupt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(bases, "_PROGRESS_POLL_S", 0.05)

    def make(*_arguments: Any) -> MadeBase:
        monkeypatch.setattr(interrupts, "pressed", lambda: True)
        time.sleep(0.4)
        raise Interrupted("It was interrupted. Nothing of it is left.", "Repeat the command.")

    monkeypatch.setattr(make_base, "make", make)
    answer = made(fleet("kvm01"))
    assert answer["retcode"] == interrupts.EXIT_CODE
    assert answer["bases"]["debian12"]["error"]["type"] == "Interrupted"
