"""A plan names every reason to refuse, and shows everything that will be made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.model import domain_xml, libvirt_xml, record_xml
from saltext.kvmclone.model.cloud_seed import Seed
from saltext.kvmclone.model.facts import HostFacts, PoolFacts
from saltext.kvmclone.model.names import LONGEST_NAME, check
from saltext.kvmclone.model.placement import Placement
from saltext.kvmclone.model.record import MADE, MAKING, WANTED
from saltext.kvmclone.model.request import DiskChanges, InterfaceChanges, Request
from saltext.kvmclone.plan import planner
from tests.support.plans import (
    BASE,
    FACTS,
    FULL,
    GIB,
    POOL,
    QUICK,
    VDA,
    VDB,
    conflict,
    disk_xml,
    wishing,
    with_disk,
)


def test_a_name_too_long_for_a_file_is_refused() -> None:
    long = replace(QUICK, name=".".join(["a" * 60] * 4))
    made = planner.compute(FACTS, long)
    assert made.conflicts == ()
    longer = replace(QUICK, name=".".join(["a" * 62] * 4))
    found = [said for said in planner.compute(FACTS, longer).conflicts if "longer name" in said]
    assert [path in " ".join(found) for path in ("-vda.", "-vdb.")] == [True] * 2


@pytest.mark.parametrize("length", [1, 40, 48, 49, 50, 60])
def test_a_long_name_leaves_room_in_the_name_of_the_variable_store(length: int) -> None:
    """It is written under a longer name first, and holds the clone's uuid in any case."""
    made = planner.compute(FACTS, replace(QUICK, name=".".join(["a" * length] * 4)))
    assert made.conflicts == ()
    store = Path(made.record.volumes[-1].path).name
    assert made.record.uuid in store
    assert len(f"{store}.{made.record.uuid}") <= 255
    assert made.record.could_have_made(made.record.volumes[-1])


def test_the_record_lists_every_file_before_it_exists_and_marks_the_first() -> None:
    record = planner.compute(replace(FACTS, nvram_size=540672), QUICK).record
    assert record.stage == "planned"
    assert [(v.path, v.state, v.capacity) for v in record.volumes] == [
        ("/pool/web1-vda.qcow2", MAKING, 10 * GIB),
        ("/pool/web1-vdb.qcow2", WANTED, 5 * GIB),
        (f"/var/lib/libvirt/qemu/nvram/web1_VARS-{record.uuid}.fd", WANTED, 540672),
    ]


def test_the_record_knows_the_whole_chain_below_each_disk() -> None:
    record = planner.compute(FACTS, QUICK).record
    assert [(disk.target, disk.path) for disk in record.base_disks] == [
        ("vda", "/pool/base.qcow2"),
        ("vda", "/pool/golden.qcow2"),
        ("vdb", "/pool/base-data.img"),
    ]


def test_generated_values_are_masked_and_everything_else_is_shown() -> None:
    shown = planner.compute(FACTS, QUICK).as_dict()
    assert shown["changes"]["uuid"]["new"] == "<generated>"
    assert shown["changes"]["interface 0 mac"]["new"] == "<generated>"
    assert planner.compute(FACTS, QUICK).as_dict() == shown


def test_a_shown_plan_holds_no_cookie() -> None:
    disk = disk_xml(
        "network",
        "<source protocol='https' name='x.iso'><host name='h.test' port='443'/><cookies>"
        "<cookie name='session'>cookie-canary</cookie></cookies></source>",
        device="cdrom",
    )
    made = planner.compute(with_disk(disk), QUICK)
    assert "cookie-canary" in made.xml
    assert "cookie-canary" not in str(made.as_dict())


def test_a_shown_plan_holds_no_console_password() -> None:
    assert "vnc-canary" in planner.compute(FACTS, QUICK).xml
    assert "vnc-canary" not in str(planner.compute(FACTS, QUICK).as_dict())


def test_two_plans_are_two_machines() -> None:
    first, second = planner.compute(FACTS, QUICK), planner.compute(FACTS, QUICK)
    assert first.record.uuid != second.record.uuid
    assert not set(first.generated) & set(second.generated)


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (replace(FACTS, base_state="running"), "shutdown base"),
        (replace(FACTS, base_saved=True), "managedsave-remove"),
        (replace(FACTS, taken=True), "exists already; choose another name"),
        (replace(FACTS, sources={}), "does not exist"),
        (replace(FACTS, sources={}, local=False), "no active storage pool"),
        (replace(FACTS, pools={}), "pool-list --all"),
        (replace(FACTS, pools={"pool": replace(POOL, active=False)}), "pool-start pool"),
        (
            replace(FACTS, existing=frozenset({"/pool/web1-vda.qcow2"})),
            "vol-delete /pool/web1-vda.qcow2",
        ),
        (replace(FACTS, pools={"pool": PoolFacts("pool", "rbd", "", True, GIB)}), "type 'rbd'"),
        (replace(FACTS, pools={"pool": PoolFacts("pool", "vstorage", "", True)}), "'vstorage'"),
        (replace(FACTS, sources={"vda": replace(VDA, fault="it is broken"), "vdb": VDB}), "broken"),
    ],
)
def test_a_refusal_says_what_to_do(facts: HostFacts, word: str) -> None:
    made = planner.compute(facts, QUICK)
    assert any(word in conflict for conflict in made.conflicts)
    with pytest.raises(PlanRefused) as refused:
        made.check()
    assert word in refused.value.message
    assert refused.value.hint


def test_all_reasons_are_given_at_once_and_each_once() -> None:
    facts = replace(FACTS, base_state="running", taken=True)
    assert len(planner.compute(facts, QUICK).conflicts) == 2
    assert len(planner.compute(replace(FACTS, pools={}), QUICK).conflicts) == 1  # not once per disk


def test_a_clone_without_a_host_yet_is_not_made_by_just_any() -> None:
    made = planner.compute(FACTS, replace(QUICK, placement=Placement(("kvm01",))))
    assert "decided by the master" in made.conflicts[0]


def test_a_tag_that_no_record_could_hold_is_refused() -> None:
    assert "take them out" in conflict(FACTS, replace(QUICK, tags=("ok", "\x1b[31m")))


def test_snapshots_of_the_base_are_told() -> None:
    made = planner.compute(replace(FACTS, base_snapshots=2), QUICK)
    assert "2 snapshot(s)" in made.warnings[0]


def test_a_copy_that_cannot_fit_is_refused_up_front() -> None:
    facts = replace(FACTS, pools={"pool": replace(POOL, available=GIB)})
    assert "MiB free" in conflict(facts, FULL)
    assert planner.compute(facts, QUICK).conflicts == ()


def test_pools_on_one_file_system_share_its_room() -> None:
    pools = {
        "pool": replace(POOL, available=int(2.5 * GIB)),
        "fast": replace(POOL, name="fast", path="/fast", available=int(2.5 * GIB)),
    }
    facts = replace(FACTS, pools=pools)
    assert "'pool', 'fast'" in conflict(facts, wishing(FULL, vdb=DiskChanges(pool="fast")))
    apart = {**pools, "fast": replace(pools["fast"], filesystem="8:9")}
    request = wishing(FULL, vdb=DiskChanges(pool="fast"))
    assert planner.compute(replace(FACTS, pools=apart), request).conflicts == ()


def test_far_away_the_clone_gets_fresh_uefi_variables_from_the_template() -> None:
    made = planner.compute(replace(FACTS, local=False), QUICK)
    assert made.conflicts == ()
    assert made.nvram is None
    assert "fresh ones from the template" in made.warnings[0]
    store = made.record.volumes[-1]
    assert (store.target, store.strategy, store.state) == ("nvram", "fresh", MADE)
    assert store.path in made.xml


def test_far_away_and_without_a_template_uefi_variables_are_refused() -> None:
    bare = BASE.replace(" template='/usr/share/OVMF/OVMF_VARS.fd'", "")
    assert "host:" in conflict(replace(FACTS, base_xml=bare, local=False))


def test_a_variable_store_that_is_there_is_not_the_clones() -> None:
    taken = frozenset({"/var/lib/libvirt/qemu/nvram/web1_VARS.fd"})
    made = planner.compute(replace(FACTS, existing=taken), QUICK)
    assert made.conflicts == ()
    assert made.nvram is not None
    assert made.nvram[1] not in taken
    assert made.as_dict()["changes"]["nvram"]["new"].endswith("/web1_VARS-<generated>.fd")


STORES = "/var/lib/libvirt/qemu/nvram"


@pytest.mark.parametrize(
    ("name", "store"),
    [
        ("base", "base_VARS.fd"),
        ("11111111-2222-3333-4444-555555555555", "11111111-2222-3333-4444-555555555555_VARS.fd"),
        ("base", "11111111-2222-3333-4444-555555555555_VARS.fd"),
        ("base", "base-old_VARS.fd"),
        ("base", "other_VARS.fd"),
        ("base", "base_VARS-11111111-2222-3333-4444-555555555555.fd"),
        ("base", "base_VARS.qcow2"),
    ],
)
def test_the_store_of_a_clone_is_one_that_libvirt_chooses_for_nobody(name: str, store: str) -> None:
    xml = BASE.replace("base_VARS.fd", store).replace("<name>base<", f"<name>{name}<")
    assert store in xml
    made = planner.compute(replace(FACTS, base_xml=xml), replace(QUICK, base_domain=name))
    assert made.nvram is not None
    path = Path(made.nvram[1])
    assert str(path.parent) == STORES
    assert path.stem.endswith(f"-{made.record.uuid}")
    assert path.name.count(made.record.uuid) == 1
    assert "11111111-2222" not in path.name


def test_a_clone_of_a_clone_has_a_store_with_one_uuid() -> None:
    first = planner.compute(FACTS, QUICK)
    assert first.nvram is not None
    second = planner.compute(
        replace(FACTS, base_xml=first.xml), replace(QUICK, name="web2", base_domain="web1")
    )
    assert second.nvram is not None
    assert Path(second.nvram[1]).name == f"web2_VARS-{second.record.uuid}.fd"


def test_a_base_whose_record_a_later_version_wrote_is_refused() -> None:
    first = planner.compute(FACTS, QUICK)
    root = libvirt_xml.parse(first.xml)
    record_xml.embed(root, first.record)
    made = libvirt_xml.serialize(root)
    again = replace(QUICK, name="web2", base_domain="web1")
    later = made.replace('schema="1"', f'schema="{record_xml.SCHEMA + 1}"')
    for xml, reason in ((made, "not finished"), (later, "later version")):
        conflicts = planner.compute(replace(FACTS, base_xml=xml), again).conflicts
        assert [reason in said for said in conflicts].count(True) == 1, conflicts


def test_what_an_earlier_machine_of_that_name_left_is_not_taken_for_the_clones() -> None:
    left = ("/var/lib/libvirt/qemu/save/web1.save", "/var/lib/libvirt/qemu/snapshot/web1")
    reason = conflict(replace(FACTS, left_behind=left))
    assert all(path in reason for path in left)
    assert "mv " in reason


def test_more_processors_than_the_machine_can_have_are_refused() -> None:
    facts = replace(FACTS, most_cpus=288)
    assert "can have 288" in conflict(facts, replace(QUICK, cpus=300))
    assert planner.compute(facts, replace(QUICK, cpus=288)).conflicts == ()


def test_memory_that_the_host_does_not_have_is_told_and_too_little_refused() -> None:
    facts = replace(FACTS, host_memory=8 * GIB)
    made = planner.compute(facts, replace(QUICK, memory=9 * GIB))
    assert made.conflicts == ()
    assert "the host has 8.0" in made.warnings[0]
    assert "less than any machine" in conflict(facts, replace(QUICK, memory=1000))


def test_every_override_stands_in_the_plan() -> None:
    request = replace(
        QUICK, cpus=2, memory=GIB, description="x", autostart=True, tags=("a",), pool="fast"
    )
    shown = planner.compute(FACTS, request).as_dict()
    assert shown["changes"]["cpus"] == {"old": 1, "new": 2}
    assert shown["changes"]["memory"]["new"] == GIB
    assert shown["changes"]["description"]["new"] == "x"
    assert shown["changes"]["autostart"] == {"old": None, "new": True}
    assert shown["changes"]["tags"] == {"old": [], "new": ["a"]}
    assert shown["changes"]["disk vda pool"] == {"old": "pool", "new": "fast"}
    assert next(d["destination"] for d in shown["disks"]) == "/fast/web1-vda.qcow2"


LABELS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", fullmatch=True)
CLONES = (
    st.lists(LABELS, min_size=1, max_size=4)
    .map(".".join)
    .filter(lambda name: len(name) <= LONGEST_NAME)
    | st.sampled_from(["base", "007", "null", "vda", "nvram", "base-data", "x" * 63])
)  # fmt: skip


@given(pair=st.tuples(CLONES, CLONES), strategy=st.sampled_from(["full", "quick"]))
def test_files_of_a_clone_are_called_after_it_and_after_no_other(
    pair: tuple[str, str], strategy: str
) -> None:
    def files(name: str) -> set[str]:
        request = Request(name=check(name), base_domain="base", clone_strategy=strategy)
        made = planner.compute(FACTS, request)
        paths = [Path(volume.path) for volume in made.record.volumes]
        too_long = [path for path in paths if len(path.name) > 255]
        assert len(made.conflicts) == len(too_long)
        assert {path.parent.as_posix() for path in paths} == {
            "/pool", "/var/lib/libvirt/qemu/nvram"
        }  # fmt: skip
        uuid = made.record.uuid
        assert all(name in path.name or path.name == f"{uuid}.fd" for path in paths)
        return {str(path) for path in paths}

    one, other = map(files, pair)
    assert not one & {"/pool/base.qcow2", "/pool/base-data.img", "/pool/golden.qcow2"}
    assert pair[0] == pair[1] or not one & other


@pytest.mark.parametrize("state", ["running", "saved"])
def test_a_command_in_a_reason_means_the_base_whatever_that_is_called(state: str) -> None:
    odd = "Windows 11; reboot"
    xml = BASE.replace("<name>base</name>", f"<name>{odd}</name>")
    changed = {"base_state": "running"} if state == "running" else {"base_saved": True}
    (said,) = planner.compute(replace(FACTS, base_xml=xml, **changed), QUICK).conflicts
    assert said.endswith(f" '{odd}'")


def test_a_card_that_is_left_out_is_no_card_of_networks() -> None:
    request = replace(
        QUICK, leave_out=("interface0",), networks=(InterfaceChanges(mac="52:54:00:00:00:07"),)
    )
    made = planner.compute(FACTS, request)
    assert made.conflicts == ()
    (card,) = domain_xml.read(made.xml).interfaces
    assert (card.kind, card.source, card.mac) == ("bridge", "ovsbr0", "52:54:00:00:00:07")
    assert made.changes["interface0"]["new"] is None


def test_a_clone_without_the_agents_channel_has_no_agent() -> None:
    seed = replace(FACTS, seeds={"sda": Seed("cidata")})
    for left, word in (((), 0), (("channel0",), 1)):
        warnings = planner.compute(seed, replace(QUICK, leave_out=left)).warnings
        assert len([one for one in warnings if "without a guest agent" in one]) == word


def test_what_the_profile_leaves_out_stands_in_the_plan() -> None:
    made = planner.compute(FACTS, replace(QUICK, leave_out=("serial", "filesystem1")))
    assert made.changes["serial0"]["new"] is None
    assert "<serial type" not in made.xml
    assert "'filesystem1', which the base does not have" in made.conflicts[0]
