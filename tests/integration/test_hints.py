"""
What the master's hints say is typed, word for word, in the state in which they were given: with a
master and minions, and hosts of libvirt's test driver.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import salt.config
import yaml
from lxml import etree

from lab.common import wait_until, write
from lab.salt import SaltWorld
from saltext.kvmclone.config.catalogue import build
from saltext.kvmclone.errors import (
    ConfigError,
    HostUnreachable,
    InvalidName,
    KeyConflict,
    Unsealable,
    VerificationFailed,
)
from saltext.kvmclone.master import verify
from saltext.kvmclone.master.all_hosts import AllHosts
from saltext.kvmclone.master.cloud_driver import CloudDriver
from saltext.kvmclone.master.enrolment import Enroller
from saltext.kvmclone.master.keys import MinionKeys, generate
from saltext.kvmclone.master.remote import RemoteHost
from saltext.kvmclone.model import fingerprints, record_xml
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.host_reports import Daemon
from saltext.kvmclone.model.record import Minion, Record
from saltext.kvmclone.model.request import Deploy, Request, Secrets
from saltext.kvmclone.reactor.handlers import RequestHandlers
from saltext.kvmclone.reactor.intake import expect_highstate
from saltext.kvmclone.reactor.policy import Policy
from saltext.kvmclone.reactor.request_store import RequestStore
from tests.support import installs
from tests.support.catalogues import provider
from tests.support.hints import Typist, commands, error_of, tries, typist_of

pytestmark = pytest.mark.slow

URL = "test:///default"
#: A minion of Salt 3008 that hands in its key in the very moment in which it is accepted has it
#: pending again, so none does it every second here.
SELDOM = {"acceptance_wait_time": 15}
PROVIDER = {"driver": "libvirt", "host": "kvm01", "url": URL}
UUID, OTHER_UUID = "00112233-4455-6677-8899-aabbccddeeff", "11112233-4455-6677-8899-aabbccddeeff"
OLD_UUID = "22222233-4455-6677-8899-aabbccddeeff"
KEY = generate(2048).public


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SaltWorld]:
    """A master and the minion of a KVM host."""
    folder = tmp_path_factory.mktemp("hints")
    folder.chmod(0o755)
    with SaltWorld(folder / "salt") as made:
        made.write_cloud("providers", "kvm.conf", {"kvm": PROVIDER})
        minion = {"master": made.address, "master_port": made.ret_port}
        keys = {"provider": "kvm", "base_domain": "test", "minion": minion, "bootstrap": "agent"}
        made.write_cloud("profiles", "web.conf", {"web": keys})
        made.add_minion("kvm01", SELDOM)
        yield made


@pytest.fixture
def opts(world: SaltWorld) -> dict[str, Any]:
    return dict(salt.config.master_config(str(world.conf / "master")))


@pytest.fixture
def typist(world: SaltWorld, tmp_path: Path) -> Typist:
    return typist_of(world, tmp_path)


# --- hosts ----------------------------------------------------------------------------------------


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


@tries("signed_call.accepted_key")
def test_a_host_whose_key_is_not_accepted(world: SaltWorld, typist: Typist) -> None:
    world.add_minion("kvm02", SELDOM, accepted=False)
    error = error_of(world.run("kvmclone.create", "web", "web1", "host=kvm02"))
    assert error["type"] == "HostUnreachable"
    typist(error["hint"])
    wait_until(lambda: world.salt("kvm02", "test.ping", timeout=5).retcode == 0, "the minion", 90)
    assert error_of(world.run("kvmclone.create", "web", "web1", "host=kvm02"))["type"] != (
        "HostUnreachable"
    )
    world.stop_minion("kvm02")


# --- keys -----------------------------------------------------------------------------------------


@tries("keys.MinionKeys.require_free")
@pytest.mark.parametrize("state", ["minions", "minions_pre", "minions_rejected", "minions_denied"])
def test_an_id_that_has_a_key(
    world: SaltWorld, opts: dict[str, Any], typist: Typist, state: str
) -> None:
    folder = world.folder / "pki/master" / state
    folder.mkdir(exist_ok=True)
    (folder / "web1").write_text(generate(2048).public)
    keys = MinionKeys(opts)
    with pytest.raises(KeyConflict, match=state) as caught:
        keys.require_free("web1")
    typist(caught.value.hint)
    keys.require_free("web1")


@tries("cloud_keys.CloudEnroller.require_free")
def test_salt_cloud_for_an_id_that_has_a_key(
    world: SaltWorld, opts: dict[str, Any], typist: Typist
) -> None:
    keys = MinionKeys(opts)
    keys.accept("web2", generate(2048).public)
    refused = world.cloud("-p", "web", "web2")
    assert "KeyConflict" in refused.stdout + refused.stderr
    hint = (refused.stdout + refused.stderr).partition("Hint: ")[2].splitlines()[0]
    typist(hint.rstrip('"'))
    keys.require_free("web2")


@tries("keys.MinionKeys._require_same")
def test_another_key_that_was_accepted_meanwhile(opts: dict[str, Any], typist: Typist) -> None:
    keys, public = MinionKeys(opts), generate(2048).public
    keys.accept("web3", public)
    with pytest.raises(KeyConflict) as caught:
        keys.accept("web3", generate(2048).public)
    assert keys.fingerprint(public) in typist(caught.value.hint)


@tries("enrolment.Enrolment.way_to_accept")
@pytest.mark.parametrize("line", ["3008", "3007", "3006"])
def test_the_other_masters_of_a_minion(opts: dict[str, Any], tmp_path: Path, line: str) -> None:
    """The other master has another Salt, which may show another fingerprint."""
    pair = generate(2048)
    deploy = Deploy(minion={"master": ["10.0.0.1", "10.0.0.2"]}, bootstrap="agent")
    request = Request(name="web4", base_domain="base", deploy=deploy)
    enrolled = Enroller(opts, MinionKeys(opts), expect_highstate).enrolment(
        request, Secrets(), pair
    )
    (remark,) = enrolled.remarks
    # The paths of Salt's sockets must be short.
    with (
        tempfile.TemporaryDirectory() as folder,
        SaltWorld(Path(folder) / "other", venv=installs.cached(line)) as other,
    ):
        Path(folder).chmod(0o755)
        home = other.folder / "minions/web4/pki"
        write(home / "minion.pem", pair.private, 0o600)
        write(home / "minion.pub", pair.public)
        other.add_minion("web4", SELDOM, accepted=False)
        typist = typist_of(other, tmp_path / "typist", "web4")
        shown = typist(remark, "salt-key -f").split()
        assert any(finger in shown for finger in remark.split() if finger.count(":") == 31)
        typist(remark, "salt-key -a")
        wait_until(
            lambda: other.salt("web4", "test.ping", timeout=5).retcode == 0, "the minion", 90
        )


@tries("handlers.RequestHandlers._why_its_key_stays")
def test_the_key_of_a_clone_of_a_host_that_no_provider_names(
    opts: dict[str, Any], typist: Typist
) -> None:
    keys = MinionKeys(opts)
    keys.accept("web5", generate(2048).public, "web5", "kvm99")
    handlers = RequestHandlers(opts, Policy(clean_keys=True), RequestStore(opts))
    refused = handlers._why_its_key_stays("web5", "web5")
    assert refused is not None
    typist(refused.hint)
    assert keys.accepted("web5") == ""


# --- minions --------------------------------------------------------------------------------------


@tries("verify._judge")
def test_an_answer_that_is_none(typist: Typist) -> None:
    with pytest.raises(VerificationFailed) as caught:
        verify._judge({"test.version": None}, "kvm01", UUID)
    assert json.loads(typist(caught.value.hint))["kvm01"]


@tries("verify.run")
def test_a_start_action_that_failed(world: SaltWorld, opts: dict[str, Any], typist: Typist) -> None:
    top = world.folder / "srv/salt/top.sls"
    top.write_text("base: {kvm01: [broken]}\n")
    broken = world.folder / "srv/salt/broken.sls"
    broken.write_text("oops: {test.fail_without_changes: []}\n")
    told = verify.run(opts, "kvm01", "state.apply")
    assert "start_action" in told
    broken.write_text("oops: {test.succeed_without_changes: []}\n")
    typist(told)
    assert verify.run(opts, "kvm01", "state.apply") == ""
    top.unlink()


@tries("sealing.seal")
def test_a_key_of_a_host_that_is_damaged(
    world: SaltWorld, opts: dict[str, Any], typist: Typist
) -> None:
    accepted = world.folder / "pki/master/minions/kvm01"
    whole = accepted.read_text()
    accepted.write_text("-----BEGIN PUBLIC KEY-----\nnothing\n")
    try:
        with pytest.raises(Unsealable) as caught:
            RemoteHost(opts, "kvm01", URL).list_clones()
        assert "nothing" in typist(caught.value.hint)
    finally:
        accepted.write_text(whole)


@tries("sealing.unseal")
def test_a_host_whose_key_was_changed(
    world: SaltWorld, opts: dict[str, Any], typist: Typist
) -> None:
    """Its minion still runs with the old key; the new one is on its disk."""
    pki, pair = world.folder / "minions/kvm01/pki", generate(2048)
    (pki / "minion.pem").write_text(pair.private)
    (pki / "minion.pub").write_text(pair.public)
    with pytest.raises(HostUnreachable) as caught:
        RemoteHost(opts, "kvm01", URL).list_clones()
    assert "Hint: " in caught.value.hint, caught.value
    said = caught.value.hint.partition("Hint: ")[2].rstrip("'\"")
    assert len(commands(said)) == 3
    typist(said)
    world.stop_minion("kvm01")
    world.start_minion("kvm01")
    assert RemoteHost(opts, "kvm01", URL).list_clones() == []


@tries("catalogue.Catalogue.resolve_here")
def test_a_profile_of_another_host(world: SaltWorld, typist: Typist) -> None:
    far = {"driver": "libvirt", "url": URL, "host": "kvm03"}
    part = {
        "providers": {"far": far},
        "profiles": {"far": {"provider": "far", "base_domain": "test"}},
    }
    pillar = world.folder / "srv/pillar"
    (pillar / "top.sls").write_text("base: {'kvm*': [far]}\n")
    (pillar / "far.sls").write_text(yaml.safe_dump({"kvm_clone": part}))
    world.add_minion("kvm03")
    try:
        world.salt("kvm01", "saltutil.refresh_pillar", "wait=True")
        command = "kvm_clone.adjust test profile=far test=True"
        refused = world.salt("kvm01", *command.split())
        hint = str(refused.data["kvm01"]).partition("Hint: ")[2]
        assert "kvm03" in hint
        told = world.salt("kvm03", *command.split()).data["kvm03"]
        assert "belongs to the KVM host" not in typist(hint, exits=1), "refused for another reason"
        assert "belongs to the KVM host" not in str(told)
    finally:
        world.stop_minion("kvm03")
        for path in pillar.iterdir():
            path.unlink()
