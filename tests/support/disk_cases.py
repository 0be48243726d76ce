"""Disks of every kind for a base, and why a clone of it is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.hosts.local import LocalHost
from tests.support.world import World, quick


def img(*words: object) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


def write(path: Path | str, pattern: int, where: str, form: str = "qcow2") -> None:
    """Let a guest's hand write something."""
    words = ["qemu-io", "-f", form, "-c", f"write -P {pattern} {where}", str(path)]
    subprocess.run(words, check=True, capture_output=True)


def disk_xml(
    kind: str, source: str, form: str = "raw", target: str = "vdb", rest: str = "", **keys: str
) -> str:
    device = keys.get("device", "disk")
    bus = {"v": "virtio", "f": "fdc", "s": "scsi"}[target[0]]
    return (
        f"<disk type='{kind}' device='{device}'><driver name='qemu' type='{form}'/>{source}"
        f"<target dev='{target}' bus='{bus}'/>{rest}</disk>"
    )


def file_xml(path: Path, form: str = "raw", target: str = "vdb", rest: str = "") -> str:
    return disk_xml("file", f"<source file='{path}'/>", form, target, rest)


def conflicts(host: LocalHost, world: World, base: str, **keys: Any) -> list[str]:
    """Why a clone would be refused; nothing is written by asking, nor by trying."""
    request = quick(world.name(f"no{len(world.names)}"), base, **keys)
    before = world.footprint()
    found = list(host.plan(request)["conflicts"])
    assert found
    with pytest.raises(PlanRefused):
        host.clone(request)
    assert world.footprint() == before
    return found


def planned(host: LocalHost, base: str, name: str, target: str, **keys: Any) -> dict[str, Any]:
    plan = host.plan(quick(name, base, **keys))
    assert plan["conflicts"] == []
    return next(disk for disk in plan["disks"] if disk["target"] == target)
