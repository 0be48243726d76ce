"""A base is made from the master by one job, which does not show where its image really is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lab.ear import Ear
from lab.lab import Lab
from lab.salt import SaltWorld
from tests.support.web import Site, served

pytestmark = pytest.mark.slow

MIB = 2**20
CANARY = "canary5e41d0a7"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk that boots nothing."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(8 * MIB)
        file.write(b"\xf4" + b"\0" * 509 + b"\x55\xaa")
    return path


def keys(lab: Lab, packages: Path) -> dict[str, Any]:
    (packages / "a.deb").touch()
    return {
        "pool": lab.pool, "networks": f"[{{network: {lab.network}}}]", "memory": "128MiB",
        "domain_type": lab.domain_type, "packages": str(packages), "timeout": 2,
    }  # fmt: skip


def test_a_base_is_made_by_the_master_on_its_only_host(
    salt: SaltWorld, lab: Lab, disk: Path, tmp_path: Path
) -> None:
    """Up to its guest, which never reports: that whole way is one job, and leaves nothing."""
    before = os.listdir(lab.pool_path)
    words = [f"{key}={value}" for key, value in keys(lab, tmp_path).items()]
    answer = salt.run("kvmclone.base_from", disk, "from-path", *words)
    told = answer.data["bases"]["from-path"]["error"]
    assert (told["type"], answer.retcode) == ("ChannelError", 1)
    assert "did not report within 2 s" in told["message"]
    assert os.listdir(lab.pool_path) == before
    assert salt.run("kvmclone.gc").data == {"leftovers": [], "retcode": 0}


def test_the_urls_secrets_are_in_no_job_no_log_and_no_answer(
    salt: SaltWorld, lab: Lab, disk: Path, tmp_path: Path
) -> None:
    before = os.listdir(lab.pool_path)
    with served(Site({"/disk.raw": disk})) as url, Ear(salt) as ear:
        address = url.removeprefix("http://")
        source = f"http://user:{CANARY}@{address}/disk.raw?token={CANARY}"
        given = {**keys(lab, tmp_path), "sha256": "ab" * 32}
        words = [f"{key}={value}" for key, value in given.items()]
        answer = salt.run("kvmclone.base_from", source, "from-master", *words)
    told = answer.data["bases"]["from-master"]["error"]
    assert told["type"] == "ChecksumMismatch"
    assert f"'{url}/disk.raw' is not the image" in told["message"]
    assert answer.retcode == 1
    assert CANARY not in answer.stdout + answer.stderr
    # Salt itself notes what was typed, as with every runner; nothing of ours has it.
    typed = {tag for tag, data in ear.events if CANARY in str(data)}
    assert {tag.rpartition("/")[2] for tag in typed} <= {"new", "ret"}
    assert len({tag.split("/")[2] for tag in typed}) == 1
    assert not any(CANARY in str(data.get("return")) for _tag, data in ear.events)
    jobs = salt.folder / "state/master/cache/jobs"
    found = [
        path
        for path in salt.folder.rglob("*")
        if path.is_file() and CANARY.encode() in path.read_bytes()
    ]
    assert len({path.relative_to(jobs).parts[:2] for path in found}) <= 1, "that very command"
    assert os.listdir(lab.pool_path) == before
