"""What a killed create left on the master itself is no more than what it left on hosts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.errors import HostUnreachable
from saltext.kvmclone.master import leftovers, reservations
from saltext.kvmclone.master.base_relay import Relays
from saltext.kvmclone.master.reservations import Reservations
from saltext.kvmclone.model.placement import Need, Reserved
from saltext.kvmclone.system import processes
from tests.support.base_hosts import Host, hosts_of


class Idle(Host):
    """A host on which nothing is left over."""

    def unfinished(self, _name: str) -> list[Any]:
        self._do("unfinished")
        return []

    def dead_copies(self, _name: str, _apply: bool) -> list[Any]:
        return []


@pytest.mark.parametrize("silent", [False, True])
def test_a_reservation_ends_only_where_every_host_has_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    opts = {"cachedir": str(tmp_path)}
    store, killed = Reservations(opts), replace(processes.this_process(), started=1)
    monkeypatch.setattr(reservations, "_user", lambda: killed)
    store.reserve("web1", "web", "qemu:///system", lambda *_: Reserved("web1", "kvm02", Need()))
    down = {"unfinished": HostUnreachable("It is down.")} if silent else {}
    everywhere, no_keys = hosts_of(Idle("kvm01"), Idle("kvm02", **down)), Any
    told = leftovers.collect(
        everywhere, no_keys, Relays(opts), store, "", True, False  # type: ignore[arg-type]
    )  # fmt: skip
    (row,) = told["leftovers"]
    assert (row["name"], row["path"], row["removed"]) == ("web1", "kvm02", not silent)
    assert row["kind"] == ("kept" if silent else "reservation")
    assert ("stays while this cannot be asked or read: kvm02" in row["reason"]) == silent
    assert row["host"] == "", "it is on the master"
    assert len(store.all()) == int(silent)
