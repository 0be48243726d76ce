"""One libvirtd under several names, each looked at for real: it is shown once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import salt.config

from lab.common import LIBVIRT_URI
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model.record import Owner
from saltext.kvmclone.reactor.intake import expect_highstate
from tests.support.world import CloneOf, World, quick

pytestmark = pytest.mark.slow

SPELLED = "qemu+unix:///system"


@pytest.fixture
def master(tmp_path: Path) -> Callable[..., Fleet]:
    """A master with these providers by name, and a profile ``on-NAME`` for each."""

    def make(**urls: str) -> Fleet:
        part = {
            "providers": {name: {"driver": "libvirt", "url": url} for name, url in urls.items()},
            "profiles": {f"on-{one}": {"provider": one, "base_domain": "base"} for one in urls},
        }
        config: dict[str, Any] = {"root_dir": str(tmp_path), "user": "root", "kvm_clone": part}
        (tmp_path / "master").write_text(json.dumps(config))
        (tmp_path / "run").mkdir(exist_ok=True)
        opts = salt.config.master_config(str(tmp_path / "master"))
        opts["sock_dir"] = str(tmp_path / "run")
        return Fleet(opts, expect_highstate)

    return make


def test_every_list_shows_it_once_and_no_name_is_ambiguous(
    world: World, host: LocalHost, base: str, master: Callable[..., Fleet]
) -> None:
    names = {word: world.name(word) for word in ("here", "spelled", "nobody")}
    for word, name in names.items():
        host.clone(quick(name, base, profile="" if word == "nobody" else f"on-{word}"))
    fleet = master(here=LIBVIRT_URI, spelled=SPELLED)
    assert set(names.values()) <= set(fleet.listing()["clones"])
    assert not [name for name in fleet.listing()["clones"] if "(" in name]
    assert [name for name in fleet.tree()["bases"] if name.startswith(base)] == [base]
    hosts = fleet.everywhere.capacities()["hosts"]
    assert {label: told["also"] for label, told in hosts.items()} == {LIBVIRT_URI: [SPELLED]}
    found = fleet.everywhere.doctor()[0]
    assert [item["name"] for item in found if item["kind"] == "daemon-twice"] == [LIBVIRT_URI]
    assert not [item for item in found if item["kind"] == "host-uuid-twice"]
    for word in ("here", "nobody"):
        assert fleet.show(names[word]).error is None
        assert fleet.power(names[word], "stop").error is None
    assert fleet.find(names["spelled"])[0].url == SPELLED
    assert fleet.find(names["here"])[0].url == LIBVIRT_URI
    for name in names.values():
        assert fleet.destroy(name).error is None
    assert not any(map(world.exists, names.values()))


def test_what_a_dead_worker_left_is_listed_once(
    world: World,
    host: LocalHost,
    base: str,
    dead: Owner,
    master: Callable[..., Fleet],
) -> None:
    dead_clone = world.name()
    host.clone(quick(dead_clone, base), dead, "addressed")
    fleet = master(here=LIBVIRT_URI, spelled=SPELLED)
    rows = [row for row in fleet.gc("", False, False)["leftovers"] if row["name"] == dead_clone]
    assert len(rows) == len({(row["kind"], row["path"]) for row in rows}) > 1
    gone = fleet.gc(dead_clone, True, False)
    assert gone["retcode"] == 0
    assert [row["removed"] for row in gone["leftovers"]] == [True] * len(rows)
    assert not world.exists(dead_clone)


def test_a_daemon_says_what_tells_it_from_others(
    world: World, clone_of: CloneOf, base: str
) -> None:
    clone_of(base)
    told, again = LocalHost(LIBVIRT_URI).daemon(), LocalHost(SPELLED).daemon()
    assert told == again
    assert (told.driver, told.mode, told.user) == ("QEMU", "system", "")
    assert len(told.uuid) == 36
    assert len(told.domains) >= 2
    assert LocalHost("test:///default").daemon().driver == "TEST"
