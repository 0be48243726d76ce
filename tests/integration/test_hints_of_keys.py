"""
What the master's hints about keys and minions say is typed, word for word, in the state in which
they were given: with a master and minions.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.common import wait_until, write
from lab.salt import SaltWorld
from saltext.kvmclone.errors import (
    HostUnreachable,
    KeyConflict,
    Unsealable,
    VerificationFailed,
)
from saltext.kvmclone.master import verify
from saltext.kvmclone.master.enrolment import Enroller
from saltext.kvmclone.master.keys import MinionKeys, generate
from saltext.kvmclone.master.remote import RemoteHost
from saltext.kvmclone.model.request import Deploy, Request, Secrets
from saltext.kvmclone.reactor.handlers import RequestHandlers
from saltext.kvmclone.reactor.intake import expect_highstate
from saltext.kvmclone.reactor.policy import Policy
from saltext.kvmclone.reactor.request_store import RequestStore
from tests.support import hint_worlds, installs
from tests.support.hint_worlds import SELDOM, URL
from tests.support.hints import Typist, commands, error_of, tries, typist_of

pytestmark = pytest.mark.slow

UUID = "00112233-4455-6677-8899-aabbccddeeff"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SaltWorld]:
    with hint_worlds.made(tmp_path_factory.mktemp("hints")) as made:
        yield made


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
