"""Twelve hosts and forty clones with long names are told apart on 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

from saltext.kvmclone.display import base_copies, clones, hosts, plans, screen, text
from saltext.kvmclone.display.text import Column
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.plain import from_plain
from tests.unit.display.examples import NOW, clone
from tests.unit.display.examples import screen as terminal
from tests.unit.display.test_base_copies import cell
from tests.unit.display.test_hosts import GIB, host
from tests.unit.display.test_plans import plan

HOSTS = [f"kvm-compute-{number:02}.dc2.example.com" for number in range(1, 13)]
BASES = [f"debian-12-bookworm-salt-3008-hardened-v{number}" for number in (7, 8)]
POOLS = {
    name: {"capacity": 900 * GIB, "available": 845 * GIB}
    for name in ("default", "fast-nvme-raid10", "images-slow")
}
MISSING = f"the base is missing here: salt-run kvmclone.push {BASES[0]} {HOSTS[3]}"


def cells(lines: list[str], title: str) -> list[str]:
    """One column of a table, without its heading and empty cells."""
    start = lines[0].index(title)
    found = (line[start:].partition("  ")[0] for line in lines[1:] if line[start : start + 1])
    return [one for one in found if one.strip()]


def fits(lines: list[str]) -> bool:
    """Whether nothing is wider than the screen but commands, which are pasted."""
    return all(len(line) <= 80 for line in lines if "salt-run " not in line)


def test_clones_and_their_hosts_are_told_apart_in_a_list() -> None:
    found = {}
    for number in range(40):
        name = f"web-frontend-production-eu-{number:02}"
        there = HOSTS[number % 12]
        found[name] = clone(name, host=there, base=BASES[0], address=f"192.168.122.{number + 10}")
        told = from_plain(Clone, {**found[name], "created": NOW - 9e6, "expires": NOW + 9e4})
        screen.note(name, told)
    lines = clones.listing({"clones": found}, terminal("list"))
    assert fits(lines) and lines[-1] == "40 clones on 12 hosts"
    assert len(set(cells(lines[:-1], "NAME"))) == 40
    assert len(set(cells(lines[:-1], "HOST"))) == 12


def test_every_pool_of_every_host_is_shown_with_what_is_free() -> None:
    answer = {"hosts": {name: host(pools=POOLS, also=["kvm://" + "x" * 50]) for name in HOSTS}}
    lines = hosts.hosts(answer, terminal("hosts"))
    assert fits(lines)
    table = lines[: 1 + 12 * 3]
    assert len(set(cells(table, "HOST"))) == 12
    assert [one.split()[0] for one in cells(table, "POOLS")] == [*POOLS] * 12


def test_the_command_in_a_reason_can_be_pasted() -> None:
    reasons = {name: {"chosen": False, "reason": MISSING} for name in HOSTS}
    answer = {"hosts": {name: host(**reason) for name, reason in reasons.items()}}
    listed = hosts.hosts(answer, terminal("hosts"))
    planned = plans.plan("web1", plan(base=BASES[0], hosts=reasons), terminal("plan"))
    command = MISSING.partition(": ")[2]
    for lines in (listed, planned):
        assert sum(line.strip() == command for line in lines) == 12
        assert fits(lines)


def test_bases_of_like_names_are_told_apart_on_every_host() -> None:
    bases = {base: {name: cell("same", "a" * 64, GIB) for name in HOSTS} for base in BASES}
    lines = base_copies.bases({"bases": bases}, terminal("bases"))
    assert fits(lines)
    assert len(set(cells(lines, "BASE"))) == 2 and len(set(cells(lines, "HOST"))) == 12


def shortened(width: int, *names: str) -> Iterator[str]:
    rows = [(name, "x" * 20) for name in names]
    table = text.table((Column("HOST", 6, names=True), Column("", 20)), rows, width)
    return (line.partition(" ")[0] for line in table[1:])


def test_names_lose_the_domain_that_they_share_before_anything_else() -> None:
    assert [*shortened(30, "kvm01.example.com", "kvm02.example.com")] == ["kvm01…", "kvm02…"]
    assert [*shortened(60, "kvm01.example.com", "kvm02")] == ["kvm01.example.com", "kvm02"]
    # What only looks like one stays as far as there is room.
    assert [*shortened(30, "10.11.12.13", "10.11.12.14")] == ["10.11…13", "10.11…14"]
    assert [*shortened(30, "qemu+ssh://far/system")] == ["qemu+ss…"]
