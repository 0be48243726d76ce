"""
What the master's hints about hosts say is typed, word for word, in the state in which they were
given: with a master and minions, and hosts of libvirt's test driver.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import salt.config
from lxml import etree

from lab.common import wait_until
from lab.salt import SaltWorld
from saltext.kvmclone.config.catalogue import build
from saltext.kvmclone.errors import (
    ConfigError,
    HostUnreachable,
    InvalidName,
)
from saltext.kvmclone.master.all_hosts import AllHosts
from saltext.kvmclone.master.cloud_driver import CloudDriver
from saltext.kvmclone.master.keys import MinionKeys, generate
from saltext.kvmclone.master.remote import RemoteHost
from saltext.kvmclone.model import fingerprints, record_xml
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.host_reports import Daemon
from saltext.kvmclone.model.record import Minion, Record
from saltext.kvmclone.reactor.intake import expect_highstate
from tests.support import hint_worlds
from tests.support.catalogues import provider
from tests.support.hint_worlds import PROVIDER, URL
from tests.support.hints import Typist, commands, error_of, tries

pytestmark = pytest.mark.slow

UUID, OTHER_UUID = "00112233-4455-6677-8899-aabbccddeeff", "11112233-4455-6677-8899-aabbccddeeff"
OLD_UUID = "22222233-4455-6677-8899-aabbccddeeff"
KEY = generate(2048).public


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SaltWorld]:
    with hint_worlds.made(tmp_path_factory.mktemp("hints")) as made:
        yield made


@tries("all_hosts.AllHosts.find")
def test_a_clone_that_there_is_not(world: SaltWorld, typist: Typist) -> None:
    error = error_of(world.run("kvmclone.show", "web9"))
    assert error["type"] == "NotFound"
    assert json.loads(typist(error["hint"]))["retcode"] == 0


@tries("errors.no_host")
def test_no_host_at_all(world: SaltWorld, typist: Typist) -> None:
    providers = world.conf / "cloud.providers.d/kvm.conf"
    profiles = world.conf / "cloud.profiles.d/web.conf"
    away = [path.rename(path.with_suffix(".away")) for path in (providers, profiles)]
    try:
        error = error_of(world.run("kvmclone.show", "web1"))
        assert error["type"] == "ConfigError"
        assert json.loads(typist(error["hint"]))["providers"] == {}
    finally:
        for path in away:
            path.rename(path.with_suffix(".conf"))


def clones(path: Path, **uuids: str) -> str:
    """The url of a host of libvirt's test driver with these clones, which every job finds anew."""
    node = etree.Element("node")
    for name, uuid in uuids.items():
        domain = etree.fromstring(
            f"<domain type='test'><name>{name}</name><uuid>{uuid or OLD_UUID}</uuid>"
            "<memory>65536</memory>"
            "<os><type>hvm</type></os></domain>"
        )
        if not uuid:  # Salt's own driver made it
            etree.SubElement(domain, "description").text = "Cloned from base"
            node.append(domain)
            continue
        minion = Minion(name, "3008.1", fingerprints.whole(KEY))
        done = Record(uuid, "base", "", "quick", name=name, stage="ready", minion=minion)
        record_xml.embed(domain, done)
        node.append(domain)
    path.write_bytes(etree.tostring(node))
    return f"test://{path}"


@contextmanager
def providers(world: SaltWorld, **urls: str) -> Iterator[None]:
    """More providers, of that host, for as long as this lasts."""
    found = {name: {**PROVIDER, "url": url} for name, url in urls.items()}
    path = world.write_cloud("providers", "more.conf", found)
    try:
        yield
    finally:
        path.unlink()


@tries("all_hosts.AllHosts._the_one")
@pytest.mark.parametrize("copied", [False, True])
def test_two_hosts_with_a_clone_of_one_name(
    world: SaltWorld, typist: Typist, tmp_path: Path, copied: bool
) -> None:
    a = clones(tmp_path / "a.xml", web1=UUID)
    b = clones(tmp_path / "b.xml", web1=UUID if copied else OTHER_UUID)
    with providers(world, a=a, b=b):
        hint = error_of(world.run("kvmclone.show", "web1"))["hint"]
        assert len(commands(hint)) == 2 + copied
        shown = typist(hint, "salt kvm01 kvm_clone.show")
        assert shown.count(UUID if copied else OTHER_UUID) == 1 + copied
        if copied:
            typist(hint, "saltutil.sync_all")


@tries("all_hosts.AllHosts._own")
def test_a_daemon_that_two_providers_name(world: SaltWorld, typist: Typist) -> None:
    class Host:
        """It says of itself what a host with a uuid does; libvirt's test driver has none."""

        def __init__(self, name: str) -> None:
            self.name = name

        def daemon(self) -> Daemon:
            domains = frozenset({self.name})
            return Daemon("h", self.name, "QEMU", "system", "", domains, frozenset())

        def doctor(self) -> list[dict[str, Any]]:
            return []

        def list_clones(self) -> list[Clone]:
            return []

    far = "qemu+ssh://one/system"
    names = {("kvm01", URL): "one", ("", far): "one", ("kvm02", URL): "other"}
    ways = [PROVIDER, {"driver": "libvirt", "url": far}, {**PROVIDER, "host": "kvm02"}]
    sections = [provider(f"p{number}", keys) for number, keys in enumerate(ways)]
    everything = AllHosts(build(sections), lambda *way: Host(names[way]))  # type: ignore[arg-type, return-value]
    found = {item["kind"]: item["hint"] for item in everything.doctor()[0]}
    assert set(found) == {"daemon-twice", "host-uuid-twice"}
    assert json.loads(typist(found["daemon-twice"]))["retcode"] == 0
    assert "<capabilities>" in typist(found["host-uuid-twice"].replace("kvm02", "kvm01"))


@tries("left_keys.remove")
def test_a_clone_whose_host_is_down(
    world: SaltWorld, opts: dict[str, Any], typist: Typist, tmp_path: Path
) -> None:
    keys = MinionKeys(opts)
    keys.accept("web1", KEY, "web1", "kvm01")
    with providers(world, a=clones(tmp_path / "a.xml", web1=UUID)):
        world.stop_minion("kvm01")
        hint = error_of(world.run("kvmclone.destroy", "web1"))["hint"]
        assert keys.accepted("web1")
        told = json.loads(typist(hint))["clones"]["web1"]
        assert keys.accepted("web1") == ""
        world.start_minion("kvm01")
        (warning,) = told["warnings"]
        gone = json.loads(typist(warning))["clones"]["web1"]
        assert (gone["uuid"], gone["stage"]) == (UUID, "destroying")


@tries("cloud_driver.CloudDriver._refuse_mistaken")
def test_a_hard_map_that_would_take_one_for_another(
    world: SaltWorld, typist: Typist, tmp_path: Path
) -> None:
    cloud = tmp_path / "cloud.xml"
    a, b = clones(cloud, kvm=UUID), clones(tmp_path / "b.xml", kvm2=OTHER_UUID)
    with providers(world, a=a, b=b):
        asked = CloudDriver(cloud_opts(world), expect_highstate)
        with pytest.raises(InvalidName) as caught:
            asked._refuse_mistaken("kvm")
        assert json.loads(typist(caught.value.hint))["retcode"] == 0
    a, b = clones(cloud, web1=UUID), clones(tmp_path / "b.xml", web1=OTHER_UUID)
    with providers(world, a=a, b=b):
        asked = CloudDriver(cloud_opts(world), expect_highstate)
        with pytest.raises(ConfigError) as refused:
            asked._refuse_mistaken("web1")
        told = typist(refused.value.hint)
        assert UUID in told and OTHER_UUID in told


@tries("all_hosts.AllHosts._twice")
def test_one_name_on_two_hosts_is_found(world: SaltWorld, typist: Typist, tmp_path: Path) -> None:
    a = clones(tmp_path / "a.xml", web1=UUID)
    b = clones(tmp_path / "b.xml", web1=OTHER_UUID, web2=OLD_UUID)
    with providers(world, a=a, b=b):
        found = world.run("kvmclone.doctor").data["findings"]
        (twice,) = [one for one in found if one["kind"] == "name-twice"]
        assert twice["name"] == "web1"
        assert UUID in typist(twice["hint"])


@tries("fleet_findings.of_key", "fleet_findings.of_promises", "fleet_doctor._Comparison.findings")
def test_what_is_wrong_between_master_and_hosts(
    world: SaltWorld, opts: dict[str, Any], typist: Typist, tmp_path: Path
) -> None:
    keys, config = MinionKeys(opts), world.conf / "master"
    before = config.read_text()
    few, wrong = {"reserve": {"memory": "999TiB"}}, {"memry_ratio": 2}

    def found() -> dict[str, dict[str, Any]]:
        told = world.run("kvmclone.doctor").data
        assert set(told["loaded"]) == {"", "kvm01", f"kvm01 {url}"}
        assert told["loaded"]["kvm01"]["digest"] == told["loaded"][""]["digest"]
        return {one["kind"]: one for one in told["findings"]}

    url = clones(tmp_path / "a.xml", web1=UUID)
    with providers(world, a=url):
        try:
            keys.accept("web1", KEY, "web1", "kvm01")
            keys.accept("web9.example.com", KEY, "web9", "kvm01")
            keys.accept("web8", KEY, "web8", "kvm08")  # nobody asks that host any more
            config.write_text(before + json.dumps({"kvm_clone": {"hosts": {"kvm01": few}}})[1:-1])
            told = found()
            assert set(told) == {"key-without-machine", "over-promised"}
            assert "web1" in typist(told["over-promised"]["hint"])
            assert told["key-without-machine"]["name"] == "web9.example.com"
            typist(told["key-without-machine"]["hint"])
            config.write_text(before + json.dumps({"kvm_clone": {"hosts": {"kvm01": wrong}}})[1:-1])
            told = found()
            assert set(told) == {"configuration"}
            assert "memry_ratio" in typist(told["configuration"]["hint"], exits=1)
        finally:
            config.write_text(before)
            for one in ("web1", "web8"):
                keys.take_back(one, keys.remembered(one))


@tries("cloud_driver.CloudDriver._resolved", "cloud_providers.CloudProviders.way")
def test_salt_cloud_for_a_provider_with_several_hosts(world: SaltWorld, typist: Typist) -> None:
    several = {"driver": "libvirt", "hosts": ["kvm01"], "url": URL}
    provider_file = world.write_cloud("providers", "several.conf", {"several": several})
    keys = {"several": {"provider": "several", "base_domain": "test", "deploy": False}}
    profile_file = world.write_cloud("profiles", "several.conf", keys)
    try:
        cloud = CloudDriver(cloud_opts(world), expect_highstate)
        with pytest.raises(ConfigError) as refused:
            cloud._resolved({**keys["several"], **several, "name": "web7", "profile": "several"})
        # The runner asks the host, and libvirt's test driver knows no pool of a path.
        assert "Whether 'kvm01' has a 'web7' is not known" in typist(refused.value.hint, exits=1)
        with pytest.raises(ConfigError) as caught:
            cloud.providers.way("several")
        assert json.loads(typist(caught.value.hint, "salt-run kvmclone.list"))["retcode"] == 0
    finally:
        provider_file.unlink()
        profile_file.unlink()


@tries("cloud_providers.CloudProviders.keys")
def test_salt_cloud_for_a_provider_that_there_is_not(world: SaltWorld, typist: Typist) -> None:
    with pytest.raises(ConfigError) as caught:
        CloudDriver(cloud_opts(world), expect_highstate).providers.keys("nobody")
    assert "kvm" in typist(caught.value.hint)


@tries("entrypoints._require_call", "kvm_clone.destroy", "kvm_clone.adopt")
@pytest.mark.parametrize(
    "words",
    ["-y -a list_nodes web1", "-f start more", "-f destroy more", "-f adopt more"],
)
def test_salt_cloud_is_told_what_is_an_action_and_what_a_function(
    world: SaltWorld, typist: Typist, tmp_path: Path, words: str
) -> None:
    name = "old1" if "adopt" in words else "web1"
    with providers(world, more=clones(tmp_path / "a.xml", web1=UUID, old1="")):
        refused = world.cloud(*words.split())
        said = (refused.stdout + refused.stderr).splitlines()
        found = [line.strip(' "') for line in said if "salt-cloud -" in line]
        assert found, refused
        hint = found[-1]
        for word, value in {"PROVIDER": "more", "NAME": name, " [base_domain=BASE]": ""}.items():
            hint = hint.replace(word, value)
        assert name in typist(hint)


def cloud_opts(world: SaltWorld) -> dict[str, Any]:
    return dict(salt.config.cloud_config(str(world.conf / "cloud")))


@tries("signed_call._Caller.ask")
def test_a_host_whose_minion_is_down(world: SaltWorld, typist: Typist) -> None:
    world.stop_minion("kvm01")
    answer = world.run("kvmclone.list")
    hint = answer.data["unreachable"]["kvm01"]["hint"]
    assert len(commands(hint)) == 2
    typist(hint)
    assert world.run("kvmclone.list").retcode == 0


@tries("signed_call._Question.__init__")
def test_the_master_itself_is_down(world: SaltWorld, opts: dict[str, Any], typist: Typist) -> None:
    world.stop(world.master)
    error = world.run("kvmclone.list").data["unreachable"]["kvm01"]
    assert error["type"] == "HostUnreachable"
    typist(error["hint"])
    # Its minions find it again one after the other.
    wait_until(lambda: world.run("kvmclone.list").retcode == 0, "the list", 90)


@tries("signed_call._Question.__init__")
def test_a_job_that_the_master_did_not_publish(
    world: SaltWorld, opts: dict[str, Any], typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is Salt's."""
    with monkeypatch.context() as patched, pytest.raises(HostUnreachable) as caught:
        patched.setattr("salt.client.LocalClient.run_job", lambda *_, **__: {})
        RemoteHost(opts, "kvm01", URL).list_clones()
    assert "Accepted Keys:" in typist(caught.value.hint)
