"""What a host has promised is added up from what is there now, not from what libvirt remembers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from saltext.kvmclone.inventory import promises
from saltext.kvmclone.model.record import WARM, FrozenDisk, Record, Snapshot, Volume

GIB = 2**30


class Pool:
    """An active pool of a folder, whose free space libvirt looked at long ago."""

    def __init__(self, name: str, path: Path) -> None:
        self._name, self.path = name, path

    def name(self) -> str:
        return self._name

    def isActive(self) -> int:
        return 1

    def XMLDesc(self, _flags: int) -> str:
        return (
            f"<pool type='dir'><name>{self._name}</name><available>5</available>"
            f"<capacity>9</capacity><target><path>{self.path}</path></target></pool>"
        )


class Host:
    """A host with some pools and clones."""

    def __init__(self, *pools: Pool, records: tuple[Record, ...] = ()) -> None:
        self.local = True
        self.records = records
        self.raw = SimpleNamespace(
            listAllStoragePools=lambda _flags: list(pools),
            getInfo=lambda: ["x86_64", 1024, 4],
        )

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def each_domain(self, work: Callable[[Any], None]) -> None:
        for number, record in enumerate(self.records):
            info = SimpleNamespace(info=lambda: [5, 2**20, 0, 1])
            work(
                SimpleNamespace(
                    name=f"web{number}", was_off=True, raw=info, connection=self,
                    record=lambda record=record: record,
                )
            )  # fmt: skip


def test_the_free_space_of_a_local_pool_is_that_of_now_and_its_file_system_is_known(
    tmp_path: Path,
) -> None:
    (tmp_path / "fast").mkdir()
    host: Any = Host(Pool("pool", tmp_path), Pool("fast", tmp_path / "fast"))
    pools = promises.look(host).pools
    assert pools["pool"].available > 5
    assert pools["pool"].filesystem == pools["fast"].filesystem != ""


def _record(folder: Path, under_way: str = "") -> Record:
    base, top = str(folder / "web1-vda.qcow2"), str(folder / "web1-vda.a.1.qcow2")
    return Record(
        "u1",
        "base",
        "u2",
        "full",
        under_way=under_way,
        volumes=(
            Volume("vda", base, "qcow2", "copy", "made", 10 * GIB),
            Volume("vda", top, "qcow2", "snapshot", "made", 10 * GIB, label="a", below=base),
        ),
        snapshots=(Snapshot("a", 0.0, "ready", disks=(FrozenDisk("vda", base, "qcow2"),)),),
    )


def test_a_base_that_is_being_warmed_takes_memory_and_one_that_is_warm_takes_none() -> None:
    begun = Record("u1", "base", "u2", "quick", stage="cloned", goal="ready", becomes=WARM)
    for stage, memory in (("cloned", GIB), ("booted", GIB), ("ready", 0)):
        host: Any = Host(records=(replace(begun, stage=stage),))
        offer = promises.look(host)
        assert (offer.promised.memory, offer.clones) == (memory, 0)


def test_what_a_snapshot_froze_does_not_grow_any_more(tmp_path: Path) -> None:
    for under_way, growth in (("", 10 * GIB), ("snapshot a", 20 * GIB)):
        host: Any = Host(Pool("pool", tmp_path), records=(_record(tmp_path, under_way),))
        assert promises.look(host).pools["pool"].growth == growth
