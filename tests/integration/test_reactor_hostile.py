"""Events are hostile: forged, malformed, huge. Nothing comes of them but a refusal."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab.common import wait_until
from lab.ear import Ear
from lab.lab import Lab
from lab.salt import SaltWorld
from tests.support.reactor_world import (
    MASTER,
    RULE,
    asked,
    fire,
    forge,
    idle,
    plant,
    reactor_world,
    ring,
    told,
)

POLICY = {"allow": [RULE], "expire": True, "finish": True, "clean_keys": True}

TOKEN = "%032x"

#: Run as the master's user: the master accepts a key as it does for a clone.
ACCEPT = """
import sys
import salt.config
from saltext.kvmclone.master import keys
store = keys.MinionKeys(salt.config.master_config(sys.argv[1]))
store.accept(sys.argv[2], keys.generate(2048).public)
"""


@pytest.fixture(scope="module")
def world(lab: Lab) -> Iterator[SaltWorld]:
    base = lab.tiny_base(f"base-hostile-{lab.name}")
    keys = {"base_domain": base, "clone_strategy": "quick"}
    with reactor_world(lab, "hostile", POLICY, "ci01", "evil", **keys) as made:
        yield made


@pytest.fixture
def ear(world: SaltWorld) -> Iterator[Ear]:
    with Ear(world) as listening:
        yield listening


@pytest.fixture(autouse=True)
def nothing_is_made(world: SaltWorld) -> Iterator[None]:
    """After each of these tests no request was obeyed, and nobody met a fault."""
    yield
    requests = idle(world)
    assert {one["state"] for one in requests} <= {"refused"}, requests
    found = world.run("kvmclone.list").data["clones"]
    assert not [name for name in found if name.startswith(("ci01-", "evil"))]
    log = (world.folder / "log/master").read_text()
    assert "Traceback" not in log
    assert not (world.folder / "pwned").exists()


def item(number: int, **fields: Any) -> dict[str, Any]:
    """A request as `kvm_clone.ask` would write it, and what a hostile root changes in it."""
    right = {"bell": "request", "name": f"ci01-{number}", "profile": "tiny", "keys": {}}
    return {"token": TOKEN % number, "at": time.time() + number, **right, **fields}


def test_a_forged_id_only_makes_the_master_ask_that_minion_which_wants_nothing(
    world: SaltWorld, ear: Ear
) -> None:
    request = {"name": "ci01-x", "profile": "tiny", "keys": {}}
    forge(world, "evil", "kvm_clone/request", {"id": "ci01", "data": request, **request})
    questions = lambda: [d for _t, d in ear.events if d.get("fun") == "kvm_clone.pending"]  # noqa: E731
    wait_until(questions, "the question", 30)


def test_a_minion_without_a_rule_is_refused_before_it_is_even_asked(
    world: SaltWorld, ear: Ear
) -> None:
    plant(world, "evil", item(1, name="evil-1"))
    ring(world, "evil", "kvm_clone/request", {})
    refused = ear.wait_for("salt/kvm_clone/refused", lambda data: data["who"] == "'evil'")
    assert "No rule" in refused["error"]["message"]
    assert not [d for _t, d in ear.events if d.get("fun") == "kvm_clone.pending"]


PWN = "{{ salt['cmd.run']('touch %s/pwned') }}"


def test_what_a_hostile_root_writes_is_refused_line_by_line(world: SaltWorld, ear: Ear) -> None:
    pwn = PWN % world.folder
    wrong: list[dict[str, Any]] = [
        item(100, name=pwn),
        item(101, name="../../ci01-x"),
        item(102, name=["ci01-x"]),
        item(103, name="ci01-" + "x" * 5000),
        item(104, profile=pwn),
        item(105, profile={"tiny": 1}),
        item(106, keys={"password": "x"}),
        item(107, keys={"url": "qemu+ssh://evil/system"}),
        item(108, keys={"script": "/etc/shadow", "file_map": {"/etc/shadow": "/tmp/x"}}),
        item(109, keys={"host": "evil", "private_key": "/root/.ssh/id_rsa"}),
        item(110, keys={"cpus": pwn}),
        item(111, keys={"memory": 10**30}),
        item(112, keys=[["cpus", 1]]),
        item(113, bell="__import__"),
        item(114, bell=["request"]),
        item(115, name=pwn, bell="release"),
        item(116, name="base", bell="release"),
        item(117, keys={str(n): "x" * 50 for n in range(300)}),
    ]
    for one in wrong:
        plant(world, "ci01", one)
    ring(world, "ci01", "kvm_clone/request", {})
    for one in wrong:
        answer = told(world, "ci01", one["token"])
        assert answer["verdict"] == "refused", (one, answer)
        assert len(answer["reason"]) < 1000
    assert len(ear.heard("salt/kvm_clone/refused")) >= len(wrong)


def test_an_event_is_not_rendered_and_no_field_of_it_gets_anywhere(
    world: SaltWorld, ear: Ear
) -> None:
    pwn = PWN % world.folder
    ids: list[Any] = [
        pwn,
        "ci01\n- who: ci01",
        'ci01"\n      - kwarg: {bell: expired}',
        "ci01\n",
        {"ci01": 1},
        ["ci01"],
        None,
        7,
        True,
        "x" * 300,
        "ci*",
        "../ci01",
        "\u202eci01",
        "{% raw %}",
    ]
    tags = [next(iter(mapped)) for mapped in MASTER["reactor"]]
    for tag in tags:
        fire(world, tag.replace("*", "x"), *({"id": one, "data": {"name": pwn}} for one in ids))
        fire(world, tag.replace("*", "x"), {}, {"data": "x" * 10**6}, {"id": pwn, "tag": pwn})
    # A name in the tag, where the tag tells it.
    for name in (pwn.replace("/", ""), "a b", "'", '"', "*"):
        fire(world, f"salt/kvm_clone/{name}/destroyed", {"name": name})
    # The reactor lives on, and answers the next one.
    fire(world, "kvm_clone/request", {"id": "the-last"})
    ear.wait_for("salt/kvm_clone/refused", lambda data: data["who"] == "'the-last'")
    runs = [
        data["fun_args"]
        for tag, data in ear.events
        if tag.endswith("/new") and data.get("fun") == "runner.kvmclone.answer_doorbell"
    ]
    assert runs
    allowed = {"", "x", "the-last"}
    assert {one["who"] for [one] in runs} <= allowed, runs


def test_a_forged_return_of_a_job_is_not_taken_for_the_minions_own(
    world: SaltWorld, ear: Ear
) -> None:
    """Every minion sees every job's number, and can put its return on the bus."""
    world.stop_minion("ci01")
    want = [item(200, name="ci01-forged")]
    over = threading.Event()

    def lie() -> None:
        seen: set[str] = set()
        while not over.is_set():
            for tag, data in list(ear.events):
                asks = tag.endswith("/new") and data.get("fun") == "kvm_clone.pending"
                if asks and data["jid"] not in seen:
                    seen.add(data["jid"])
                    for answer in (want, {"sworn": json.dumps(want), "proof": "0" * 64}):
                        fields = {"fun": data["fun"], "jid": data["jid"], "id": "ci01"}
                        said = {**fields, "return": answer, "success": True, "retcode": 0}
                        forge(world, "evil", f"salt/job/{data['jid']}/ret/ci01", said)
            over.wait(0.1)

    liar = threading.Thread(target=lie, daemon=True)
    liar.start()
    try:
        forge(world, "evil", "kvm_clone/request", {"id": "ci01"})
        wait_until(
            lambda: [b for b in asked(world)["bells"] if b["tries"] >= 1], "a second try", 120
        )
        said = [
            data
            for tag, data in ear.events
            if tag.startswith("salt/job/") and tag.endswith("/ret/ci01") and data.get("return")
        ]
        assert said, "the lie was told"
    finally:
        over.set()
        liar.join(20)
        world.start_minion("ci01")


@pytest.mark.guest
def test_a_forged_destroyed_removes_no_key(world: SaltWorld, ear: Ear) -> None:
    keys = world.folder / "pki/master/minions"
    made = world.run("kvmclone.create", "tiny", "rx-keyed")
    assert made.retcode == 0, made
    library = f"PYTHONPATH={world.modules[0]}/_utils"
    python = [world.venv / "bin/python", "-c", ACCEPT, world.conf / "master", "rx-keyed"]
    done = world.execute(["env", library, *map(str, python)])
    assert done.retcode == 0, done
    try:
        # Of a clone that is there, and of a minion that never was one.
        forge(world, "evil", "salt/kvm_clone/rx-keyed/destroyed", {"name": "rx-keyed"})
        forge(world, "evil", "salt/kvm_clone/ci01/destroyed", {"name": "ci01"})
        # The host is asked, and it says that no time has passed.
        forge(world, "evil", "kvm_clone/expired", {"id": "kvm01", "data": {"clones": ["rx-keyed"]}})
        told_so = ear.wait_for("salt/kvm_clone/refused", lambda d: d["who"] == "rx-keyed")
        assert "its key stays" in told_so["error"]["message"]
        idle(world)
        assert {"rx-keyed", "ci01"} <= {path.name for path in keys.iterdir()}
        assert "rx-keyed" in world.run("kvmclone.list").data["clones"]
    finally:
        # Behind the master's back; then the very same event is true.
        gone = world.salt("kvm01", "kvm_clone.destroy", "rx-keyed")
    assert gone.retcode == 0, gone
    assert (keys / "rx-keyed").exists()
    forge(world, "evil", "salt/kvm_clone/rx-keyed/destroyed", {"name": "rx-keyed"})
    ear.wait_for("salt/kvm_clone/rx-keyed/key_removed")
    assert not (keys / "rx-keyed").exists()
    assert (keys / "ci01").exists()


def test_a_key_stays_while_a_host_does_not_answer(world: SaltWorld, ear: Ear) -> None:
    library = f"PYTHONPATH={world.modules[0]}/_utils"
    python = [world.venv / "bin/python", "-c", ACCEPT, world.conf / "master", "rx-lost"]
    assert world.execute(["env", library, *map(str, python)]).retcode == 0
    world.stop_minion("kvm01")
    try:
        forge(world, "evil", "salt/kvm_clone/rx-lost/destroyed", {"name": "rx-lost"})
        wait_until(
            lambda: [b for b in asked(world)["bells"] if b["tries"] >= 1], "a second try", 120
        )
        assert (world.folder / "pki/master/minions/rx-lost").exists()
    finally:
        world.start_minion("kvm01")
    ear.wait_for("salt/kvm_clone/rx-lost/key_removed", timeout=90)
