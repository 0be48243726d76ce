"""Pictures of a fleet, for the tests of the page that shows them."""

from __future__ import annotations

import dataclasses
from typing import Any

from saltext.kvmclone.display.page.picture import Picture
from saltext.kvmclone.model.clone import Address, Clone, CloneDisk
from saltext.kvmclone.model.record import Minion

#: 2026-11-29 07:12:00 UTC.
NOW = 1795936320.0

DAY = 86400.0
GIB = 2**30

#: What breaks out of an attribute, of a script and of a text, where nothing keeps it in.
HOSTILE = "'\"></script><img src=x onerror=hit()><script>hit()</script>{{7*7}}\u202e\x1b"


def clone(number: int, **keys: Any) -> Clone:
    """One of many clones, each of them a little different."""
    name = f"web{number}"
    full = number % 4 == 0
    made = Clone(
        name=name,
        uuid=f"6c1e0b5c-9a3f-4c1e-8d4e-{number:012x}",
        host=f"kvm0{number % 3 + 1}",
        base="rocky9" if number % 3 == 0 else "debian12",
        profile="web",
        strategy="full" if full else "quick",
        state="shutoff" if number % 7 == 0 else "running",
        stage="ready",
        address=f"192.168.{number // 200}.{number % 200 + 2}",
        addresses=(Address("eth0", "52:54:00:00:00:01", "192.168.0.2", 24, "ipv4", "agent"),),
        disks=(CloneDisk("vda", f"/var/lib/libvirt/images/{name}-vda.qcow2", "qcow2", "overlay"),),
        minion=Minion(id=name, version="3008.3", fingerprint="ab:cd", verified_by="uuid"),
        timings={
            "cloned": 9.0 + number % 5 if full else 0.3,
            "booted": 0.2,
            "addressed": 9.0 + number % 7,
            "enrolled": 1.4,
            "ready": 11.0 + number % 3,
        },
        created=NOW - number * DAY,
        expires=NOW + (number - 1) * DAY if number % 5 == 1 else 0.0,
        tags=("web",),
    )
    return dataclasses.replace(made, **keys)


def host(**keys: Any) -> dict[str, Any]:
    """HOST of docs/answers.md."""
    return {
        "reachable": True,
        "libvirt": "9.0.0",
        "cpus": 32,
        "memory": {"total": 128 * GIB, "free": GIB},
        "pools": {"default": {"capacity": 900 * GIB, "available": 342 * GIB}},
        "clones": 13,
        "promised": {"memory": 79 * GIB, "cpus": 55},
        "maintenance": False,
        **keys,
    }


def branch(one: Clone, **keys: Any) -> dict[str, Any]:
    """A clone in the tree."""
    return {
        "state": one.state,
        "stage": one.stage,
        "strategy": one.strategy,
        "failed": one.failed,
        "disks": [{"allocation": GIB}],
        "drift": one.drift,
        "changes": ["its disk vda was written after that"] if one.drift else [],
        "clones": {},
        **keys,
    }


def finding(name: str, **keys: Any) -> dict[str, Any]:
    """FINDING with its host."""
    return {
        "kind": "failed",
        "name": name,
        "host": "kvm01",
        "level": "problem",
        "message": f"The create of '{name}' failed, and it was kept: no address within 600 s.",
        "hint": f"salt-run kvmclone.resume {name}",
        **keys,
    }


def error(**keys: Any) -> dict[str, Any]:
    """ERROR of a host that does not answer."""
    return {
        "type": "HostUnreachable",
        "message": "The minion 'kvm04' does not answer.",
        "hint": "Is it up? salt kvm04 test.ping   Its log: ssh kvm04 journalctl -u salt-minion",
        **keys,
    }


def state(word: str, count: int = 0) -> dict[str, Any]:
    """What a host has under the name of a base."""
    return {"state": word, "digest": "", "bytes": count}


def picture(count: int = 40, **keys: Any) -> Picture:
    """
    A fleet in which something is wrong everywhere.

    :param count: Number of its clones.
    """
    clones = {one.name: one for one in map(clone, range(1, count + 1))}
    clones["web2"] = dataclasses.replace(clones["web2"], drift=True)
    clones["web3"] = dataclasses.replace(clones["web3"], failed="no address", stage="booted")
    tree: dict[str, Any] = {
        base: {
            "exists": True,
            "state": "shutoff",
            "source": "debian-12.qcow2",
            "disks": [{"allocation": GIB}],
            "clones": {name: branch(one) for name, one in clones.items() if one.base == base},
        }
        for base in ("debian12", "rocky9")
    }
    wrong = Picture(
        master="salt01",
        made=NOW,
        path="/srv/fleet.html",
        clones=clones,
        hosts={
            "kvm01": host(),
            "kvm02": host(promised={"memory": 130 * GIB, "cpus": 99}),
            "kvm03": host(maintenance=True, also=["qemu+ssh://kvm03/system"]),
            "kvm04": {"reachable": False, "error": error()},
        },
        bases={
            "debian12": {
                "kvm01": state("same", GIB), "kvm02": state("same", GIB), "kvm03": state("missing"),
            },
            "rocky9": {
                "kvm01": state("same", GIB), "kvm02": state("other", GIB),
                "kvm03": state("copying", 9),
            },
        },
        tree=tree,
        findings=[
            finding("web3"),
            finding("old1", kind="adoptable", level="note", message="It may be adopted."),
            finding("web2", kind="base-changed", level="danger", message="Its base was written."),
        ],
        unseen={"kvm04": error()},
        reached=frozenset({"kvm01", "kvm02", "kvm03", "kvm04"}),
    )  # fmt: skip
    return dataclasses.replace(wrong, **keys)
