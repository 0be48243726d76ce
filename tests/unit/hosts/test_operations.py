"""Master and host read one table; what one of them packs the other unpacks, and nothing else."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any

import pytest

from saltext.kvmclone.errors import Unsealable
from saltext.kvmclone.hosts import operations
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hosts.operations import OPERATIONS, Operation
from saltext.kvmclone.master import keys
from saltext.kvmclone.model.base_copy import BaseOffer, CopyKey, OfferedFile
from saltext.kvmclone.model.base_request import BaseRequest, Origin
from saltext.kvmclone.model.enrolment import Enrolment, GuestFile
from saltext.kvmclone.model.placement import HostLimits
from saltext.kvmclone.model.record import Minion, Owner
from saltext.kvmclone.model.request import Deploy, Login, Request, Secrets
from saltext.kvmclone.model.spares import Claim
from saltext.kvmclone.system import sealing
from tests.support.forms import digest, form

REQUEST = Request("web1", "base", deploy=Deploy(append_domain="example.com"))
SECRET = "canary"
ENROLMENT = Enrolment(
    "web1.example.com", secrets=Secrets(SECRET), files=(GuestFile("/a", SECRET.encode()),)
)
BASE = BaseRequest("debian12", "https://example.com/d.qcow2", size=5)
ORIGIN = Origin(
    f"https://u:{SECRET}@example.com/d.qcow2?{SECRET}", f"https://{SECRET}@example.com/s"
)
WORKER = Owner("kvm01", "boot", 7, 8, "token", "machine")
MINION = Minion("web1", "3008", "aa:bb", "key")

COPY = "0123456789abcdef"
OFFER = BaseOffer(
    COPY, "base", "d1", (OfferedFile("vda", "qcow2", 9, "d2", 8, 7, "default", "/images"),),
    {"/boot/kernel": "d3"}, "root", 22, ("10.0.0.1",), ("ssh-ed25519 B",),
)  # fmt: skip

#: A call of every operation, each argument another one than its default.
CALLS: dict[str, dict[str, Any]] = {
    "plan": {"request": REQUEST},
    "offer": {"request": REQUEST, "names": ["web1", "web2"]},
    "base_minion": {"request": REQUEST},
    "clone": {
        "request": REQUEST, "worker": WORKER, "goal": "ready", "digest": "0123",
        "seed": {"user-data": SECRET},
    },
    "take_over": {"name": "web1", "token": "t", "worker": WORKER},
    "boot": {"name": "web1"},
    "wait_for_address": {"request": REQUEST, "minion": MINION},
    "bootstrap": {"request": REQUEST, "enrolment": ENROLMENT},
    "give_word": {"request": REQUEST, "word": SECRET},
    "check_master": {"request": REQUEST, "secrets": Secrets(SECRET), "publish_port": 4505},
    "complete": {"name": "web1", "minion": MINION, "timings": {"ready": 1.5}},
    "keep": {"name": "web1", "token": "t", "why": "it failed", "off": True},
    "base_states": {"names": ["base"]},
    "hash_base": {"base_domain": "base"},
    "expect_base": {"base_domain": "base"},
    "offer_base": {"base_domain": "base", "copy": COPY},
    "prepare_copy": {"offer": OFFER, "instead": True},
    "reached": {"addresses": ["::1"], "port": 22},
    "admit_copy": {"base_domain": "base", "copy": COPY, "key": CopyKey("ssh-ed25519 A", ("::1",))},
    "fetch_base": {"offer": OFFER, "instead": True},
    "end_copy": {"copy": COPY},
    "dead_copies": {"name": "base", "apply": True},
    "remove_base": {"base_domain": "base", "apply": True},
    "base_from": {"request": BASE, "origin": ORIGIN, "worker": WORKER},
    "promote": {"name": "web1", "base": "golden", "worker": WORKER},
    "warm": {"base_domain": "base", "worker": WORKER, "limits": HostLimits(memory_ratio=0.5)},
    "unwarm": {"base_domain": "base"},
    "destroy": {"name": "web1", "force": True, "token": "t"},
    "clear": {"name": "web1", "token": "t", "force": True},
    "power": {"name": "web1", "action": "off"},
    "show": {"name": "web1"},
    "list_clones": {"spares": True},
    "claim": {
        "name": "web1", "uuid": "u", "claim": Claim("alice", 5.0), "expires": 7.5, "tags": ["ci"],
    },
    "snapshot": {"name": "web1", "label": "before"},
    "rollback": {"name": "web1", "label": "before"},
    "snapshots": {"name": "web1"},
    "delete_snapshot": {"name": "web1", "label": "before"},
    "unfinished": {"name": "web1"},
    "tree": {},
    "bases": {},
    "doctor": {},
    "condition": {},
    "capacity": {},
    "daemon": {},
    "report_domains": {"names": ["web1"], "ids": ["web1.example.com"]},
    "adopt": {"name": "web1", "base_domain": "base"},
    "unprotect": {"base_domain": "base"},
}  # fmt: skip

PAIR = keys.generate(2048)


def seal(data: bytes, purpose: bytes) -> str:
    return sealing.seal(PAIR.public, data, purpose, "kvm01")


def unseal(token: str, purpose: bytes) -> bytes:
    return sealing.unseal(PAIR.private, token, purpose, "kvm01")


def packed(name: str, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        json.dumps(OPERATIONS[name].to_wire((), {**CALLS[name], **changes}, seal))
    )
    return found


def test_every_operation_is_a_method_of_both_and_takes_there_what_it_takes_here() -> None:
    assert set(OPERATIONS) == set(CALLS)
    for name, operation in OPERATIONS.items():
        there = inspect.signature(getattr(LocalHost, name)).parameters
        assert set(operation.parameters) <= set(there), name
        for parameter in operation.parameters:
            here = operation.signature.parameters[parameter]
            assert there[parameter].default == here.default, (name, parameter)


@pytest.mark.parametrize("name", CALLS)
def test_what_is_asked_arrives_whole(name: str) -> None:
    operation, given = OPERATIONS[name], CALLS[name]
    for parameter, value in given.items():
        assert value != operation.signature.parameters[parameter].default
    assert operation.from_wire(packed(name), unseal) == given
    by_place = operation.to_wire(tuple(given.values()), {}, seal)
    assert operation.from_wire(json.loads(json.dumps(by_place)), unseal) == given


@pytest.mark.parametrize("name", CALLS)
def test_what_is_not_in_the_table_is_refused(name: str) -> None:
    operation, plain = OPERATIONS[name], packed(name)
    with pytest.raises(ValueError, match="does not take 'dry'"):
        operation.from_wire({**plain, "dry": True}, unseal)
    for parameter in plain:
        wrong = "7.5" if operation.parameters[parameter] is float else 7.5
        with pytest.raises((ValueError, Unsealable)):
            operation.from_wire({**plain, parameter: wrong}, unseal)
        less = {key: value for key, value in plain.items() if key != parameter}
        default = operation.signature.parameters[parameter].default
        if default is inspect.Parameter.empty:
            with pytest.raises(ValueError, match=f"lacks '{parameter}'"):
                operation.from_wire(less, unseal)


def test_what_goes_into_the_guest_does_not_stand_in_a_job() -> None:
    deploy = Deploy(script=SECRET, script_env={"A": SECRET}, minion={"x": SECRET}, command=SECRET)
    request = dataclasses.replace(REQUEST, deploy=deploy, login=Login(private_key=SECRET))
    for name, one in CALLS.items():
        if one.get("request") is not REQUEST:
            continue
        assert SECRET not in json.dumps(packed(name, request=request)), name


def test_where_an_image_really_is_does_not_stand_in_a_job() -> None:
    assert SECRET not in json.dumps(packed("base_from"))
    assert SECRET not in repr(ORIGIN)
    wrong = {**packed("base_from"), "request": {**packed("base_from")["request"], "name": "other"}}
    with pytest.raises(Unsealable):
        OPERATIONS["base_from"].from_wire(wrong, unseal)


@pytest.mark.parametrize("name", ["clone", "bootstrap", "give_word", "check_master"])
def test_what_is_sealed_for_one_clone_does_not_open_for_another(name: str) -> None:
    plain = packed(name)
    other = dataclasses.replace(REQUEST, name="web2")
    domain = dataclasses.replace(REQUEST, deploy=Deploy(append_domain="example.org"))
    for request in (other, domain):
        wrong = {**plain, "request": packed(name, request=request)["request"]}
        with pytest.raises(Unsealable):
            OPERATIONS[name].from_wire(wrong, unseal)


def test_a_seed_does_not_open_as_an_enrolment() -> None:
    wrong = {**packed("bootstrap"), "enrolment": packed("clone")["seed"]}
    with pytest.raises(Unsealable):
        OPERATIONS["bootstrap"].from_wire(wrong, unseal)


def test_without_a_seed_nothing_is_sealed() -> None:
    plain = OPERATIONS["clone"].to_wire((REQUEST,), {}, seal)
    assert "seed" not in plain
    assert OPERATIONS["clone"].from_wire(plain, unseal) == {
        "request": REQUEST, "worker": None, "goal": "cloned", "digest": "",
    }  # fmt: skip


# --- the version ------------------------------------------------------------------------


def test_a_change_of_what_travels_has_a_new_version() -> None:
    """Count ``VERSION`` up for every change, and write here what this test says then."""
    wire = {
        name: {key: form(kind) for key, kind in one.parameters.items()} | {"": form(one.returns)}
        for name, one in OPERATIONS.items()
    }
    assert (operations.VERSION, digest(wire)) == (7, "5aef47663563")


def test_a_new_field_is_a_change_of_what_travels() -> None:
    class More(KvmHost):
        def boot(self, name: str, slowly: bool = False) -> Any:
            raise NotImplementedError

    assert Operation(More.boot).parameters != OPERATIONS["boot"].parameters
