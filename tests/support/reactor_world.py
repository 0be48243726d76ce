"""A master with the reactor of this project, and minions that ask."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import salt.config
import salt.utils.event
import yaml

from lab.common import CHECKOUT, wait_until
from lab.lab import Lab
from lab.salt import SaltWorld
from tests.integration.conftest import configure

README = CHECKOUT / "reactor/README.md"

#: What it says to paste: for the master, for the KVM hosts, for the mine.
MASTER, HOST, MINE = (
    yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", README.read_text(), re.S)
)

#: Somebody else's reaction, which must not have to wait for ours.
PING = "ping:\n  runner.test.arg:\n    - args:\n      - number: {{ data['number'] | int }}\n"

RULE = {
    "minions": ["ci*"],
    "profiles": ["tiny"],
    "names": "{minion}-*",
    "at_once": 4,
    "per_hour": 100,
    "overrides": {"cpus": 2, "memory": "256MiB", "ttl": "1h"},
}


def master_config(policy: Mapping[str, Any] | None) -> dict[str, Any]:
    reactor = [*MASTER["reactor"], {"test/ping": ["salt://ping.sls"]}]
    config: dict[str, Any] = {"reactor": reactor, "reactor_worker_threads": 2}
    return config | ({"kvm_clone": {"reactor": dict(policy)}} if policy is not None else {})


@contextmanager
def reactor_world(
    lab: Lab,
    name: str,
    policy: Mapping[str, Any] | None,
    *minions: str,
    venv: Path | None = None,
    host: Mapping[str, Any] | None = None,
    modules: Path = CHECKOUT,
    **profile: Any,
) -> Iterator[SaltWorld]:
    """
    A master with our reactor, the KVM host ``kvm01``, and minions that only ask.

    :param host: More configuration for the minion on the KVM host.
    :param modules: Where all of them have our modules.
    """
    with SaltWorld(
        lab.folder / f"salt-{name}",
        address=lab.gateway,
        owner=lab.name,
        venv=venv,
        modules=(modules,),
        master=master_config(policy),
    ) as world:
        shutil.copytree(CHECKOUT / "reactor", world.folder / "srv/salt/reactor")
        (world.folder / "srv/salt/ping.sls").write_text(PING)
        configure(world, **profile)
        world.add_minion("kvm01", host)
        for minion in minions:
            world.add_minion(minion)
        yield world


def ask(world: SaltWorld, minion: str, name: str, *words: Any, profile: str = "tiny") -> str:
    """``kvm_clone.ask`` on a minion; answers with the token."""
    answer = world.salt(minion, "kvm_clone.ask", name, profile, *words)
    assert answer.retcode == 0, answer
    token: str = answer.data[minion]
    return token


def told(world: SaltWorld, minion: str, token: str, timeout: float = 60) -> dict[str, Any]:
    """What the master said to a request of a minion, read where the minion keeps it."""
    folder = world.folder / f"state/{minion}/cache/kvm_clone/asking"

    def answer() -> dict[str, Any] | None:
        item = json.loads((folder / f"{token}.json").read_text())
        found: dict[str, Any] | None = item.get("answer")
        return found

    found: dict[str, Any] = wait_until(answer, f"an answer to {minion}", timeout)
    return found


def ending(world: SaltWorld, minion: str, token: str, timeout: float = 120) -> dict[str, Any]:
    """The same once nothing more will come of it, or the machine is made."""
    done = lambda: told(world, minion, token)["verdict"] not in ("queued", "making")  # noqa: E731
    wait_until(done, "the end of a request", timeout)
    return told(world, minion, token)


def plant(world: SaltWorld, minion: str, item: Mapping[str, Any]) -> None:
    """What a hostile minion does: it writes what it likes where only root writes."""
    folder = world.folder / f"state/{minion}/cache/kvm_clone/asking"
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    (folder / f"{item['token']}.json").write_text(json.dumps(item))


def ring(world: SaltWorld, minion: str, tag: str, data: Any, **preload: Any) -> None:
    """``event.fire_master`` on a minion, also with fields of somebody else."""
    words = [json.dumps(data), tag]
    if preload:
        words.append(f"preload={json.dumps(preload)}")
    answer = world.salt(minion, "event.fire_master", *words)
    assert answer.retcode == 0, answer


def asked(world: SaltWorld) -> dict[str, Any]:
    answer = world.run("kvmclone.asked")
    assert answer.retcode == 0, answer
    found: dict[str, Any] = answer.data
    return found


def idle(world: SaltWorld, timeout: float = 90) -> list[dict[str, Any]]:
    """Every request, once nobody works any more."""

    def over() -> bool:
        now = asked(world)
        return not now["working"] and not now["bells"]

    wait_until(over, "the worker's end", timeout)
    found: list[dict[str, Any]] = asked(world)["requests"]
    return found


def forge(world: SaltWorld, minion: str, tag: str, data: Mapping[str, Any]) -> None:
    """
    What any minion can do: an event with every field as it likes, the id included, under any
    tag that Salt's master lets through.
    """
    ring(world, minion, "x/forged", {}, events=[{"tag": tag, "data": dict(data)}])


def fire(world: SaltWorld, tag: str, *several: Mapping[str, Any]) -> None:
    """Events on the master's bus itself, faster than minions can send them."""
    opts = salt.config.master_config(str(world.conf / "master"))
    with salt.utils.event.get_master_event(opts, opts["sock_dir"], listen=False) as bus:
        for data in several:
            assert bus.fire_event(dict(data), tag)
