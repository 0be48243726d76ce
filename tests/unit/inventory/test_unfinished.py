"""What a host tells the master of unfinished work."""

from __future__ import annotations

import dataclasses
import json
from typing import Any
from unittest.mock import Mock

import pytest

from saltext.kvmclone.errors import OutOfReach
from saltext.kvmclone.hosts import gc
from saltext.kvmclone.inventory import clone_snapshots, unfinished
from saltext.kvmclone.model.leftovers import KEPT, Leftover, Unfinished
from saltext.kvmclone.model.plain import from_plain, to_plain
from saltext.kvmclone.model.record import BASE, DEAD, Minion, Owner, Record, Work
from saltext.kvmclone.model.spares import Claim


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
        spare="0123",
        claim=Claim("alice", 5.0),
    )
    defaults = {f.name: f.default for f in dataclasses.fields(Unfinished)}
    assert all(getattr(told, name) != default for name, default in defaults.items())
    assert from_plain(Unfinished, json.loads(json.dumps(to_plain(told)))) == told


def test_a_snapshot_whose_files_are_out_of_reach_stops_no_gc_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = Record(
        "u1", "base", "u2", "quick", "web1", stage="ready", goal="ready", under_way="take before"
    )
    other = dataclasses.replace(record, uuid="u3", name="web2")
    machines = {}
    for one in (record, other):
        machines[one.name] = Mock(uuid=one.uuid, **{"record.return_value": one})
        machines[one.name].name = one.name
    host = Mock()
    host.each_domain = lambda look: [look(one) for one in machines.values()]

    def pieces(_host: Any, handle: Any, known: Record, _usage: Any, reason: str) -> Any:
        if handle.name == "web1":
            raise OutOfReach("'/pool/x' cannot be looked at now.", "virsh pool-start pool")
        return clone_snapshots.rows(handle.name, known, (), (), reason)

    monkeypatch.setattr(unfinished.file_usage_scan, "scan", Mock())
    monkeypatch.setattr(unfinished.processes, "owner_state", lambda _owner: DEAD)
    monkeypatch.setattr(unfinished.clone_snapshots, "pieces", pieces)
    found = unfinished.find(host)
    assert [(one.name, one.repairs, bool(one.refused)) for one in found] == [
        ("web1", True, True),
        ("web2", True, False),
    ]
    there = Mock()
    there.unfinished.return_value = found
    there.dead_copies.return_value = []
    rows = gc.collect(there)
    assert [(row.name, row.kind) for row in rows] == [("web1", KEPT), ("web2", "snapshot")]
    assert "pool-start pool" in rows[0].reason
