"""A base's content is read once, and again as soon as anything of it changed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lab.lab import connection
from saltext.kvmclone.errors import HostError, PlanRefused
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.system import guest_content
from tests.support.world import World, quick


def written(path: Path, at: str) -> None:
    words = ["qemu-io", "-f", "qcow2", "-c", f"write -P 7 {at} 64k", str(path)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def digest(host: LocalHost, base: str) -> str:
    """Return what is known without reading the content."""
    return next(one.digest for one in host.base_states([base]) if one.name == base)


def test_one_content_has_one_digest_whatever_it_is_kept_in(world: World, host: LocalHost) -> None:
    """A chain of images, the one image that it is flattened to, and that with another order."""
    chain, flat, other = (world.base(word, chain=levels) for word, levels in
                          (("chain", 2), ("flat", 0), ("other", 0)))  # fmt: skip
    written(world.disks(chain)[0], "1M")
    written(world.disks(chain)[0], "9M")
    written(world.disks(flat)[0], "9M")
    written(world.disks(flat)[0], "1M")
    written(world.disks(other)[0], "2M")
    found = [host.hash_base(name).digest for name in (chain, flat, other)]
    assert found[0] == found[1] != found[2]


def test_a_digest_is_void_once_a_file_or_the_definition_changed(
    world: World, host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = world.base(chain=1, uefi=True)
    known = host.hash_base(base).digest
    assert digest(host, base) == known
    files = [Path(path) for path in (*world.disks(base), world.xml(base).findtext("./os/nvram"))]
    below = next(files[0].parent.glob(f"{base}-0-below0.qcow2"))
    for path in (*files, below):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        assert digest(host, base) == "", path
        assert host.hash_base(base).digest == known
    moved = files[0].with_suffix(".aside")
    files[0].rename(moved)
    assert digest(host, base) == ""
    moved.rename(files[0])
    assert digest(host, base) == known
    with connection() as conn:
        domain = conn.lookupByName(base)
        domain.setMemoryFlags(domain.maxMemory() // 2, 2)
    assert digest(host, base) == ""
    assert host.hash_base(base).digest not in ("", known)
    # What is known is not read again.
    monkeypatch.setattr(guest_content, "digest", lambda *_words: pytest.fail("it was read again"))
    host.hash_base(base)


def test_a_base_that_runs_has_no_content_that_could_be_known(world: World, host: LocalHost) -> None:
    base = world.base()
    known = host.hash_base(base).digest
    world.lab.start(base)
    assert digest(host, base) == ""
    with pytest.raises(PlanRefused, match="while it is running"):
        host.hash_base(base)
    world.lab.stop(base)
    assert digest(host, base) == known


def test_what_is_no_file_or_is_damaged_is_refused(
    world: World, host: LocalHost, block: str
) -> None:
    base = world.base()
    world.attach(base, Path(block), "vdx")
    with pytest.raises(PlanRefused, match="a block device"):
        host.hash_base(base)
    damaged = world.base("damaged")
    disk = world.disks(damaged)[0]
    disk.write_bytes(b"no image" * 10000)
    with pytest.raises((HostError, PlanRefused)):
        host.hash_base(damaged)


def test_a_clone_has_no_digest_of_its_base(world: World, host: LocalHost) -> None:
    base = world.base()
    host.hash_base(base)
    name = world.name()
    plan = host.plan(quick(name, base))
    assert not plan["conflicts"]
    assert not [key for key in plan["changes"] if "metadata" in key]
    host.clone(quick(name, base))
    assert "kvmclone:content" not in world.secure_xml(name)
    assert name not in [one.name for one in host.base_states([name])]
