"""Whatever is taken, rolled back to and deleted: no file that is needed goes, none is forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.errors import InvalidName
from saltext.kvmclone.model import snapshots
from saltext.kvmclone.model.record import MADE, FrozenDisk, Record, Snapshot, Volume

UUID = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
TARGETS = ("vda", "vdb")
STORE = f"/nvram/web1-{UUID}_VARS.fd"


def path(target: str) -> str:
    return f"/pool/web1-{target}.qcow2"


@dataclass
class Machine:
    """What really is on the disks, whatever the record says of it."""

    record: Record = Record(
        UUID, "base", "x", "quick", "web1", stage="addressed", goal="addressed",
        volumes=(
            *(Volume(target, path(target), "qcow2", "overlay") for target in TARGETS),
            Volume("nvram", STORE, "raw", "copy"),
        ),
    )  # fmt: skip
    tops: dict[str, str] = field(default_factory=lambda: {one: path(one) for one in TARGETS})
    #: What each file stands on, and what was written into it.
    below: dict[str, str] = field(default_factory=dict)
    writes: dict[str, tuple[int, ...]] = field(
        default_factory=lambda: {path(one): () for one in TARGETS} | {STORE: ()}
    )
    #: What the guest read when each snapshot was taken.
    expected: dict[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    store: int = 0
    copies: dict[str, int] = field(default_factory=dict)

    def content(self, file: str) -> tuple[int, ...]:
        lower = self.content(self.below[file]) if file in self.below else ()
        return lower + self.writes[file]

    def reads(self) -> tuple[tuple[int, ...], ...]:
        return tuple(self.content(self.tops[target]) for target in TARGETS)

    def write(self, number: int) -> None:
        self.writes[self.tops[TARGETS[number % 2]]] += (number,)
        self.store = number

    def exists(self, file: str) -> bool:
        return file in self.writes

    def overlays(self, disks: tuple[FrozenDisk, ...], label: str) -> dict[str, str]:
        """Make overlays as the record announces them; answers with the new tops."""
        tops = {}
        for disk in disks:
            made = snapshots.new_overlay(self.record, disk, label, 7, self.exists)
            assert self.record.could_have_made(made)
            assert not self.exists(made.path)
            made = replace(made, state=MADE)
            self.record = replace(self.record, volumes=(*self.record.volumes, made))
            self.writes[made.path], self.below[made.path] = (), disk.path
            tops[disk.target] = made.path
        return tops

    def take(self, label: str) -> None:
        disks = tuple(FrozenDisk(one, self.tops[one], "qcow2") for one in TARGETS)
        copy = snapshots.store_copy(self.record, STORE, label, self.exists)
        assert self.record.could_have_made(copy)
        self.writes[copy.path], self.copies[copy.path] = (), self.store
        self.record = replace(self.record, volumes=(*self.record.volumes, copy))
        self.expected[label] = self.reads()
        tops = self.overlays(disks, label)
        taken = Snapshot(label, 1.0, "addressed", disks=disks, nvram=copy.path)
        self.record = replace(
            self.record, snapshots=(*self.record.snapshots, taken), under_way=f"snapshot {label}"
        )
        self.tops = tops
        self.settle()
        assert snapshots.current(self.record, self.tops) == label

    def roll_back(self, label: str) -> None:
        snapshot = snapshots.find(self.record, label)
        assert snapshot is not None
        self.record = replace(self.record, under_way=f"rollback {label}")
        self.tops = self.overlays(snapshot.disks, label)
        self.record = replace(self.record, under_way=f"rolled_back {label}")
        self.store = self.copies[snapshot.nvram]
        self.settle()
        assert snapshots.current(self.record, self.tops) == label
        assert self.reads() == self.expected[label]

    def delete(self, label: str) -> None:
        snapshot = snapshots.find(self.record, label)
        assert snapshot is not None
        self.record = replace(self.record, under_way=f"delete_snapshot {label}")
        for disk in snapshot.disks:
            for child in snapshots.standing_on(self.record, disk.path, self.tops, label):
                self.writes[child.path] = self.writes[disk.path] + self.writes[child.path]
                self.below.pop(child.path)
                if disk.path in self.below:
                    self.below[child.path] = self.below[disk.path]
                parent = next(one for one in self.record.volumes if one.path == disk.path)
                volumes = snapshots.rebased(self.record, child.path, parent)
                self.record = replace(self.record, volumes=volumes)
        self.settle()
        del self.expected[label]
        assert snapshots.find(self.record, label) is None

    def settle(self) -> None:
        staying, going = snapshots.settled(self.record, self.tops)
        for volume in going:
            assert volume.path not in self.below.values(), "something stands on it"
            assert self.record.may_be_unnamed(volume)
            del self.writes[volume.path]
            self.below.pop(volume.path, None)
        volumes = snapshots.without_volumes(self.record, {one.path for one in going})
        self.record = replace(self.record, volumes=volumes, snapshots=staying, under_way="")

    def check(self) -> None:
        assert {one.path for one in self.record.volumes} == set(self.writes)
        needed = snapshots.frozen(self.record) | set(self.tops.values()) | {STORE}
        assert set(self.writes) == needed | {one.nvram for one in self.record.snapshots}
        assert {one.path: one.below for one in self.record.volumes if one.below} == self.below
        for one in self.record.snapshots:
            read = tuple(self.content(disk.path) for disk in one.disks)
            assert read == self.expected[one.label]
        assert snapshots.settled(self.record, self.tops) == (self.record.snapshots, ())
        roots = [one for one in self.record.volumes if one.target != "nvram" and not one.below]
        assert {one.strategy for one in roots} == {"overlay"}, "it stands on the base"


STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "take", "roll_back", "delete"]), st.integers(0, 5)),
    max_size=14,
)


@given(steps=STEPS)
def test_no_sequence_loses_a_file_or_leaves_one(steps: list[tuple[str, int]]) -> None:
    machine = Machine()
    for number, (step, which) in enumerate(steps):
        machine.write(number)
        there = [one.label for one in machine.record.snapshots]
        before = machine.reads()
        if step == "take" and f"s{which}" not in there:
            machine.take(f"s{which}")
            assert machine.reads() == before
        elif step == "roll_back" and there:
            machine.roll_back(there[which % len(there)])
        elif step == "delete" and there:
            machine.delete(there[which % len(there)])
            assert machine.reads() == before
        machine.check()


@given(steps=STEPS)
def test_work_that_was_not_begun_ends_where_it_began(steps: list[tuple[str, int]]) -> None:
    machine = Machine()
    for label in ("a", "b"):
        machine.take(label)
    for number, (step, which) in enumerate(steps):
        machine.write(number)
        label = ("a", "b")[which % 2]
        if step == "roll_back":
            machine.roll_back(label)
        kept = machine.record
        snapshot = snapshots.find(kept, label)
        assert snapshot is not None
        action, named = ("snapshot", "new") if step == "take" else ("rollback", label)
        disks = tuple(FrozenDisk(one, machine.tops[one], "qcow2") for one in TARGETS)
        if step == "take":
            pending = (*kept.snapshots, Snapshot("new", 1.0, "addressed", disks=disks))
            machine.record = replace(kept, snapshots=pending)
        machine.overlays(disks if step == "take" else snapshot.disks, named)
        machine.record = replace(machine.record, under_way=f"{action} {named}")
        assert snapshots.finished(machine.record) == kept.snapshots
        machine.settle()
        assert machine.record == kept
        machine.check()


def test_a_disk_that_was_taken_out_keeps_its_files() -> None:
    machine = Machine()
    machine.take("a")
    machine.take("b")
    old = machine.tops
    tops = machine.overlays(machine.record.snapshots[0].disks, "a")
    going = snapshots.unneeded(machine.record, {"vda": tops["vda"]})
    assert [one.path for one in going] == [old["vda"]]


def test_the_work_that_is_left_of_a_delete_stays_a_snapshot_while_something_stands_on_it() -> None:
    machine = Machine()
    machine.take("a")
    record = replace(machine.record, under_way="delete_snapshot a")
    assert snapshots.settled(record, machine.tops) == (record.snapshots, ())


@pytest.mark.parametrize("label", ["before", "7", "2026-11-30T01-20-00", "a_b-C", "x" * 40])
def test_labels_that_are_taken(label: str) -> None:
    assert snapshots.check_label(label) == label


@pytest.mark.parametrize(
    "label", ["", "-a", "a.b", "a/b", "../x", "a b", "x" * 41, "ä", "a\n", 7, None, True, 1.5]
)
def test_labels_that_are_refused(label: object) -> None:
    with pytest.raises(InvalidName) as caught:
        snapshots.check_label(label)
    assert caught.value.hint


@given(seconds=st.floats(0, 4e9))
def test_a_label_made_of_the_time_can_be_used(seconds: float) -> None:
    assert snapshots.check_label(snapshots.label_of(seconds))


@pytest.mark.parametrize(
    ("file", "label", "ours"),
    [
        ("web1-vda.before.1.qcow2", "before", True),
        ("web1-vda.before.12.qcow2", "before", True),
        ("web1-vda.before.0.qcow2", "before", False),
        ("web1-vda.before.1.raw", "before", False),
        ("web1-vda.other.1.qcow2", "before", False),
        ("web1-vdb.before.1.qcow2", "before", False),
        ("web2-vda.before.1.qcow2", "before", False),
        ("web1-vda.qcow2", "before", False),
        ("web1-vda.before.1.qcow2", "", False),
        ("web1-vda..*.1.qcow2", ".*", False),
        ("web1-vda.qcow2", "", True),
    ],
)
def test_only_files_named_as_a_snapshot_s_are_ours(file: str, label: str, ours: bool) -> None:
    volume = Volume("vda", f"/pool/{file}", "qcow2", "snapshot", label=label)
    assert Machine().record.could_have_made(volume) is ours


@pytest.mark.parametrize(
    ("store", "label", "ours"),
    [
        (f"{STORE}.before.1", "before", True),
        (STORE, "before", False),
        (f"{STORE}.other.1", "before", False),
        ("/nvram/other_VARS.fd.before.1", "before", False),
        (STORE, "", True),
    ],
)
def test_only_copies_of_the_own_store_are_ours(store: str, label: str, ours: bool) -> None:
    volume = Volume("nvram", store, "raw", "snapshot", label=label)
    assert Machine().record.could_have_made(volume) is ours
