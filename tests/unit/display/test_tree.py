"""The tree as a person sees it."""

from __future__ import annotations

from typing import Any

from saltext.kvmclone.display.tree import tree as drawn
from tests.unit.display.examples import screen

GIB = 2**30


def disk(path: str, backing: str = "", **keys: Any) -> dict[str, Any]:
    return {
        "target": "vda",
        "path": path,
        "format": "qcow2",
        "capacity": 20 * GIB,
        "allocation": GIB + GIB // 2,
        "backing": backing,
        "exists": True,
        **keys,
    }


def clone(path: str, **keys: Any) -> dict[str, Any]:
    return {
        "state": "running",
        "stage": "ready",
        "strategy": "quick",
        "failed": "",
        "disks": [disk(path, "/p/base.qcow2", allocation=196616)],
        "drift": False,
        "changes": [],
        "clones": {},
        **keys,
    }


def test_bases_clones_and_their_clones() -> None:
    tree = {
        "bases": {
            "debian12": {
                "exists": True,
                "state": "shutoff",
                "drift": True,
                "disks": [disk("/p/base.qcow2")],
                "clones": {
                    "db": clone(
                        "/p/db-vda.qcow2", clones={"db-test": clone("/p/db-test-vda.qcow2")}
                    ),
                    "web": clone(
                        "/p/web-vda.qcow2",
                        drift=True,
                        failed="no address",
                        stage="booted",
                        changes=["'/p/base.qcow2' was changed."],
                    ),
                },
            },
            "old": {
                "exists": False,
                "state": "",
                "drift": False,
                "disks": [disk("/p/old.qcow2", exists=False)],
                "clones": {
                    "copy": clone("/p/copy-vda.raw", strategy="full", state="shutoff", disks=[])
                },
            },
        }
    }
    assert "\n".join(drawn(tree, screen("tree"))) == (
        """\
debian12  shutoff
│  vda /p/base.qcow2  qcow2, 1.5 GiB of 20 GiB
├─ db  quick, running, ready
│  │  vda /p/db-vda.qcow2  qcow2, 192 KiB of 20 GiB, on /p/base.qcow2
│  └─ db-test  quick, running, ready
│        vda /p/db-test-vda.qcow2  qcow2, 192 KiB of 20 GiB, on /p/base.qcow2
└─ web  quick, running, booted, failed, base changed since
      vda /p/web-vda.qcow2  qcow2, 192 KiB of 20 GiB, on /p/base.qcow2
      ! '/p/base.qcow2' was changed.

old  gone
│  vda /p/old.qcow2  gone
└─ copy  full, shutoff, ready"""
    )


def test_a_clone_without_its_file() -> None:
    branch = clone("", disks=[disk("/p/x.qcow2", exists=False)])
    tree = {"bases": {"b": {"clones": {"x": branch}, "disks": [], "drift": False}}}
    assert "vda /p/x.qcow2  missing" in "\n".join(drawn(tree, screen("tree")))


def test_no_clones() -> None:
    assert drawn({"bases": {}}, screen("tree")) == ["No clones"]


def test_the_shape_of_the_contract_is_enough() -> None:
    tree = {"bases": {"b": {"clones": {"x": {}}, "disks": [], "drift": False}}}
    assert drawn(tree, screen("tree")) == ["b", "└─ x"]


def test_folders_are_left_out_where_a_line_would_be_too_long() -> None:
    branch = clone(f"/var/lib/libvirt/images/{'x' * 20}.qcow2")
    tree = {"bases": {"b": {"clones": {"x": branch}, "disks": [], "drift": False}}}
    assert drawn(tree, screen("tree"))[-1] == (
        "      vda …/xxxxxxxxxxxxxxxxxxxx.qcow2  qcow2, 192 KiB of 20 GiB"
    )


def test_hosts_that_did_not_answer_are_named_below() -> None:
    down = {"kvm02": {"type": "HostUnreachable", "message": "It is down.", "hint": ""}}
    told = drawn({"bases": {}, "unreachable": down}, screen("tree"))
    assert told == ["! kvm02 could not be checked. It is down."]


def test_a_base_on_several_hosts_says_on_which() -> None:
    bases = {
        "base": {"exists": True, "state": "shutoff", "host": "kvm01"},
        "base (kvm02)": {"exists": False, "host": "kvm02"},
    }
    lines = drawn({"bases": bases}, screen("tree"))
    assert lines == ["base  shutoff, on kvm01", "", "base (kvm02)  gone, on kvm02"]


def test_a_spare_in_stock_and_who_claimed_one_are_said() -> None:
    clones = {
        "ci-0a1b2c": clone("/p/a", spare=True, claimed=None),
        "ci-3d4e5f": clone("/p/b", spare=False, claimed={"by": "alice", "at": 5.0}),
    }
    lines = drawn({"bases": {"debian12": {"clones": clones}}}, screen())
    assert "├─ ci-0a1b2c  quick, running, ready, in stock" in lines
    assert "└─ ci-3d4e5f  quick, running, ready, claimed by alice" in lines
