"""The file behind a volume of a folder pool is told from the pool alone."""

from __future__ import annotations

from typing import Any

import pytest

from saltext.kvmclone.hypervisor import pools
from saltext.kvmclone.model.facts import PoolFacts

#: Nothing may be asked of libvirt.
NOBODY: Any = None


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("kind", ["dir", "fs", "netfs", "vstorage"])
def test_a_volume_is_the_file_of_its_name_in_the_folder(kind: str, active: bool) -> None:
    pool = PoolFacts("pool", kind, "/pool", active)
    assert pools.volume_path(NOBODY, NOBODY, pool, "disk.qcow2") == "/pool/disk.qcow2"


@pytest.mark.parametrize("name", ["../disk.qcow2", "/disk.qcow2", "below/disk.qcow2"])
def test_a_name_that_leads_out_of_the_folder_is_no_volume(name: str) -> None:
    assert pools.volume_path(NOBODY, NOBODY, PoolFacts("pool", "dir", "/pool", True), name) == ""
