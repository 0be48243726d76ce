"""The doorbell on the older Salt lines, and a master without a policy."""

from __future__ import annotations

import pytest

from lab.ear import Ear
from lab.lab import Lab
from tests.support import installs
from tests.support.reactor_world import (
    RULE,
    ask,
    asked,
    ending,
    forge,
    reactor_world,
    told,
)


@pytest.mark.long
@pytest.mark.guest
@pytest.mark.parametrize("line", ["3007", "3006"])
def test_a_minion_asks_and_gets_its_machine_on(lab: Lab, line: str) -> None:
    base = lab.tiny_base(f"base-{line}-{lab.name}")
    keys = {"base_domain": base, "clone_strategy": "quick"}
    venv = installs.cached(line)
    with reactor_world(lab, line, {"allow": [RULE]}, "ci01", "evil", venv=venv, **keys) as world:
        with Ear(world) as ear:
            forge(world, "evil", "kvm_clone/request", {"id": "evil"})
            ear.wait_for("salt/kvm_clone/refused", lambda data: data["who"] == "'evil'")
            token = ask(world, "ci01", "ci01-a")
            wrong = ask(world, "ci01", "web1")
            assert told(world, "ci01", wrong)["verdict"] == "refused"
            assert ending(world, "ci01", token)["verdict"] == "made"
        released = world.salt("ci01", "kvm_clone.release", "ci01-a").data["ci01"]
        assert told(world, "ci01", released)["verdict"] == "gone"
        assert "ci01-a" not in world.run("kvmclone.list").data["clones"]


@pytest.mark.parametrize(
    ("word", "policy"),
    [("none", None), ("wrong", {"allow": [{"minions": ["*"]}], "expire": True})],
)
def test_without_a_right_policy_nothing_is_obeyed(
    lab: Lab, word: str, policy: dict[str, object]
) -> None:
    with reactor_world(lab, f"off-{word}", policy, "ci01") as world, Ear(world) as ear:
        ask(world, "ci01", "ci01-a")
        for bell in ("release", "expired"):
            forge(world, "ci01", f"kvm_clone/{bell}", {"id": "ci01"})
        for bell in ("request", "release", "expired"):
            ear.wait_for("salt/kvm_clone/refused", lambda d, b=bell: d["bell"] == repr(b))  # type: ignore[misc]
        assert asked(world)["requests"] == asked(world)["bells"] == []
        assert not [d for _t, d in ear.events if d.get("fun") == "kvm_clone.pending"]
