"""States as a user runs them: state.apply, masterless and by the master, on three Salt lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.lab import Lab, connection
from lab.salt import Answer, SaltWorld
from tests.support import installs

pytestmark = pytest.mark.guest

GENERATED = "<generated>"

FRONT = """
{front}:
  kvm_clone.present:
    - profile: web
    - tags: [front]

the others:
  kvm_clone.present:
    - names: [{one}, {two}]
    - base_domain: {base}
    - clone_strategy: quick
    - running: false
    - parallel: true

{one} is off:
  kvm_clone.stopped:
    - name: {one}
    - require:
      - kvm_clone: the others

{front} runs:
  kvm_clone.running:
    - name: {front}
    - listen:
      - file: {folder}/settings

{folder}/settings:
  file.managed:
    - contents: for all of them

{folder}/new-front:
  file.managed:
    - contents: there is a new one
    - onchanges:
      - kvm_clone: {front}
"""

#: The same, asked for in another way: nothing is made anew.
WISHES = """
{front}:
  kvm_clone.present:
    - profile: web
    - tags: [front, shop]
    - cpus: 2
    - ttl: 1h

{one}:
  kvm_clone.present:
    - base_domain: {base}
    - clone_strategy: full
    - running: false

{base}:
  kvm_clone.absent: []
"""

GONE = """
{folder}/farewell:
  file.managed:
    - contents: it goes
    - prereq:
      - kvm_clone: {front}

{front}:
  kvm_clone.absent: []

the rest:
  kvm_clone.absent:
    - names: [{one}, {two}]
"""


@dataclass
class Host:
    """A KVM host with a minion, and what stands in its pillar."""

    world: SaltWorld
    lab: Lab
    words: dict[str, str]

    def apply(self, sls: str, *words: str) -> dict[str, Any]:
        """Masterless."""
        return states(self.world.call("kvm01", "--local", "state.apply", sls, *words))

    def by_master(self, sls: str, *words: str) -> dict[str, Any]:
        return states(self.world.salt("kvm01", "state.apply", sls, *words, timeout=180))

    def footprint(self) -> tuple[Any, ...]:
        """Every domain, its leases and every file: equal before and after means untouched.

        Of a lease the machine and the address count: when it ends changes as the guest renews
        it, and what other machines of the network hold comes and goes.
        """
        with connection() as conn:
            domains = [(one.XMLDesc(), one.isActive()) for one in conn.listAllDomains()]
            leases = conn.networkLookupByName(self.lab.network).DHCPLeases()
        held = [
            (lease["mac"], lease["ipaddr"])
            for lease in leases
            if any(lease["mac"] in xml for xml, _active in domains)
        ]
        files = [
            (str(path), path.stat().st_size, path.stat().st_mtime_ns)
            for path in self.lab.pool_path.iterdir()
        ]
        return sorted(domains), sorted(held), sorted(files)


def states(answer: Answer) -> dict[str, Any]:
    """Each state's answer, by function and name."""
    (told,) = answer.data.values()
    assert isinstance(told, dict), told
    found = {}
    for tag, state in told.items():
        module, _id, name, function = tag.split("_|-")
        found[f"{module}.{function} {name.rpartition('/')[2]}"] = state
    return found


def results(told: dict[str, Any]) -> dict[str, Any]:
    return {name: state["result"] for name, state in told.items()}


def filled_in(told: Any, done: Any) -> Any:
    """What a dry run told, with what only the making tells taken from what was done."""
    if isinstance(told, dict) and isinstance(done, dict):
        return {key: filled_in(value, done.get(key)) for key, value in told.items()}
    return done if told == GENERATED else told


@pytest.fixture(scope="module", params=["3008", "3007", "3006"])
def host(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Host]:
    line = request.param
    base = lab.tiny_base(f"base-states-{line}-{lab.name}")
    folder = lab.folder / f"salt-states-{line}"
    with SaltWorld(
        folder, address=lab.gateway, owner=f"{lab.name}-{line}", venv=installs.cached(line)
    ) as world:
        words = {"base": base, "folder": str(folder / "out")}
        words |= {word: f"{word}-{line}-{lab.name}" for word in ("front", "one", "two")}
        (folder / "out").mkdir()
        for name, text in (("front", FRONT), ("wishes", WISHES), ("gone", GONE)):
            write(world.folder / f"srv/salt/{name}.sls", text.format(**words))
        profile = {"provider": "here", "base_domain": base, "clone_strategy": "quick"}
        section = {
            "providers": {"here": {"driver": "libvirt", "url": "qemu:///system"}},
            "profiles": {"web": {**profile, "deploy": False}},
        }
        write(world.folder / "srv/pillar/top.sls", "base: {'*': [kvm]}\n")
        write(world.folder / "srv/pillar/kvm.sls", yaml.safe_dump({"kvm_clone": section}))
        roots = {"file_roots": "srv/salt", "pillar_roots": "srv/pillar"}
        world.add_minion(
            "kvm01", {key: {"base": [str(world.folder / path)]} for key, path in roots.items()}
        )
        yield Host(world, lab, words)


def write(path: Path, text: str) -> None:
    path.write_text(text)


def test_a_dry_run_touches_nothing_and_tells_what_the_run_then_does(host: Host) -> None:
    before = host.footprint()
    told = host.apply("front", "test=True")
    assert host.footprint() == before
    front, one, two = (host.words[word] for word in ("front", "one", "two"))
    made = [f"kvm_clone.present {name}" for name in (front, one, two)]
    as_made = [f"kvm_clone.stopped {one}", f"kvm_clone.running {front}"]
    assert {name: told[name]["result"] for name in made} == dict.fromkeys(made)
    # What an earlier state would make is there for a later one, also where nothing is made.
    assert {name: told[name]["result"] for name in as_made} == dict.fromkeys(as_made, True)

    done = host.apply("front")
    assert set(results(done).values()) == {True}, done
    for name in (*made, *as_made):
        assert filled_in(told[name]["changes"], done[name]["changes"]) == done[name]["changes"]
    clone = done[made[0]]["changes"]["clone"]["new"]
    assert (clone["stage"], clone["state"]) == ("addressed", "running")
    assert clone["address"] == host.lab.lease(front)
    assert done["file.managed new-front"]["changes"], "onchanges"
    rebooted = f"kvm_clone.mod_watch {front}"
    assert told[rebooted]["result"] is None, "listen"
    assert told[rebooted]["changes"] == done[rebooted]["changes"] != {}


def test_a_second_run_finds_nothing_to_do(host: Host) -> None:
    before = host.footprint()
    for told in (host.by_master("front"), host.apply("front", "test=True")):
        assert set(results(told).values()) == {True}, told
        assert not [name for name, state in told.items() if state["changes"]], told
    assert host.footprint() == before


@pytest.mark.parametrize("host", ["3008"], indirect=True)  # no word of it depends on the line
def test_what_differs_is_mended_or_refused_and_a_foreign_machine_stays(host: Host) -> None:
    front, one, base = (host.words[word] for word in ("front", "one", "base"))
    told, done = host.apply("wishes", "test=True"), host.by_master("wishes")
    mended, refused, foreign = (
        f"kvm_clone.present {front}",
        f"kvm_clone.present {one}",
        f"kvm_clone.absent {base}",
    )
    assert results(told) == {mended: None, refused: False, foreign: False}
    assert results(done) == {mended: True, refused: False, foreign: False}
    assert told[mended]["changes"] == done[mended]["changes"]
    assert done[mended]["changes"] == {
        "cpus": {"old": 1, "new": 2},
        "tags": {"old": ["front"], "new": ["front", "shop"]},
        "ttl": {"old": None, "new": "1h"},
    }
    assert "next boot" in done[mended]["comment"]
    assert "Destroy it and make it again" in done[refused]["comment"]
    assert "ForeignDomain" in done[foreign]["comment"]
    assert host.by_master("wishes")[mended]["changes"] == {}


def test_they_go_as_they_came(host: Host) -> None:
    before = host.footprint()
    told = host.by_master("gone", "test=True")
    assert host.footprint()[2] == before[2]
    ours = [name for name in told if name.startswith("kvm_clone.")]
    assert {told[name]["result"] for name in ours} == {None}
    assert told["file.managed farewell"]["result"] is None
    done = host.by_master("gone")
    assert set(results(done).values()) == {True}, done
    for name in ours:
        old, new = (one[name]["changes"]["clone"]["old"] for one in (told, done))
        assert (old["name"], old["uuid"], old["disks"]) == (new["name"], new["uuid"], new["disks"])
        assert done[name]["changes"]["clone"]["new"] is None
    assert done["file.managed farewell"]["changes"], "prereq"
    again = host.apply("gone")
    assert set(results(again).values()) == {True}
    assert not [name for name in ours if again[name]["changes"]]
    assert not again["file.managed farewell"]["changes"]
    with connection() as conn:
        left = {one.name() for one in conn.listAllDomains()}
    assert not left & {host.words[word] for word in ("front", "one", "two")}
    assert host.words["base"] in left
