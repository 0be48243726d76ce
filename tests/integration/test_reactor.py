"""A real event from a minion, a real master's reactor: what comes of it, within the policy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.common import wait_until
from lab.ear import Ear
from lab.lab import Lab
from lab.salt import Answer, SaltWorld
from tests.support.reactor_world import (
    MASTER,
    RULE,
    ask,
    asked,
    ending,
    forge,
    idle,
    reactor_world,
    ring,
    told,
)

#: As reactor/README.md has it, for the minions of this test.
POLICY = {
    **MASTER["kvm_clone"]["reactor"],
    "allow": [{**RULE, "minions": ["ci01"]}, {**RULE, "minions": ["ci02"], "at_once": 1}],
}

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def world(lab: Lab) -> Iterator[SaltWorld]:
    base = lab.tiny_base(f"base-reactor-{lab.name}")
    keys = {"base_domain": base, "clone_strategy": "quick"}
    with reactor_world(lab, "reactor", POLICY, "ci01", "ci02", **keys) as made:
        yield made


@pytest.fixture
def ear(world: SaltWorld) -> Iterator[Ear]:
    with Ear(world) as listening:
        yield listening


OURS = re.compile(r"(ci0|rx-).*|web\d")


def clones(world: SaltWorld) -> set[str]:
    """The clones of these tests; others may work on this machine as well."""
    found = world.run("kvmclone.list")
    assert found.retcode == 0, found
    return {name for name in found.data["clones"] if OURS.fullmatch(name)}


def test_a_minion_asks_gets_its_machine_and_gives_it_back(world: SaltWorld, ear: Ear) -> None:
    token = ask(world, "ci01", "ci01-a", "ttl=30m", "memory=192MiB")
    end = ending(world, "ci01", token)
    assert end["verdict"] == "made", end
    shown = world.run("kvmclone.show", "ci01-a").data["clones"]["ci01-a"]
    assert (shown["uuid"], shown["address"]) == (end["uuid"], end["address"])
    made = ear.wait_for("salt/kvm_clone/made")
    assert (made["who"], made["name"]) == ("ci01", "ci01-a")

    # Another one does not give it back, although the policy lets it give back its own.
    theirs = world.salt("ci02", "kvm_clone.release", "ci01-a").data["ci02"]
    assert told(world, "ci02", theirs)["verdict"] == "refused"
    assert "ci01-a" in clones(world)

    mine = world.salt("ci01", "kvm_clone.release", "ci01-a").data["ci01"]
    assert told(world, "ci01", mine)["verdict"] == "gone"
    assert "ci01-a" not in clones(world)
    assert {entry["state"] for entry in idle(world) if entry["name"] == "ci01-a"} <= {
        "gone",
        "refused",
    }


def about(name: str, who: str = "ci01") -> Callable[[dict[str, Any]], bool]:
    """Whether an event is about the request of a minion for a machine of that name."""
    return lambda data: (data["name"], data["who"]) == (name, who)


def by_its_minion(world: SaltWorld, name: str) -> None:
    assert world.salt("ci01", "kvm_clone.release", name).retcode == 0


def by_its_time(world: SaltWorld, name: str) -> None:
    assert world.salt("kvm01", "kvm_clone.adjust", name, "ttl=1").retcode == 0
    assert world.salt("kvm01", "kvm_clone.ring_expired").data["kvm01"] == [name]


def by_a_person_on_the_master(world: SaltWorld, name: str) -> None:
    assert world.run("kvmclone.destroy", name).retcode == 0


def by_a_person_on_the_host(world: SaltWorld, name: str) -> None:
    assert world.salt("kvm01", "kvm_clone.destroy", name).retcode == 0
    # Nothing rings for that; the schedule of reactor/README.md calls this every five minutes.
    assert world.run("kvmclone.work_off").retcode == 0


@pytest.mark.parametrize(
    ("destroy", "reason"),
    [
        (by_its_minion, "released"),
        (by_its_time, "expired"),
        (by_a_person_on_the_master, "no host has it under this name any more"),
        (by_a_person_on_the_host, "no host has it under this name any more"),
    ],
)
def test_that_a_machine_is_gone_is_heard_on_the_bus_and_its_minion_is_told(
    world: SaltWorld, ear: Ear, destroy: Callable[[SaltWorld, str], None], reason: str
) -> None:
    name = f"ci01-{destroy.__name__.rpartition('_')[2]}"
    token = ask(world, "ci01", name)
    made = ending(world, "ci01", token)
    assert made["verdict"] == "made", made
    destroy(world, name)
    heard = ear.wait_for("salt/kvm_clone/gone", about(name))
    assert heard["uuid"] == made["uuid"]
    assert (heard["state"], heard["profile"], heard["reason"]) == ("gone", "tiny", reason)
    wait_until(lambda: told(world, "ci01", token)["verdict"] == "gone", "the minion's answer", 30)
    assert told(world, "ci01", token) == {"verdict": "gone", "reason": reason}
    (entry,) = [one for one in idle(world) if one["token"] == token]
    assert (entry["state"], entry["told"]) == ("gone", True)
    assert len(list(filter(about(name), ear.heard("salt/kvm_clone/gone")))) == 1

    # It may be given back all the same; nobody is refused for being late.
    late = world.salt("ci01", "kvm_clone.release", name).data["ci01"]
    answer = {"verdict": "gone", "reason": "It was gone already."}
    assert told(world, "ci01", late) == answer


def test_a_machine_that_is_somebody_elses_or_still_there_is_not_said_to_be_gone(
    world: SaltWorld, ear: Ear
) -> None:
    token = ask(world, "ci01", "ci01-stays")
    assert ending(world, "ci01", token)["verdict"] == "made"
    forge(world, "ci02", "salt/kvm_clone/ci01-stays/destroyed", {"name": "ci01-stays"})
    assert world.run("kvmclone.work_off").retcode == 0
    idle(world)
    assert not ear.heard("salt/kvm_clone/gone")
    assert told(world, "ci01", token)["verdict"] == "made"
    world.run("kvmclone.destroy", "ci01-stays")
    ear.wait_for("salt/kvm_clone/gone", about("ci01-stays"))


def test_what_the_policy_does_not_allow_is_refused_told_and_not_made(
    world: SaltWorld, ear: Ear
) -> None:
    before = clones(world)
    wrong = [
        ask(world, "ci01", "web1"),
        ask(world, "ci01", "ci01-gold", profile="gold"),
        ask(world, "ci01", "ci01-big", "memory=1TiB"),
    ]
    for token in wrong:
        assert told(world, "ci01", token)["verdict"] == "refused"
    refused = ear.wait_for("salt/kvm_clone/refused", lambda data: "web1" in str(data["name"]))
    assert "only a name like ci01-*" in refused["error"]["message"]
    gold, big = (told(world, "ci01", token)["reason"] for token in wrong[1:])
    assert "may not use the profile 'gold', only 'tiny'" in gold
    assert "at most 256MiB" in big
    idle(world)
    assert clones(world) == before


def test_duplicate_and_overlapping_events_give_one_clone(world: SaltWorld, ear: Ear) -> None:
    token = ask(world, "ci01", "ci01-once")
    for number in range(5):
        ring(world, "ci01", "kvm_clone/request", {"name": "ci01-once", "number": number})
        ring(world, "ci02", "kvm_clone/request", {"name": "ci01-once"})
    again = ask(world, "ci01", "ci01-once")
    assert ending(world, "ci01", token)["verdict"] == "made"
    assert told(world, "ci01", again)["verdict"] == "refused"
    idle(world)
    assert len([one for one in ear.events if one[0] == "salt/kvm_clone/ci01-once/cloned"]) == 1
    made = [one for one in asked(world)["requests"] if one["name"] == "ci01-once"]
    assert [one["state"] for one in made] == ["made", "refused"]
    world.run("kvmclone.destroy", "ci01-once")


def test_an_ask_that_still_waits_can_be_withdrawn(world: SaltWorld, ear: Ear) -> None:
    first, second = (ask(world, "ci02", f"ci02-{number}") for number in range(2))
    # One at once: the second waits until the first is given back, or until it is withdrawn.
    assert ending(world, "ci02", first)["verdict"] == "made"
    assert told(world, "ci02", second)["verdict"] == "queued"
    gone = world.salt("ci02", "kvm_clone.release", "ci02-1").data["ci02"]
    assert told(world, "ci02", gone)["verdict"] == "gone"
    assert ending(world, "ci02", second)["verdict"] == "gone"
    withdrawn = ear.wait_for("salt/kvm_clone/gone", about("ci02-1", "ci02"))
    assert (withdrawn["reason"], withdrawn["uuid"]) == ("withdrawn", "")
    third = ask(world, "ci02", "ci02-2")
    world.salt("ci02", "kvm_clone.release", "ci02-0")
    assert ending(world, "ci02", third)["verdict"] == "made"
    assert {name for name in clones(world) if name.startswith("ci02-")} == {"ci02-2"}
    world.run("kvmclone.destroy", "ci02-2")


def steps(answer: Answer) -> dict[str, Any]:
    """The states of an orchestration; Salt puts words before its JSON when no minion is there."""
    found = json.loads(answer.stdout[answer.stdout.index("{") :])
    made: dict[str, Any] = next(iter(found["data"].values()))
    return made


def test_the_orchestration_makes_both_and_goes_on_only_then(world: SaltWorld) -> None:
    sls = world.folder / "srv/salt/reactor/orchestrate/two_clones.sls"
    text = sls.read_text().replace("centos7", "tiny")
    # The tiny guest is no minion, so here only the first half can succeed.
    sls.write_text(text)
    answer = world.run("state.orchestrate", "reactor.orchestrate.two_clones", timeout=300)
    states = steps(answer)
    both = next(state for key, state in states.items() if "two clones" in key)
    assert both["result"] is True, both
    assert {"web1", "web2"} <= clones(world)
    again = world.run("state.orchestrate", "reactor.orchestrate.two_clones", timeout=300)
    assert not any(state["result"] for state in steps(again).values()), again
    world.run("kvmclone.destroy", "web1", "web2")


def test_the_orchestration_with_a_spare_says_why_there_is_none(world: SaltWorld) -> None:
    """The tiny guest is no minion, so nobody can claim one of its kind."""
    pillar = json.dumps({"profile": "tiny", "sls": "build"})
    answer = world.run(
        "state.orchestrate", "reactor.orchestrate.claimed", f"pillar={pillar}", timeout=300
    )
    (state,) = steps(answer).values()
    assert state["result"] is False
    assert "become no minions" in state["comment"]


def test_a_minion_that_names_no_machine_is_told_why_it_gets_none(world: SaltWorld) -> None:
    answer = world.salt("ci01", "kvm_clone.ask", "profile=tiny", "ttl=30m")
    assert answer.retcode == 0, answer
    end = ending(world, "ci01", answer.data["ci01"])
    assert end["verdict"] == "failed", end
    assert "become no minions" in end["reason"]
