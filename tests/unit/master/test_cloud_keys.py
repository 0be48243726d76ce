"""What salt-cloud's core does to the accepted keys before it asks us is undone where it must be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import salt.config
import salt.utils.cloud
import yaml

from saltext.kvmclone.errors import ConfigError, KeyConflict
from saltext.kvmclone.master import cloud_keys
from saltext.kvmclone.master.cloud_keys import CloudEnroller
from saltext.kvmclone.master.keys import MinionKeys, generate
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.record import Minion
from saltext.kvmclone.model.request import Deploy, Request, Secrets
from saltext.kvmclone.reactor.intake import expect_highstate

PAIR = generate(2048)
OTHER = generate(2048)


@pytest.fixture
def opts(tmp_path: Path) -> dict[str, Any]:
    """A master's configuration, with a key store of its own."""
    path = tmp_path / "master"
    folders = {
        "root_dir": str(tmp_path),
        "pki_dir": str(tmp_path / "pki"),
        "cachedir": str(tmp_path / "cache"),
        "sock_dir": str(tmp_path / "run"),
    }
    path.write_text(yaml.safe_dump(folders))
    (tmp_path / "pki/minions").mkdir(parents=True)
    (tmp_path / "cache").mkdir()
    return dict(salt.config.master_config(str(path)))


def accepted(opts: dict[str, Any]) -> dict[str, str]:
    return {path.name: path.read_text() for path in Path(opts["pki_dir"], "minions").iterdir()}


def asked(opts: dict[str, Any], **keys: Any) -> CloudEnroller:
    """What the driver makes of a machine, after the core has done its part."""
    cloud_opts = {**opts, "providers": {}, "profiles": {}}
    noted = cloud_keys.note(cloud_opts)
    machine = {"name": "web1", "driver": "libvirt", "profile": None, **keys}
    minion_id = cloud_keys._core_id(cloud_opts, machine)
    if keys.get("make_master") is None:
        salt.utils.cloud.accept_key(opts["pki_dir"], PAIR.public, minion_id)
    machine |= {"priv_key": PAIR.private, "pub_key": PAIR.public}
    return CloudEnroller(opts, cloud_opts, machine, noted, expect_highstate)


def request(**deploy: Any) -> Request:
    return Request(name="web1", base_domain="base", deploy=Deploy(**deploy))


def test_a_free_id_keeps_the_cores_key(opts: dict[str, Any]) -> None:
    given = asked(opts)
    given.settle_place(request())
    assert accepted(opts) == {"web1": PAIR.public}
    assert given.generate(2048) == PAIR
    assert given.is_its_master


def test_a_key_that_was_there_is_put_back_to_the_byte(opts: dict[str, Any]) -> None:
    Path(opts["pki_dir"], "minions/web1").write_text(OTHER.public)
    given = asked(opts)
    assert accepted(opts) == {"web1": PAIR.public}
    with pytest.raises(KeyConflict, match="web1"):
        given.settle_place(request())
    given.take_back()
    assert accepted(opts) == {"web1": OTHER.public}
    given.take_back()
    assert accepted(opts) == {"web1": OTHER.public}


def test_a_key_that_was_put_back_is_not_taken_for_one_of_ours(opts: dict[str, Any]) -> None:
    path = Path(opts["pki_dir"], "minions/web1")
    path.write_text(OTHER.public)
    asked(opts).take_back()
    assert MinionKeys(opts).remembered("web1") == ""


def test_a_failed_create_leaves_no_key(opts: dict[str, Any]) -> None:
    given = asked(opts)
    given.take_back()
    assert accepted(opts) == {}


def test_what_somebody_accepted_meanwhile_is_left_alone(opts: dict[str, Any]) -> None:
    given = asked(opts)
    Path(opts["pki_dir"], "minions/web1").write_text(OTHER.public)
    given.take_back()
    assert accepted(opts) == {"web1": OTHER.public}


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"minion": {"append_domain": "example.com"}}, "web1.example.com"),
        ({"minion": {"id": "other"}}, "other"),
        ({"use_fqdn": True, "domain": "example.com"}, "web1.example.com"),
        ({"append_domain": "example.com"}, "web1"),
    ],
)
def test_the_cores_own_idea_of_the_id_is_known(
    opts: dict[str, Any], keys: dict[str, Any], place: str
) -> None:
    given = asked(opts, **keys)
    assert accepted(opts) == {place: PAIR.public}
    assert given.core_id == place


def test_a_key_under_an_id_that_the_minion_will_not_have_goes(opts: dict[str, Any]) -> None:
    Path(opts["pki_dir"], "minions/other").write_text(OTHER.public)
    given = asked(opts, minion={"id": "other"})
    given.settle_place(request())
    assert accepted(opts) == {"other": OTHER.public}


def test_a_pair_that_no_minion_came_with_goes(opts: dict[str, Any]) -> None:
    given = asked(opts)
    clone = Clone("web1", "u", "h", "b", "", "quick", "running", "addressed")
    assert not given.belongs_to(clone)
    minion = Minion("web1", fingerprint=given.fingerprint(PAIR.public))
    assert given.belongs_to(replace(clone, minion=minion))


def test_keys_are_noted_only_where_a_machine_may_be_made(opts: dict[str, Any]) -> None:
    Path(opts["pki_dir"], "minions/web1").write_text(OTHER.public)
    assert cloud_keys.note(opts) == {"web1": OTHER.public}
    assert cloud_keys.note({**opts, "destroy": True}) == {}
    # A library's client that started a machine once has this word in its settings ever after.
    assert cloud_keys.note({**opts, "action": "start"}) == {"web1": OTHER.public}
    assert cloud_keys.note({**opts, "pki_dir": "/nowhere"}) == {}


def test_the_keys_that_the_core_would_go_on_to_are_named(opts: dict[str, Any]) -> None:
    for name in ("web1", "web1.example.com", "web10", "web"):
        Path(opts["pki_dir"], "minions", name).write_text(OTHER.public)
    assert cloud_keys.touched_by_core(opts, "web1") == ["web1", "web1.example.com"]


# --- a new master -------------------------------------------------------------------------------


def test_a_new_master_gets_its_keys_and_is_nobodys_minion_here(opts: dict[str, Any]) -> None:
    given = asked(
        opts,
        make_master=True,
        master_pem="private\n",
        master_pub="public\n",
        preseed_minion_keys={"web2": "key of web2\n"},
        minion={"master": "127.0.0.1"},
    )
    assert not given.is_its_master
    wanted = request(make_master=True, master={"auto_accept": False}, bootstrap="ssh")
    wanted.deploy.minion["master"] = "127.0.0.1"
    given.settle_place(wanted)
    given.prepare(wanted, Secrets())
    made = given.enrolment(wanted, Secrets(), given.generate(2048))
    files = {file.path: file.content for file in made.beside}
    assert files["master.pem"] == b"private\n"
    assert files["preseed-minion-keys/web2"] == b"key of web2\n"
    assert yaml.safe_load(files["master"])["auto_accept"] is False
    assert made.flags == " -M -k {folder}/preseed-minion-keys"
    assert made.script_named
    assert "not a minion of this master" in made.remarks[0]
    assert accepted(opts) == {}


def test_only_salt_cloud_makes_masters(opts: dict[str, Any]) -> None:
    from saltext.kvmclone.master.enrolment import Enroller

    with pytest.raises(ConfigError, match="make_master") as caught:
        Enroller(opts, MinionKeys(opts), expect_highstate).prepare(
            request(make_master=True), Secrets()
        )
    assert "salt-cloud -p" in caught.value.hint
