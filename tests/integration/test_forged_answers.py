"""Only the KVM host's own word counts, and the new minion's own: not what others put on the bus."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.common import wait_until
from lab.ear import Ear
from lab.salt import SaltWorld
from saltext.kvmclone.errors import HostUnreachable, MinionTimeout, OtherVersion
from saltext.kvmclone.hosts import operations
from saltext.kvmclone.master import keys, other_key, remote, signed_call, silent_minion, verify
from saltext.kvmclone.master.remote import RemoteHost
from saltext.kvmclone.model.guest_minion import GuestMinion
from saltext.kvmclone.model.master_ports import PortCheck
from saltext.kvmclone.system.signed_answers import Unproven
from tests.support.reactor_world import forge

pytestmark = pytest.mark.slow

#: Whatever runs on this machine: nobody answers there.
URL = "qemu+unix:///system?socket=/nosuch"
UUID = "00112233-4455-6677-8899-aabbccddeeff"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SaltWorld]:
    """A master, the KVM host ``kvm01``, and a minion that lies."""
    folder = tmp_path_factory.mktemp("forged")
    folder.chmod(0o755)
    with SaltWorld(folder / "salt") as made:
        provider = {"driver": "libvirt", "url": URL, "host": "kvm01"}
        made.write_cloud("providers", "kvm.conf", {"kvm": provider})
        made.add_minion("kvm01")
        made.add_minion("evil")
        yield made


@pytest.fixture
def down(world: SaltWorld) -> Iterator[None]:
    """The host is down, so that any answer in its name is a lie."""
    world.stop_minion("kvm01")
    yield
    world.start_minion("kvm01")


@contextmanager
def liar(world: SaltWorld, function: str, victim: str, *lies: Any) -> Iterator[list[str]]:
    """``evil`` answers every job of that function in the name of another; yields the lies told."""
    over, told = threading.Event(), []

    def lie(ear: Ear) -> None:
        seen: set[str] = set()
        while not over.is_set():
            for tag, data in list(ear.events):
                new = tag.startswith("salt/job/") and tag.endswith("/new")
                if new and function in data.get("fun", "") and data["jid"] not in seen:
                    seen.add(data["jid"])
                    for answer in lies:
                        said = {"fun": data["fun"], "jid": data["jid"], "id": victim}
                        said |= {"return": answer, "success": True, "retcode": 0}
                        forge(world, "evil", f"salt/job/{data['jid']}/ret/{victim}", said)
                        told.append(data["jid"])
            over.wait(0.1)

    with Ear(world) as ear:
        thread = threading.Thread(target=lie, args=(ear,), daemon=True)
        thread.start()
        try:
            yield told
        finally:
            over.set()
            thread.join(30)
        # The lies reached the bus, where the question listened.
        heard = [tag for tag, _data in ear.events if tag.endswith(f"/ret/{victim}")]
        assert told and heard


def sworn_falsely(answer: Any) -> dict[str, str]:
    return {"sworn": json.dumps(answer), "proof": "0" * 64}


def test_a_host_is_believed_and_what_it_refuses_keeps_its_type(
    world: SaltWorld, opts: dict[str, Any], tmp_path: Path
) -> None:
    host = RemoteHost(opts, "kvm01", "qemu+unix:///system?socket=" + str(tmp_path / "nobody"))
    with pytest.raises(HostUnreachable) as caught:
        host.list_clones()
    assert not isinstance(caught.value, Unproven)
    assert str(tmp_path / "nobody") in caught.value.message


def test_a_host_of_another_version_says_so_itself(
    opts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    later = operations.VERSION + 1
    for module in (operations, remote):
        monkeypatch.setattr(module, "VERSION", later)
    with pytest.raises(OtherVersion) as caught:
        RemoteHost(opts, "kvm01", "test:///default").list_clones()
    assert "'kvm01' has an older version" in caught.value.message
    assert caught.value.hint.endswith("salt kvm01 saltutil.sync_all")


def test_a_person_asks_without_a_version(world: SaltWorld) -> None:
    told = world.salt("kvm01", "kvm_clone.remote", "list_clones", "{}", "url=test:///default")
    assert told.data["kvm01"]["answer"] == []


def test_many_questions_at_once_get_their_own_answers(opts: dict[str, Any]) -> None:
    def ask(number: int) -> str:
        with pytest.raises(HostUnreachable) as caught:
            RemoteHost(opts, "kvm01", f"qemu+unix:///system?socket=/nobody-{number}").list_clones()
        return str(caught.value)

    with ThreadPoolExecutor(max_workers=6) as pool:
        said = list(pool.map(ask, range(6)))
    assert all(f"/nobody-{number}" in text for number, text in enumerate(said)), said


def test_a_forged_not_found_drops_no_key(world: SaltWorld, down: None) -> None:
    accepted = world.folder / "pki/master/minions"
    shutil.copy(accepted / "evil", accepted / "clone")
    gone = {"error": {"type": "NotFound", "message": "There is none.", "hint": ""}}
    try:
        with liar(world, "kvm_clone.remote", "kvm01", gone, sworn_falsely(gone)):
            answer = world.run("kvmclone.destroy", "clone")
        assert answer.retcode == 1, answer
        error = answer.data["clones"]["clone"]["error"]
        assert error["type"] in ("Unproven", "HostUnreachable"), error
        assert "kvm01" in error["message"]
        assert (accepted / "clone").exists()
    finally:
        (accepted / "clone").unlink()


def test_a_forged_clone_is_no_clone(world: SaltWorld, opts: dict[str, Any], down: None) -> None:
    clone = {"answer": {"name": "x", "uuid": UUID, "stage": "ready", "state": "running"}}
    with (
        liar(world, "kvm_clone.", "kvm01", clone, sworn_falsely(clone), sworn_falsely(True), True),
        pytest.raises(Unproven) as caught,
    ):
        RemoteHost(opts, "kvm01", URL).show("x")
    assert "saltutil.sync_all" in caught.value.hint


def test_a_liar_is_not_faster_than_the_host(world: SaltWorld, opts: dict[str, Any]) -> None:
    lie = {"answer": [{"name": "invented"}]}
    with liar(world, "kvm_clone.remote", "kvm01", lie, sworn_falsely(lie)) as told:
        host = RemoteHost(opts, "kvm01", "test:///default")
        for _ in range(3):
            assert host.list_clones() == []
        wait_until(lambda: told, "a lie", 20)


@contextmanager
def silent_libvirtd(seconds: float) -> Iterator[str]:
    """A url where somebody answers the door, says nothing, and after a while shuts it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            near, _peer = listener.accept()
            time.sleep(seconds)
            near.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"qemu+tcp://127.0.0.1:{listener.getsockname()[1]}/system"


def test_a_host_that_works_for_long_is_waited_for(
    world: SaltWorld, opts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signed_call, "JOB_CHECK_INTERVAL_S", 3.0)
    with silent_libvirtd(16) as url, pytest.raises(HostUnreachable) as caught:
        RemoteHost(opts, "kvm01", url).list_clones()
    assert "does not answer" not in caught.value.message, "libvirt's own word came through"
    assert url in str(caught.value)


def test_a_host_whose_job_died_is_not_waited_for(
    world: SaltWorld, opts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signed_call, "JOB_CHECK_INTERVAL_S", 3.0)
    failed: list[BaseException] = []

    def ask(url: str) -> None:
        try:
            RemoteHost(opts, "kvm01", url).list_clones()
        except HostUnreachable as error:
            failed.append(error)

    with silent_libvirtd(600) as url, Ear(world) as ear:
        thread = threading.Thread(target=ask, args=(url,), daemon=True)
        thread.start()
        first: Callable[[], Any] = lambda: [  # noqa: E731
            d["jid"] for t, d in ear.events if t.endswith("/new") and "remote" in d.get("fun", "")
        ]
        jid = wait_until(first, "the job", 30)[0]
        wait_until(
            lambda: world.salt("kvm01", "saltutil.kill_job", jid).data["kvm01"], "its end", 30
        )
        thread.join(120)
    assert [type(error) for error in failed] == [HostUnreachable]
    assert "kvm01" in str(failed[0])


def test_a_forged_test_version_makes_no_machine_ready(
    world: SaltWorld, opts: dict[str, Any], down: None
) -> None:
    lie = {"test.version": "3008.3", "grains.get": UUID}
    with (
        liar(world, "test.version", "kvm01", lie),
        pytest.raises(MinionTimeout) as caught,
    ):
        verify.verify(opts, "kvm01", UUID, ask=GuestMinion, timeout=8)
    assert caught.value.message.endswith(" within 8 s.")
    ports = f"master_port: {world.ret_port}, publish_port: {world.publish_port}"
    assert ports in caught.value.hint


def test_what_the_guest_says_of_the_port_is_told_at_the_end_of_the_wait(
    opts: dict[str, Any], down: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silent_minion, "SILENCE_S", 1.0)
    said = GuestMinion(ports=(PortCheck("192.0.2.1", "master_port", 4507, "ECONNREFUSED"),))
    with pytest.raises(MinionTimeout, match=r"refused by port 4507 \(master_port\)\."):
        verify.verify(opts, "kvm01", UUID, ask=lambda: said, timeout=3)


def test_a_minion_of_another_id_is_told_at_the_end_with_what_to_do_about_it(
    opts: dict[str, Any], down: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silent_minion, "SILENCE_S", 1.0)
    with pytest.raises(MinionTimeout, match="calls itself 'base1' and not 'kvm01'") as caught:
        verify.verify(opts, "kvm01", UUID, ask=lambda: GuestMinion("base1"), timeout=3)
    assert caught.value.hint == other_key.HINT


def test_a_key_that_the_master_refused_is_told_where_the_guest_cannot_be_asked(
    world: SaltWorld, opts: dict[str, Any], down: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silent_minion, "SILENCE_S", 1.0)
    pki = world.folder / "pki/master"
    (pki / "minions_denied").mkdir(exist_ok=True)
    shutil.copy(pki / "minions/evil", pki / "minions_denied/kvm01")
    try:
        with pytest.raises(MinionTimeout, match="asked to be let in as 'kvm01'") as caught:
            verify.verify(opts, "kvm01", UUID, ask=GuestMinion, timeout=3)
    finally:
        (pki / "minions_denied/kvm01").unlink()
    store = keys.MinionKeys(opts)
    assert store.fingerprint(store.accepted("evil")) in caught.value.message


def test_the_minions_own_answer_is_taken_although_somebody_lied(
    world: SaltWorld, opts: dict[str, Any]
) -> None:
    uuid = world.salt("kvm01", "grains.get", "uuid").data["kvm01"]
    with liar(world, "test.version", "kvm01", {"test.version": "0", "grains.get": UUID}) as told:
        verified = verify.verify(opts, "kvm01", uuid or UUID, ask=GuestMinion, timeout=60)
        wait_until(lambda: told, "a lie", 20)
    assert verified.version != "0"


def test_the_key_of_a_lost_clone_goes_by_its_name_with_what_knocked_under_its_id(
    world: SaltWorld, opts: dict[str, Any]
) -> None:
    """The host has no libvirtd here, so nobody can tell whether the clone is gone."""
    store = keys.MinionKeys(opts)
    pki = world.folder / "pki/master"
    store.accept("web1.example.com", keys.generate(2048).public, "web1")
    store.accept("web1.example.org", keys.generate(2048).public)
    (pki / "minions_denied").mkdir(exist_ok=True)
    shutil.copy(pki / "minions/evil", pki / "minions_denied/web1.example.com")
    refused = world.run("kvmclone.destroy", "web1")
    assert refused.retcode == 1
    assert "force=True" in refused.data["clones"]["web1"]["error"]["hint"]
    assert store.accepted("web1.example.com")
    forced = world.run("kvmclone.destroy", "web1", "force=True")
    assert forced.retcode == 0, forced
    assert not any(store.known("web1.example.com").values())
    assert store.accepted("web1.example.org")
    assert world.run("kvmclone.destroy", "web1", "force=True").retcode == 1
