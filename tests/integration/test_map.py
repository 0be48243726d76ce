"""A map makes what is not there; every host is told about."""

from __future__ import annotations

import pytest

from lab.lab import Lab
from lab.salt import SaltWorld

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def names(lab: Lab, salt: SaltWorld) -> list[str]:
    base = lab.tiny_base(f"base-map-{lab.name}")
    names = [f"{word}-{lab.name}" for word in ("web1", "web2")]
    web1, web2 = names
    keys = f"base_domain: {base}, clone_strategy: quick"
    text = f"tiny:\n  - {web1}: {{{keys}}}\n  - {web2}: {{{keys}, cpus: 2}}\n"
    salt.write_cloud("maps", "web.map", text)
    salt.write_cloud("maps", "wrong.map", text + "nosuch: [never]\n")
    salt.write_cloud("maps", "short.map", f"tiny:\n  - {web1}:\n    deploy: false\n")
    return names


def test_nothing_is_made_while_anything_in_the_map_is_wrong(
    salt: SaltWorld, names: list[str]
) -> None:
    refused = salt.run("kvmclone.map", "wrong")
    assert refused.retcode == 1
    assert "nosuch" in refused.data["clones"]["never"]["error"]["message"]
    assert not set(salt.run("kvmclone.list").data["clones"]) & set(names)


def test_a_map_indented_one_step_short_is_refused_whole(salt: SaltWorld, names: list[str]) -> None:
    refused = salt.run("kvmclone.map", "short")
    assert refused.retcode == 1
    assert "short.map' is wrong: line 3: 'deploy'" in refused.data["error"]["message"]
    assert not set(salt.run("kvmclone.list").data["clones"]) & {*names, "deploy"}


def test_a_map_makes_what_is_not_there_and_hosts_counts_it(
    salt: SaltWorld, names: list[str], lab: Lab
) -> None:
    keys = [f"base_domain=base-map-{lab.name}", "clone_strategy=quick"]
    others = len(salt.run("kvmclone.list").data["clones"])
    before = salt.run("kvmclone.create", "tiny", names[0], *keys).data["clones"][names[0]]
    made = salt.run("kvmclone.map", "web")
    assert made.retcode == 0, made
    assert {name: clone["stage"] for name, clone in made.data["clones"].items()} == dict.fromkeys(
        names, "addressed"
    )
    assert made.data["clones"][names[0]]["uuid"] == before["uuid"]

    told = salt.run("kvmclone.hosts")
    assert told.retcode == 0, told
    host = told.data["hosts"]["kvm01"]
    assert (host["reachable"], host["clones"]) == (True, others + len(names))
    assert 0 < host["memory"]["free"] < host["memory"]["total"]
    assert host["pools"][lab.pool]["available"] > 0
    assert host["libvirt"].count(".") == 2
    salt.run("kvmclone.destroy", *names)


def test_a_host_that_does_not_answer_is_told_with_its_error(salt: SaltWorld) -> None:
    provider = {"driver": "libvirt", "url": "qemu+unix:///system?socket=/nosuch"}
    lost = salt.write_cloud("providers", "lost.conf", {"lost": provider})
    try:
        told = salt.run("kvmclone.hosts")
    finally:
        lost.unlink()
    assert told.retcode == 1
    label = provider["url"]
    assert told.data["hosts"][label]["reachable"] is False
    assert told.data["hosts"][label]["error"]["hint"]
    assert told.data["hosts"]["kvm01"]["reachable"] is True
