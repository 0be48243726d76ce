"""What cannot be done with a fleet: one clear error with a hint each, and nothing is left of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import salt.config
import salt.loader

from saltext.kvmclone.errors import (
    CopyFailed,
    CreateInProgress,
    HostUnreachable,
    KvmCloneError,
    MissingProgram,
    PlanRefused,
    PoolFull,
)
from saltext.kvmclone.master import fleet, progress, targets
from saltext.kvmclone.model.base_content import BaseState
from saltext.kvmclone.model.placement import HostOffer, Need
from saltext.kvmclone.system import signed_answers
from tests.support.base_hosts import GOLD, RUST, Host
from tests.unit.test_mistakes import CHECKOUT, answer_of

#: What was typed after ``salt-run``; the type of the error; words of its message, and of the hint.
TYPED = [
    ("create web web1 hosts='xen*'", "ConfigError", "means no minion", "salt-key -L"),
    ("plan web web1 hosts='xen* and ('", "ConfigError", "means no minion", "test.ping"),
    ("create web web1 placement=randomly", "ConfigError", "not one of spread, pack", "Correct it"),
    ("create web web1 placement='{order: x}'", "ConfigError", "order: 'x' is not", "Correct it"),
    ("create web web1 placement='{required: true}'", "ConfigError", "needs apart", "Correct it"),
    (
        "create web web1 placement='{apart: db, required: true}'", "NoHostFits",
        "kvm01: has a clone with the tag 'db' already; kvm02: has a clone", "kvmclone.hosts",
    ),
    ("create web 'web[1-100000]'", "ConfigError", "100,000 names", "several commands"),
    ("destroy 'web[1-100000]' yes=True", "ConfigError", "100,000 names", "several commands"),
    ("plan web 'web[1-100000]'", "InvalidName", "cannot be used", "one name at a time"),
    ("report {folder}/gone/fleet.html", "ConfigError", "no folder", "mkdir -p"),
    ("push base", "ConfigError", "Which host?", "kvmclone.push base HOST"),
    ("push base 'xen*'", "ConfigError", "means no minion", "salt-key -L"),
    ("push base kvm02 kvm01 source=kvm01", "ConfigError", "cannot be a target", "push base kvm02"),
    ("push nowhere kvm02", "NotFound", "No other host", "kvmclone.bases"),
    ("push other kvm02 source=kvm01", "BaseDiffers", "another base", "kvmclone.bases other"),
    ("remove_base nowhere", "NotFound", "No host has", "kvmclone.bases"),
    ("hosts nothing", "ConfigError", "no profile 'nothing'", "The profiles here"),
]  # fmt: skip


def without_module(minion: str) -> KvmCloneError:
    """The error where a host has not our execution module."""
    try:
        signed_answers.check(b"", minion, "'kvm_clone.remote' is not available.")
    except KvmCloneError as error:
        return error
    raise AssertionError


#: What goes wrong at the source, or at the target, while one base is copied to another host.
BROKEN = [
    ("kvm01", "hash_base", PlanRefused("It is running.", "Shut it off")),
    ("kvm02", "expect_base", MissingProgram.of("rsync", "rsync", "rsync")),
    ("kvm02", "expect_base", CreateInProgress("Another push is at it.", "Wait")),
    ("kvm02", "expect_base", without_module("kvm02")),
    ("kvm02", "prepare_copy", PoolFull("There is no room.", "Make room")),
    ("kvm02", "fetch_base", CopyFailed("The network was cut.", "Repeat it")),
    ("kvm02", "fetch_base", HostUnreachable("It is gone.", "Switch it on")),
]


class FleetHost(Host):
    """A host that has clones as well."""

    def offer(self, _request: Any, _names: list[str]) -> HostOffer:
        return HostOffer(2**34, 8, tags={"db": 1}, need=Need(2**30, 1), digest=GOLD)


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> dict[str, FleetHost]:
    """Two hosts: a base that the first alone has, and one of which each has another."""
    made = {
        "kvm01": FleetHost("kvm01", BaseState("base", GOLD), BaseState("other", GOLD)),
        "kvm02": FleetHost("kvm02", BaseState("other", RUST)),
    }
    monkeypatch.setattr(fleet, "RemoteHost", lambda _opts, minion, *_more: made[minion])
    monkeypatch.setattr(targets, "accepted", lambda _opts, ids: set(ids) & set(made))
    monkeypatch.setattr(progress, "fire", lambda *_: None)
    return made


@pytest.fixture
def runners(tmp_path: Path, hosts: dict[str, FleetHost]) -> Any:
    pki = tmp_path / "pki/minions"
    pki.mkdir(parents=True)
    for name in hosts:
        (pki / name).touch()
    one, two = ({"driver": "libvirt", "host": name} for name in hosts)
    web = {"provider": "kvm", "base_domain": "base", "tags": ["db"], "deploy": False}
    configuration = {
        "root_dir": str(tmp_path),
        "pki_dir": str(tmp_path / "pki"),
        "cachedir": str(tmp_path / "cache"),
        "extension_modules": str(tmp_path / "none"),
        "module_dirs": [str(CHECKOUT)],
        "kvm_clone": {
            "providers": {"kvm": {"driver": "libvirt", "hosts": [*hosts]}, "1": one, "2": two},
            "profiles": {"web": web},
        },
    }
    (tmp_path / "master").write_text(json.dumps(configuration))
    return salt.loader.runner(salt.config.master_config(str(tmp_path / "master")), context={})


def errors(answer: Any) -> Iterator[dict[str, Any]]:
    """Every error in an answer, at any depth."""
    if isinstance(answer, dict):
        for key, value in answer.items():
            if key == "error":
                yield value
            else:
                yield from errors(value)


def left(folder: Path) -> list[str]:
    """What a command left on the master: reservations, notes of copies, pages."""
    found = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    return sorted(set(found) - {"master", "pki/minions/kvm01", "pki/minions/kvm02"})


@pytest.mark.parametrize(("typed", "kind", "message", "hint"), TYPED)
def test_what_cannot_be_meant_is_one_error_and_nothing_is_done(
    runners: Any, hosts: Any, tmp_path: Path, typed: str, kind: str, message: str, hint: str
) -> None:
    function, *words = shlex.split(typed.format(folder=tmp_path) if "{f" in typed else typed)
    answer = answer_of(runners, f"kvmclone.{function}", words)
    (error,) = errors(answer)
    assert (error["type"], answer["retcode"]) == (kind, 1)
    assert message in error["message"] and hint in error["hint"]
    done = {what for host in hosts.values() for what in host.did}
    assert done <= {"base_states", "hash_base", "expect_base"}
    assert [path for path in left(tmp_path) if not path.endswith("placement.db")] == []


@pytest.mark.parametrize(("where", "what", "error"), BROKEN)
def test_a_push_that_fails_is_one_error_and_nothing_is_left(
    runners: Any, hosts: dict[str, FleetHost], tmp_path: Path,
    where: str, what: str, error: KvmCloneError,
) -> None:  # fmt: skip
    hosts[where].breaks[what] = error
    answer = answer_of(runners, "kvmclone.push", ["base", "kvm02"])
    (told,) = errors(answer)
    assert (told["type"], answer["retcode"]) == (error.type, 1)
    assert told["hint"] == error.hint and told["hint"]
    assert "base" not in hosts["kvm02"].bases and left(tmp_path) == []
    begun = "offer_base" in hosts["kvm01"].did
    assert all(("end_copy" in host.did) == begun for host in hosts.values())
