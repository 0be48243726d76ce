"""
What the hints of the reactor and of the doors say is typed, word for word, in the state in which
they were given: with a master and a minion to which Salt synced our modules.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import salt.config
from salt.exceptions import CommandExecutionError

from lab.common import CHECKOUT, wait_until
from lab.ear import Ear
from lab.salt import SaltWorld
from lab.salt_processes import marked
from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    ConfigError,
    HostError,
)
from saltext.kvmclone.hosts.operations import VERSION
from saltext.kvmclone.reactor import intake, request_spool, request_store
from saltext.kvmclone.reactor.request_spool import RequestSpool
from saltext.kvmclone.reactor.request_store import RequestStore
from tests.support import installs
from tests.support.hints import Typist, commands, error_of, tries
from tests.support.running import interrupted, started

pytestmark = pytest.mark.slow

PROVIDER = {"driver": "libvirt", "host": "kvm01", "url": "test:///default"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SaltWorld]:
    """A master and the minion of a KVM host, with our modules by a sync."""
    folder = tmp_path_factory.mktemp("synced")
    folder.chmod(0o755)
    with SaltWorld(folder / "salt", modules=()) as made:
        made.write_cloud("providers", "kvm.conf", {"kvm": PROVIDER})
        installs.export(made.folder / "srv/salt", (*installs.DOORS, "_utils"))
        made.add_minion("kvm01")
        assert made.run("saltutil.sync_all").retcode == 0
        assert made.salt("kvm01", "saltutil.sync_all").retcode == 0
        listed(made)
        yield made


# --- the reactor ----------------------------------------------------------------------------------


@tries("intake.answer")
def test_too_many_bells(
    world: SaltWorld, opts: dict[str, Any], typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = {"allow": [{"minions": ["kvm*"], "profiles": ["web"], "names": "*", "at_once": 1}]}
    policy["allow"][0]["per_hour"] = 1
    monkeypatch.setattr(request_store, "MAX_NOTIFICATIONS", 0)
    told = intake.answer({**opts, "kvm_clone": {"reactor": policy}}, "request", "kvm01")
    typist(told["refused"]["hint"])


@tries("request_entry.damaged")
def test_a_store_of_requests_that_is_damaged(opts: dict[str, Any], typist: Typist) -> None:
    store = RequestStore(opts)
    Path(store.path).write_text("no database")
    with pytest.raises(HostError) as caught, store.requests():
        pass
    assert len(commands(caught.value.hint)) == 2
    typist(caught.value.hint)
    with store.requests() as requests:
        assert requests.all() == []


@tries("request_store.RequestStore._require_version")
def test_a_store_of_requests_of_a_later_version(opts: dict[str, Any], typist: Typist) -> None:
    store = RequestStore(opts)
    with store.requests():
        pass
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(HostError, match="a later version of kvm_clone") as caught, store.requests():
        pass
    typist(caught.value.hint)
    os.unlink(store.path)


@tries("request_store.RequestStore.asked")
def test_requests_that_a_worker_of_an_older_version_works_off(
    world: SaltWorld, opts: dict[str, Any], typist: Typist
) -> None:
    store = RequestStore(opts)
    old = Path(store.folder) / "requests.json"
    old.write_text("[]")
    with open(Path(store.folder) / "worker", "w") as worker:
        fcntl.flock(worker, fcntl.LOCK_EX)
        error = error_of(world.run("kvmclone.asked"))
        typist(error["hint"])
    assert world.run("kvmclone.asked").retcode == 0
    assert not old.exists(), "they are read over, once nobody else works with them"


@tries("kvm_clone_requests._ring")
def test_an_event_that_does_not_reach_the_master(world: SaltWorld, typist: Typist) -> None:
    spec = importlib.util.spec_from_file_location(
        "door", CHECKOUT / "_modules/kvm_clone_requests.py"
    )
    assert spec is not None
    assert spec.loader is not None
    door = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(door)
    vars(door)["__salt__"] = {"event.send": lambda *_: False}
    with pytest.raises(CommandExecutionError) as caught:
        door._ring("kvm_clone/request", {"name": "ci-1"})
    assert "true" in typist(str(caught.value)).lower()


@pytest.fixture
def spool(world: SaltWorld) -> Iterator[RequestSpool]:
    """What the minion ``kvm01`` asks the master for."""
    spool = RequestSpool(salt.config.minion_config(str(world.minions["kvm01"].conf / "minion")))
    yield spool
    shutil.rmtree(spool.folder, ignore_errors=True)


@tries("request_spool.RequestSpool.ask")
def test_too_many_requests_of_a_minion(
    world: SaltWorld, spool: RequestSpool, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(request_spool.MAX_PENDING):
        spool.ask("request", f"ci-{number}", "web")
    refused = world.call("kvm01", "kvm_clone.ask", "one-more", "web")
    assert refused.retcode != 0
    hint = (refused.stdout + refused.stderr).partition("Hint: ")[2].splitlines()[0]
    assert "ci-99" in typist(hint)


@tries("request_spool.RequestSpool.request")
def test_a_request_that_names_no_profile(
    world: SaltWorld, spool: RequestSpool, typist: Typist
) -> None:
    with pytest.raises(ConfigError) as refused:
        spool.request("web", None, {})
    assert spool.pending() == []
    typist(refused.value.hint, "salt-call kvm_clone.ask profile")
    assert [(item["name"], item["profile"]) for item in spool.pending()] == [("", "web")]


@tries("request_spool.RequestSpool._checked")
def test_a_spool_that_others_could_write(
    world: SaltWorld, spool: RequestSpool, typist: Typist
) -> None:
    spool.ask("request", "ci-1", "web")
    Path(spool.folder).chmod(0o777)
    with pytest.raises(HostError) as caught:
        spool.pending()
    typist(caught.value.hint)
    assert spool.pending() == []


# --- the commands themselves ----------------------------------------------------------------------


@tries("entrypoints._interrupted")
def test_a_command_that_is_interrupted(world: SaltWorld, typist: Typist) -> None:
    """It waits for a minion that hangs."""
    with Ear(world) as ear, hanging(world):
        process = started(world, "kvmclone.list")
        asked = lambda: "kvm_clone.remote" in str(ear.events)  # noqa: E731
        wait_until(asked, "the question", 60)
        said, _end = json.JSONDecoder().raw_decode(interrupted(process))
    assert process.returncode == interrupts.EXIT_CODE
    typist(said["error"]["hint"])


@contextmanager
def hanging(world: SaltWorld) -> Iterator[None]:
    """The minion ``kvm01`` is there and answers nothing."""
    pids = list(marked(f"{world.owner}:kvm01", world.minions["kvm01"].conf))
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


# --- modules of another version -------------------------------------------------------------------


def extmods(world: SaltWorld, part: str) -> Path:
    return world.folder / f"state/{part}/cache/extmods"


@tries("signed_answers.check")
def test_a_host_without_our_modules(world: SaltWorld, typist: Typist) -> None:
    shutil.rmtree(extmods(world, "kvm01"))
    world.salt("kvm01", "saltutil.refresh_modules")
    error = refused(world, "not proven to be its own")
    assert error["type"] == "Unproven"
    typist(error["hint"], "salt kvm01 saltutil")
    listed(world)


def listed(world: SaltWorld) -> None:
    """The master gets an answer, once the minion has read its modules anew."""
    wait_until(lambda: world.run("kvmclone.list").retcode == 0, "the list", 30)


@tries("remote.RemoteHost._other_version", "hints.Commands.sync")
def test_a_host_with_older_modules(world: SaltWorld, typist: Typist) -> None:
    older = extmods(world, "kvm01") / "utils/saltext/kvmclone/hosts/operations.py"
    edit(older, f"\nVERSION = {VERSION}\n", f"\nVERSION = {VERSION - 1}\n")
    error = refused(world, "has an older version of kvm_clone")
    typist(error["hint"])
    listed(world)


@tries("fleet_findings.of_sync", "fleet_findings.of_host")
def test_a_sync_that_is_stale(world: SaltWorld, typist: Typist) -> None:
    """Both speak one version, so everything goes on; but not by the files that are to be synced."""
    assert examined(world) == []
    with (world.folder / "srv/salt/_utils/saltext/kvmclone/plan/planner.py").open("a") as file:
        file.write("# newer\n")
    (found,) = examined(world)
    assert found["kind"] == "sync-stale"
    typist(found["hint"])
    (found,) = examined(world)
    assert (found["kind"], found["name"]) == ("library-differs", "kvm01")
    assert str(extmods(world, "kvm01")) in found["message"]
    typist(found["hint"])
    assert examined(world) == []


def examined(world: SaltWorld) -> list[dict[str, Any]]:
    """All findings; the exit code is 1 for a problem."""
    told = world.run("kvmclone.doctor")
    found: list[dict[str, Any]] = told.data["findings"]
    assert told.retcode == told.data["retcode"] == len(found)
    return found


@tries("remote_server._one")
def test_a_master_with_older_modules(world: SaltWorld, typist: Typist) -> None:
    """What an older master shows of this host's answer."""
    asked = f"list_clones@{VERSION - 1}"
    answer = world.salt("kvm01", "kvm_clone.remote", asked, "{}").data["kvm01"]
    assert "another version" in answer["error"]["message"]
    typist(answer["error"]["hint"])


@tries("remote.RemoteHost._strange")
def test_a_host_that_answers_in_another_form(world: SaltWorld, typist: Typist) -> None:
    older = extmods(world, "kvm01") / "utils/saltext/kvmclone/hosts/remote_server.py"
    edit(older, '"answer": to_plain(', '"reply": to_plain(')
    error = refused(world, "an answer of an unknown form")
    typist(error["hint"])
    listed(world)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def refused(world: SaltWorld, words: str) -> dict[str, str]:
    """What the master says of ``kvm01``, once the minion has read its modules anew."""

    def error() -> dict[str, str] | None:
        found: dict[str, str] = world.run("kvmclone.list").data["unreachable"]["kvm01"]
        return found if words in found["message"] else None

    told: dict[str, str] = wait_until(error, words, 30)
    return told


@tries("entrypoints.missing")
def test_a_library_that_is_not_complete(world: SaltWorld, typist: Typist) -> None:
    for part in ("master", "kvm01"):
        (extmods(world, part) / "utils/saltext/kvmclone/config/catalogue.py").unlink()
    error = error_of(world.run("kvmclone.list"))
    assert error["type"] == "MissingPackage"
    assert len(commands(error["message"])) == 2
    typist(error["message"])
    listed(world)
