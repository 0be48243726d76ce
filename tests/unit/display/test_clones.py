"""A person sees clones as a table, one of them on one screen, and what was done in one line."""

from __future__ import annotations

from typing import Any

import pytest

from saltext.kvmclone.display import clones, screen
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.plain import from_plain
from tests.unit.display.examples import NOW, clone, error
from tests.unit.display.examples import screen as terminal


def note(shown: dict[str, Any], before: str = "", **more: Any) -> None:
    screen.note(shown["name"], from_plain(Clone, {**shown, **more}), before)


def fleet() -> dict[str, Any]:
    found = [
        clone("web1"),
        clone("web2", drift=True, warnings=["'debian12.qcow2' was changed."]),
        clone("build-7", state="shutoff", stage="cloned", address="", addresses=[]),
    ]
    note(found[0], created=NOW - 3 * 86400 - 4 * 3600, expires=NOW + 3600, tags=["front"])
    note(found[1], created=NOW - 42)
    note(found[2], created=NOW - 3600, failed="no address")
    return {"clones": {one["name"]: one for one in found}, "retcode": 0}


def test_a_list_fits_80_columns_and_ends_with_a_count() -> None:
    assert clones.listing(fleet(), terminal("list")) == [
        "NAME     HOST   STATE    STAGE   ADDRESS         BASE      AGE   TTL  !",
        "web1     kvm01  running  ready   192.168.122.57  debian12  3d4h  1h",
        "web2     kvm01  running  ready   192.168.122.57  debian12  42s        drift",
        "build-7  kvm01  shutoff  cloned                  debian12  1h         failed",
        "3 clones",
    ]


def test_a_wider_terminal_shows_more() -> None:
    lines = clones.listing(fleet(), terminal("list", width=120))
    assert "PROFILE" in lines[0] and "VERSION" in lines[0] and "TAGS" in lines[0]
    assert max(map(len, lines)) <= 120


def test_long_names_are_cut_before_a_line_is_broken() -> None:
    name = "a-clone-with-a-very-long-name.example.org"
    shown = clone(name, host="kvm-in-the-second-room", base="debian-12-with-agent", drift=True)
    note(shown, created=NOW - 3 * 86400 - 4 * 3600, expires=NOW + 47000)
    lines = clones.listing({"clones": {name: shown}}, terminal("list"))
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("a-clone-…ame  kvm-…m  ")
    assert "192.168.122.57" in lines[1]
    assert "drift" in lines[1]


def test_the_columns_are_those_that_were_asked_for() -> None:
    assert clones.column_names(1) == ("1",)
    for columns in ("name,tags", ["NAME", "tags"]):
        assert clones.listing(fleet(), terminal("list", columns=columns))[:2] == [
            "NAME     TAGS",
            "web1     front",
        ]


def test_a_spare_in_stock_and_who_claimed_one_are_said() -> None:
    found = [
        clone("ci-0a1b2c", spare=True),
        clone("ci-3d4e5f", claimed={"by": "alice", "at": NOW - 3600}),
        clone("web1"),
    ]
    answer = {"clones": {one["name"]: one for one in found}}
    lines = clones.listing(answer, terminal("list", profile="ci", spare=False))
    assert [line.split("debian12")[1].split()[:-1] for line in lines[1:4]] == [
        ["in", "stock"],
        ["by", "alice"],
        [],
    ]
    assert "CLAIMED" in lines[0]
    assert lines[-1] == "3 clones not in stock with profile ci"
    assert "  spare    in stock" in clones.shown("ci-0a1b2c", found[0], terminal("show"))
    shown = clones.shown("ci-3d4e5f", found[1], terminal("show"))
    assert [line for line in shown if "by alice, 2026-11-29" in line and "1h ago" in line]
    other = clones.shown("web1", found[2], terminal("show"))
    assert not [line for line in other if "claim" in line or "spare" in line]


def test_a_ttl_that_is_over_is_said() -> None:
    shown = clone()
    note(shown, expires=NOW - 1)
    assert "over" in clones.listing({"clones": {"web1": shown}}, terminal("list"))[1]


def test_the_expiry_alone_is_no_warning_in_the_list() -> None:
    shown = clone(warnings=["Its ttl ends at 2026-11-30."])
    note(shown, expires=NOW + 3600)
    assert "warning" not in clones.listing({"clones": {"web1": shown}}, terminal("list"))[1]


def test_hosts_that_did_not_answer_are_named() -> None:
    down = {"kvm02": {"type": "HostUnreachable", "message": "It is down.", "hint": "Wake it."}}
    lines = clones.listing({"clones": {}, "unreachable": down}, terminal("list"))
    assert lines == ["No clones", "! kvm02 could not be checked. It is down.", "  Hint: Wake it."]


def test_a_filter_is_part_of_the_count() -> None:
    lines = clones.listing(fleet(), terminal("list", base="debian12", state="running"))
    assert lines[-1] == "3 clones with base debian12, state running"


def test_one_clone_fits_one_screen() -> None:
    shown = clone(warnings=["It has no agent."], drift=True)
    note(shown, created=NOW - 3600, expires=NOW + 7200, tags=["front", "shop"])
    lines = clones.shown("web1", shown, terminal("show"))
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for said in (
        "state     running, ready",
        "address   192.168.122.57",
        "base      debian12  quick, changed since this clone was made",
        "minion    web1  Salt 3008.3, verified by its uuid",
        "disks     vda  /var/lib/libvirt/images/web1-vda.qcow2  qcow2, overlay",
        "tags      front, shop",
        "1h ago",
        "in 2h",
        "took      27.2 s: cloned 0.4",
        "! It has no agent.",
    ):
        assert said in text, said


def test_what_is_not_known_takes_no_line() -> None:
    off = clone(state="shutoff", address="", addresses=[], profile="", timings={})
    off["minion"] = dict.fromkeys(off["minion"], "")
    keys = [line.split()[0] for line in clones.shown("web1", off, terminal("show"))[1:]]
    assert keys == ["state", "host", "base", "disks", "uuid"]


def test_a_create_ends_with_a_line_for_each_clone_and_its_warnings_below() -> None:
    shown = clone(warnings=["It has no agent."])
    assert clones.made("web1", shown, terminal("create")) == [
        "web1  192.168.122.57  ready in 27.2 s on kvm01  Salt 3008.3",
        "  ! It has no agent.",
    ]


def test_a_machine_of_a_map_that_is_there_already_is_not_called_made() -> None:
    shown = clone()
    note(shown, before="running")
    assert clones.made("web1", shown, terminal("map")) == ["web1  192.168.122.57  ready already"]


def test_a_failure_is_a_name_a_message_and_a_hint() -> None:
    for show in (clones.made, clones.powered, clones.destroyed, clones.shown):
        assert show("web2", error(stage=""), terminal("create")) == [
            "web2  failed: AddressTimeout",
            "  'web2' had no address within 600 s. It was removed.",
            "  Hint: See the network: virsh net-list",
            "        Then: salt-run kvmclone.create web web2",
        ]
    told = clones.made("web2", error(stage="booted"), terminal("create"))
    assert told[0] == "web2  failed after booted: AddressTimeout"


@pytest.mark.parametrize(
    ("function", "before", "after", "said"),
    [
        ("start", "shutoff", "running", "web1 was started at 192.168.122.57."),
        ("start", "running", "running", "web1 was running already at 192.168.122.57."),
        ("start", "", "running", "web1 is running at 192.168.122.57."),
        ("stop", "running", "shutoff", "web1 was shut down."),
        ("stop", "shutoff", "shutoff", "web1 was shut off already."),
        ("stop", "", "shutoff", "web1 is shut off."),
        ("reboot", "running", "running", "web1 was rebooted at 192.168.122.57."),
        ("reboot", "", "running", "web1 is running at 192.168.122.57."),
        ("reboot", "shutoff", "running", "web1 was shut off, so it was started at 192.168.122.57."),
    ],
)
def test_power_is_one_line_that_says_what_happened_or_that_it_was_so(
    function: str, before: str, after: str, said: str
) -> None:
    shown = clone(state=after)
    if before:
        note(shown, before=before)
    assert clones.powered("web1", shown, terminal(function)) == [said]


def test_a_destroy_is_one_line() -> None:
    gone = clone(stage="destroying", state="shutoff", warnings=["'/p/x.iso' stays."])
    assert clones.destroyed("web1", gone, terminal("destroy")) == [
        "web1 was destroyed.",
        "  ! '/p/x.iso' stays.",
    ]
    dry = clones.destroyed("web1", clone(), terminal("destroy", test=True))
    assert dry == ["web1 would be destroyed."]


def test_a_key_that_was_left_alone_is_not_called_a_machine() -> None:
    gone = clone(uuid="", warnings=["'web1' was not found; its key was removed."])
    assert clones.destroyed("web1", gone, terminal("destroy")) == [
        "  ! 'web1' was not found; its key was removed."
    ]
