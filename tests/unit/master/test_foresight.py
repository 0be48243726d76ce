"""That no minion can come is told before anything is made: truly, and with the line to write."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from saltext.kvmclone.master import foresight
from saltext.kvmclone.master.foresight import Script
from saltext.kvmclone.model.base_minion import BaseMinion, Foresight
from saltext.kvmclone.model.request import Deploy, Request

OPTS = {"interface": "0.0.0.0", "ret_port": 4506, "publish_port": 4505}
NO_MASTER = Request(name="web1", base_domain="base")
MASTER = replace(NO_MASTER, deploy=Deploy(minion={"master": "192.0.2.1"}))

BOOTSTRAP = Script("#!/bin/sh\n# bootstrap-salt.sh\nmv minion.pem", True)
NONE = Script("", False)
EMPTY, FULL, UNSEEN = BaseMinion(False, False), BaseMinion(True, True), BaseMinion()


def foreseen(
    request: Request, base: BaseMinion, script: Script = BOOTSTRAP, **opts: Any
) -> Foresight:
    return foresight.foresee({**OPTS, **opts}, request, lambda: script, lambda: base)


def deploying(request: Request, **keys: Any) -> Request:
    return replace(request, deploy=replace(request.deploy, **keys))


def not_looked_at() -> Any:
    raise AssertionError("nothing depends on the base")


# --- which master -------------------------------------------------------------------------------


def test_a_profile_that_names_its_master_costs_no_look_at_the_base() -> None:
    for request in (
        MASTER,
        deploying(NO_MASTER, minion={"master_type": "func"}),
        deploying(NO_MASTER, enabled=False),
        deploying(NO_MASTER, bootstrap="none"),
        deploying(NO_MASTER, make_master=True),
        replace(MASTER, reset_identity=False),
        replace(deploying(MASTER, script="mine")),
        replace(deploying(MASTER, script="mine", bootstrap="keys"), reset_identity=False),
    ):
        told = foresight.foresee(OPTS, request, not_looked_at, not_looked_at)
        assert told == Foresight(), request


def test_a_base_without_a_minion_and_a_profile_without_a_master_are_told_with_the_line() -> None:
    told = foreseen(NO_MASTER, EMPTY)
    (warning,) = told.warnings
    assert "names no master, and the base has no minion" in warning
    assert "a master called 'salt'" in warning
    line = "'minion: {master: ADDRESS, master_port: 4506, publish_port: 4505}'"
    assert warning.endswith(f"{line}, with an ADDRESS of this master that its guests reach.")
    assert told.conflicts == (), "its network may know a host of that name"


@pytest.mark.parametrize(
    ("interface", "named"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::", "ADDRESS"),
        ("127.0.0.1", "ADDRESS"),
        ("master", "ADDRESS"),
    ],
)
def test_the_address_of_a_master_that_listens_on_one_is_in_the_line(
    interface: str, named: str
) -> None:
    (warning,) = foreseen(NO_MASTER, EMPTY, interface=interface, ret_port=5506).warnings
    assert f"'minion: {{master: {named}, master_port: 5506, " in warning


def test_of_a_base_that_cannot_be_looked_into_nothing_is_claimed() -> None:
    (warning,) = foreseen(NO_MASTER, UNSEEN).warnings
    assert "If the base has no minion that knows one" in warning
    assert "the base has no minion:" not in warning


def test_a_base_that_has_a_minion_gets_no_warning() -> None:
    assert foreseen(NO_MASTER, FULL) == Foresight()


@pytest.mark.parametrize(
    ("keys", "script"),
    [
        ({"script_args": "-P -A 192.0.2.1"}, BOOTSTRAP),
        ({"script_args": """-j '{"master": "192.0.2.1"}'"""}, BOOTSTRAP),
        ({"inline_script": ("echo master: a >/etc/salt/minion.d/a.conf",)}, BOOTSTRAP),
        ({"file_map": {"/srv/a.conf": "/etc/salt/minion.d/a.conf"}}, BOOTSTRAP),
        ({"script": "mine"}, Script("echo 'master: 192.0.2.1'", False)),
    ],
)
def test_what_may_name_the_master_otherwise_is_believed(
    keys: dict[str, Any], script: Script
) -> None:
    assert foreseen(deploying(NO_MASTER, **keys), EMPTY, script) == Foresight()


def test_what_a_seed_of_its_own_does_is_nobodys_guess() -> None:
    assert foreseen(replace(NO_MASTER, seed="own"), EMPTY, NONE) == Foresight()


@pytest.mark.parametrize(
    ("keys", "script", "named"),
    [
        ({}, NONE, "'script:'"),
        ({"bootstrap": "keys"}, NONE, "'bootstrap: auto'"),
    ],
)
def test_where_nothing_can_install_a_minion_that_is_refused(
    keys: dict[str, Any], script: Script, named: str
) -> None:
    (conflict,) = foreseen(deploying(NO_MASTER, **keys), EMPTY, script).conflicts
    assert "The base has no salt-minion" in conflict
    assert named in conflict
    for base in (FULL, UNSEEN):
        assert foreseen(deploying(NO_MASTER, **keys), base, script).conflicts == ()


def test_a_command_may_install_it() -> None:
    assert foreseen(deploying(NO_MASTER, command="install it"), EMPTY, NONE).conflicts == ()


# --- whose key ----------------------------------------------------------------------------------

KEPT = replace(MASTER, reset_identity=False)


@pytest.mark.parametrize("args", ["", "-P stable", "-x Force"])
def test_salts_own_script_that_leaves_the_bases_keys_is_told_how_to_replace_them(args: str) -> None:
    request = deploying(KEPT, script="bootstrap-salt", script_args=args)
    (warning,) = foreseen(request, FULL).warnings
    assert "'script_args: -F'" in warning
    assert "'reset_identity: false'" in warning


@pytest.mark.parametrize("args", ["-F", "-P -F stable", "-PF"])
def test_salts_own_script_that_overwrites_is_no_reason_for_a_warning(args: str) -> None:
    request = deploying(KEPT, script="bootstrap-salt", script_args=args)
    assert foreseen(request, FULL) == Foresight()


def test_a_script_that_knows_nothing_of_the_key_beside_it_is_told() -> None:
    request = deploying(KEPT, script="mine")
    (warning,) = foreseen(request, FULL, Script("systemctl start salt-minion", False)).warnings
    assert "'minion.pem'" in warning
    assert "/etc/salt/pki/minion" in warning
    placing = Script('cp "$(dirname "$0")"/minion.pem /etc/salt/pki/minion', False)
    assert foreseen(request, FULL, placing) == Foresight()


@pytest.mark.parametrize(
    "keys",
    [
        {"preflight_cmds": ("rm -rf /etc/salt/pki",)},
        {"command": "sh /tmp/.saltcloud/deploy.sh -F"},
    ],
)
def test_a_profile_that_takes_the_bases_keys_away_itself_is_believed(keys: dict[str, Any]) -> None:
    assert foreseen(deploying(KEPT, script="bootstrap-salt", **keys), FULL) == Foresight()


@pytest.mark.parametrize("base", [EMPTY, UNSEEN, BaseMinion(True, False)])
def test_without_keys_that_were_seen_nothing_is_said_of_them(base: BaseMinion) -> None:
    assert foreseen(deploying(KEPT, script="mine"), base, Script("", False)).warnings == ()


def test_what_is_foreseen_stands_in_the_plan_behind_what_the_host_says() -> None:
    plan = {"name": "web1", "conflicts": ["a"], "warnings": ["b"], "xml": ""}
    told = Foresight(("c",), ("d",)).added_to(plan, ["e"])
    assert told == {"name": "web1", "conflicts": ["a", "c"], "warnings": ["b", "d", "e"], "xml": ""}
    assert list(told) == list(plan)
