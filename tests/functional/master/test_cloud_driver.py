"""The salt-cloud driver in Salt's own loader, without a master: whose machines, which answers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import salt.cloud
import salt.config
import salt.loader
import salt.utils.context
import yaml
from salt.exceptions import SaltCloudException, SaltCloudSystemExit

from lab.common import CHECKOUT
from saltext.kvmclone import interrupts
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.master import cloud_driver
from saltext.kvmclone.model.record import WARM
from tests.support.world import World, quick

pytestmark = pytest.mark.slow

ALIAS = "local-kvm"
LOCAL = {"driver": "libvirt", "url": "qemu:///system"}

Driver = Callable[..., Any]


class Clouds:
    """The driver's functions, as salt-cloud's core calls them."""

    def __init__(self, opts: dict[str, Any]) -> None:
        self.opts = opts
        self.functions = salt.loader.clouds(opts)

    def __call__(self, function: str, *arguments: Any, alias: str = ALIAS, **keys: Any) -> Any:
        found = self.functions[f"libvirt.{function}"]
        active = f"{alias}:libvirt"
        with salt.utils.context.func_globals_inject(found, __active_provider_name__=active):
            return found(*arguments, **keys)


@pytest.fixture
def clouds(tmp_path: Path) -> Callable[..., Clouds]:
    """Makes the driver of a configuration: providers by alias, profiles by name."""

    def make(
        providers: dict[str, Any] | None = None, profiles: dict[str, Any] | None = None, **more: Any
    ) -> Clouds:
        paths = {
            "root_dir": str(tmp_path),
            "pki_dir": str(tmp_path / "pki"),
            "cachedir": str(tmp_path / "cache"),
            "sock_dir": str(tmp_path / "run"),
            "log_file": str(tmp_path / "log"),
            "module_dirs": [str(CHECKOUT)],
        }
        (tmp_path / "cache").mkdir(exist_ok=True)
        (tmp_path / "pki/minions").mkdir(parents=True, exist_ok=True)
        (tmp_path / "master").write_text(yaml.safe_dump(paths))
        (tmp_path / "cloud").write_text(yaml.safe_dump({**more, "log_level": "warning"}))
        for kind, content in (("providers", providers or {ALIAS: LOCAL}), ("profiles", profiles)):
            (tmp_path / f"cloud.{kind}").write_text(yaml.safe_dump(content or {}))
        opts = salt.config.cloud_config(str(tmp_path / "cloud"))
        return Clouds(dict(opts))

    return make


@contextmanager
def refused(*words: str) -> Iterator[None]:
    with pytest.raises(SaltCloudSystemExit) as caught:
        yield
    for word in words:
        assert word in str(caught.value)


def test_a_provider_of_ours_is_working_and_a_foreign_one_is_not_ours(
    clouds: Callable[..., Clouds],
) -> None:
    driver = clouds()
    assert driver("get_configured_provider")["url"] == "qemu:///system"
    assert driver("get_configured_provider", alias="elsewhere") is False


def test_only_clones_are_listed_and_each_by_one_provider(
    world: World, base: str, host: LocalHost, clouds: Callable[..., Clouds]
) -> None:
    """Four names for one daemon, one of them spelled another way."""
    again = "qemu+unix:///system"
    providers = {
        "a-twin": LOCAL,
        ALIAS: LOCAL,
        "z-twin": LOCAL,
        "spelled": {"driver": "libvirt", "url": again},
    }
    profiles = {
        "mine": {"provider": ALIAS, "base_domain": base},
        "far": {"provider": "spelled", "base_domain": base},
    }
    names = {word: world.name(word) for word in ("mine", "far", "nobody")}
    for word, name in names.items():
        host.clone(quick(name, base, profile="" if word == "nobody" else word))
    driver = clouds(providers, profiles)
    listed = {
        alias: set(driver("list_nodes", alias=alias)) & {*names.values(), base}
        for alias in providers
    }
    assert listed[ALIAS] == {names["mine"]}
    assert names["far"] in listed["spelled"]
    assert listed["a-twin"] == {names["nobody"]}
    assert listed["z-twin"] == set()
    assert listed["spelled"] == {names["far"]}


def test_a_slip_stops_nothing_but_what_uses_it(
    world: World, base: str, host: LocalHost, clouds: Callable[..., Clouds]
) -> None:
    profiles = {
        "sound": {"provider": ALIAS, "base_domain": base},
        "wrong": {"provider": ALIAS, "base_domain": base, "cpu": 2, "memry": 1},
        "on-twin": {"provider": "a-twin", "base_domain": base},
    }
    providers = {ALIAS: LOCAL, "a-twin": {**LOCAL, "pol": "fast"}}
    names = {word: world.name(word) for word in profiles}
    for word, name in names.items():
        host.clone(quick(name, base, profile=word))
    driver = clouds(providers, profiles)
    # A machine stays its profile's, whatever is wrong with that: a hard map goes by who lists it.
    assert set(driver("list_nodes")) & set(names.values()) == {names["sound"], names["wrong"]}
    with refused("'a-twin': key 'pol'"):
        driver("list_nodes", alias="a-twin")
    machine = {"name": world.name("new"), "profile": "wrong", "driver": f"{ALIAS}:libvirt"}
    with refused("key 'cpu'", "key 'memry'"):
        driver("create", {**machine, **profiles["wrong"], "provider": f"{ALIAS}:libvirt"})
    with refused("'pol'"):
        driver("create", {**machine, "profile": "on-twin", "provider": "a-twin:libvirt"})
    assert driver("stop", names["wrong"], call="action")["state"] == "stopped"
    assert driver("destroy", names["wrong"])["name"] == names["wrong"]


def test_while_a_provider_cannot_be_read_no_machine_is_gone_and_no_hard_map_takes_one(
    world: World, clone_of: Callable[..., str], base: str, clouds: Callable[..., Clouds]
) -> None:
    name, gone = clone_of(base), world.name("gone")
    providers = {ALIAS: LOCAL, "other": {**LOCAL, "pol": "fast"}}
    with refused("no machine counts as gone", "'pol'"):
        clouds(providers)("destroy", gone)
    with refused("no machine counts as gone", "'pol'"):
        clouds(providers, hard=True)("destroy", name)
    assert world.exists(name)
    assert clouds()("destroy", gone)["name"] == gone


def test_the_full_list_says_more_and_the_selection_less(
    world: World, base: str, clone_of: Callable[..., str], clouds: Callable[..., Clouds]
) -> None:
    name = clone_of(base)
    driver = clouds(**{"query.selection": ["state"]})
    plain, full = driver("list_nodes")[name], driver("list_nodes_full")[name]
    assert plain["state"] == "stopped"
    assert full.items() >= plain.items()
    assert full["base"] == base
    assert driver("list_nodes_select")[name] == {"state": "stopped"}
    without = clouds()
    with refused("query.selection"):
        without("list_nodes_select")


def test_bases_are_images_and_have_sizes(
    world: World, base: str, clone_of: Callable[..., str], clouds: Callable[..., Clouds]
) -> None:
    name, driver = clone_of(base), clouds()
    images = driver("avail_images", call="function")
    assert images[base]["disks"][0]["path"] == str(world.disks(base)[0])
    assert name not in images
    assert driver("avail_sizes")[base]["cpus"] == 1
    assert driver("avail_locations") == {
        "qemu:///system": {"name": "qemu:///system", "host": "", "url": "qemu:///system"}
    }


def test_a_destroy_answers_when_the_machine_is_gone(
    world: World, base: str, clone_of: Callable[..., str], clouds: Callable[..., Clouds]
) -> None:
    name, driver = clone_of(base), clouds()
    assert driver("destroy", name)["name"] == name
    assert not world.exists(name)
    assert driver("destroy", name), "it is gone, whoever asks again"


def test_a_destroy_that_is_refused_raises_what_the_core_takes_for_a_refusal(
    world: World, base: str, clone_of: Callable[..., str], clouds: Callable[..., Clouds]
) -> None:
    below = clone_of(base, "below")
    above = clone_of(below, "above")
    driver = clouds()
    with refused("CloneInUse", above):
        driver("destroy", below)
    with refused("ForeignDomain"):
        driver("destroy", base)
    # Of several at once the core takes an error of its own family for a machine that is gone.
    at_once = Clouds({**driver.opts, "parallel": True})
    with pytest.raises(Exception, match=above) as caught:
        at_once("destroy", below)
    assert not isinstance(caught.value, SaltCloudException)
    assert world.exists(below)
    assert world.exists(base)


def test_the_machine_with_the_saved_memory_of_a_base_is_none_of_the_drivers(
    world: World, base: str, host: LocalHost, opened: Host, clouds: Callable[..., Clouds]
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    handle, record = opened.domain(name), world.record(name)
    assert record is not None
    handle.save_record(replace(record, becomes=WARM))
    before, driver = world.footprint(), clouds()
    assert name not in driver("list_nodes")
    for action in ("show_instance", "start", "stop", "reboot"):
        with refused("ForeignDomain", "saved memory", "unwarm"):
            driver(action, name, call="action")
    with refused("ForeignDomain", "saved memory", "unwarm"):
        driver("destroy", name)
    client = salt.cloud.CloudClient(opts=driver.opts)
    with refused("ForeignDomain", "saved memory", "unwarm"):
        client.create(ALIAS, [name], base_domain=base, clone_strategy="quick", deploy=False)
    assert world.footprint() == before


def test_a_destroy_of_several_that_is_interrupted_is_none_that_succeeded(
    clouds: Callable[..., Clouds], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the core would remove the keys: of the one that is half gone, and of the next one."""

    def pressed(_self: LocalHost, _name: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(LocalHost, "show", pressed)
    for parallel in (True, False):
        driver = clouds(parallel=parallel)
        for name, word in (("web1", "interrupted"), ("web2", "left as it is")):
            with pytest.raises(Exception, match=word) as caught:
                driver("destroy", name)
            assert isinstance(caught.value, SaltCloudException) is not parallel
            assert parallel or caught.value.exit_code == 130


def test_a_create_that_is_interrupted_early_or_late_is_told_as_what_it_is(
    clouds: Callable[..., Clouds], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_given: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        interrupts.check()

    def late(*_given: Any) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        return {"stage": "ready"}

    machine = {"name": "web1", "provider": f"{ALIAS}:libvirt"}
    driver = clouds()
    monkeypatch.setattr(cloud_driver.CloudDriver, "create", pressed)
    with refused("'web1' was interrupted", "Nothing was made"):
        driver("create", machine)

    driver = clouds()
    monkeypatch.setattr(cloud_driver.CloudDriver, "create", late)
    assert driver("create", machine)["stage"] == "ready"
    with refused("'web2' was left as it is"):
        driver("create", {**machine, "name": "web2"})


def test_what_is_an_action_is_no_function_and_the_other_way_round(
    clouds: Callable[..., Clouds],
) -> None:
    driver = clouds()
    for action in ("start", "stop", "reboot", "show_instance", "destroy"):
        with refused("action"):
            driver(action, "any", call="function")
    for function in ("list_nodes", "list_nodes_full", "avail_images", "avail_sizes", "adopt"):
        with refused("function"):
            driver(function, call="action")
    with refused("no arguments", "force"):
        driver("stop", "any", {"force": "true"}, call="action")


def test_a_missing_machine_and_a_bad_name_are_told_as_such(clouds: Callable[..., Clouds]) -> None:
    driver = clouds()
    with refused("NotFound"):
        driver("show_instance", "there-is-none", call="action")
    with refused("InvalidName"):
        driver("adopt", call="function", kwargs={"name": "a/b"})
    with refused("name=NAME"):
        driver("adopt", call="function", kwargs={"nam": "x"})


def test_a_provider_that_stands_in_no_file_is_the_cores_to_name(
    world: World, base: str, clone_of: Callable[..., str], clouds: Callable[..., Clouds]
) -> None:
    """From pillar, or from a call of salt.cloud.CloudClient."""
    name, driver = clone_of(base), clouds()
    dead = {"libvirt": {"url": "qemu+tcp://127.0.0.1:1/system", "driver": "libvirt"}}
    driver.opts["providers"]["from-pillar"] = dead
    grown = Clouds(driver.opts)
    with refused("127.0.0.1"):
        grown("list_nodes", alias="from-pillar")
    with refused("no provider 'nowhere'"):
        grown("list_nodes", alias="nowhere")
    assert name in grown("list_nodes")


def test_the_core_as_a_library_makes_a_machine_where_its_provider_says(
    clouds: Callable[..., Clouds],
) -> None:
    """Without a profile it merges nothing into the machine; only the named daemon is asked."""
    far = {"driver": "libvirt", "url": "qemu+tcp://127.0.0.1:1/system"}
    client = salt.cloud.CloudClient(opts=clouds({ALIAS: LOCAL, "far": far}).opts)
    with refused("HostUnreachable", "127.0.0.1:1"):
        client.create("far", ["web1"], base_domain="base", deploy=False)
