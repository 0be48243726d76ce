"""What a host tells the master of unfinished work."""

from __future__ import annotations

import dataclasses
import json

from saltext.kvmclone.model.leftovers import Leftover, Unfinished
from saltext.kvmclone.model.plain import from_plain, to_plain
from saltext.kvmclone.model.record import BASE, DEAD, Minion, Owner, Work


def test_what_a_host_tells_of_unfinished_work_arrives_whole() -> None:
    told = Unfinished(
        name="web1",
        work=Work(Owner("kvm01", "boot", 7, 8, "token", "machine"), DEAD, "booted", "ready", "x"),
        minion=Minion("web1", "3008", "aa:bb", "key"),
        pieces=(Leftover("web1", "volume", "/pool/web1-vda.qcow2", "it died", True),),
        base="debian12",
        profile="centos7",
        overrides={"cpus": 2},
        failed="a wrong password",
        running=True,
        refused="something stands on it",
        yields=True,
        repairs=True,
        becomes=BASE,
    )
    defaults = {f.name: f.default for f in dataclasses.fields(Unfinished)}
    assert all(getattr(told, name) != default for name, default in defaults.items())
    assert from_plain(Unfinished, json.loads(json.dumps(to_plain(told)))) == told
