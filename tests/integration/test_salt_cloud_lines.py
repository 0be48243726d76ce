"""The documented provider and profile as they stand, on every Salt line; and Salt's own driver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.common import CHECKOUT
from lab.ear import Ear
from lab.lab import Lab, connection
from lab.salt import SaltWorld
from tests.support import installs
from tests.support.documented import BASE, CLONE, PROFILE, PROVIDERS, call_nobody

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def base(lab: Lab) -> Iterator[str]:
    """A tiny machine of the documented name."""
    yield lab.tiny_base(BASE)
    with connection() as conn:
        conn.lookupByName(BASE).undefine()


def pasted(world: SaltWorld) -> SaltWorld:
    world.write_cloud("providers", "kvm.conf", PROVIDERS)
    world.write_cloud("profiles", "kvm.conf", PROFILE)
    return world


@pytest.mark.parametrize("line", ["3006", "3007", "3008"])
def test_the_documented_files_work_as_they_stand(
    lab: Lab, base: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Up to the address: this guest has no ssh. The whole way is tests/e2e/test_documented.py."""
    call_nobody(monkeypatch, tmp_path)
    with SaltWorld(
        lab.folder / f"salt-documented-{line}",
        address=lab.gateway,
        owner=lab.name,
        venv=installs.cached(line),
    ) as world:
        pasted(world)
        made = world.cloud("-p", "centos7", "--no-deploy", CLONE)
        assert made.retcode == 0, made
        clone = made.data[CLONE]
        assert (clone["base"], clone["strategy"], clone["stage"]) == (base, "quick", "addressed")
        listed = world.cloud("-Q")
        assert set(listed.data) == {"local-kvm"}
        assert listed.data["local-kvm"]["libvirt"][CLONE]["state"] == "running"
        assert "kvm-via-ssh" in listed.stderr  # there is no such host
        again = world.cloud("-p", "centos7", "--no-deploy", CLONE)
        assert "already exists" in again.data[CLONE]["Error"]
        gone = world.cloud("-d", "-y", CLONE)
        assert gone.retcode == 0, gone
        assert not (lab.pool_path / f"{CLONE}-vda.qcow2").exists()


def fields(event: dict[str, Any]) -> set[str]:
    return set(event) | {f"kwargs:{key}" for key in event.get("kwargs", {})}


def test_the_bus_hears_what_it_heard_from_salts_own_driver(lab: Lab, base: str) -> None:
    """Salt 3006's own driver, then ours; without a deployment (bench/ compares that as well)."""
    with connection() as conn:  # Salt's own driver finds only volumes that libvirt knows of
        conn.storagePoolLookupByName(lab.pool).refresh()
    heard: list[list[tuple[str, dict[str, Any]]]] = []
    own: tuple[Path, ...] = ()
    for modules in (own, (CHECKOUT,)):
        with SaltWorld(
            lab.folder / f"salt-bus{len(heard)}",
            address=lab.gateway,
            owner=lab.name,
            venv=installs.cached("3006"),
            modules=modules,
        ) as world:
            provider = {"driver": "libvirt", "url": "qemu:///system"}
            world.write_cloud("providers", "kvm.conf", {"local-kvm": provider})
            profile = {
                "provider": "local-kvm",
                "base_domain": base,
                "clone_strategy": "quick",
                "wait_for_ip_interval": 1,
            }
            world.write_cloud("profiles", "kvm.conf", {"centos7": profile})
            with Ear(world) as ear:
                made = world.cloud("-p", "centos7", "--no-deploy", CLONE)
                assert made.retcode == 0, made
                gone = world.cloud("-d", "-y", CLONE)
                assert gone.retcode == 0, gone
                ear.words(CLONE, "destroyed")
                heard.append(ear.about(CLONE))
    theirs, ours = heard
    assert [word for word, _data in ours] == [word for word, _data in theirs]
    for (word, old), (_word, new) in zip(theirs, ours, strict=True):
        assert fields(old) <= fields(new), word
        assert {key: new[key] for key in old if key != "_stamp"} == {
            key: value for key, value in old.items() if key != "_stamp"
        }
