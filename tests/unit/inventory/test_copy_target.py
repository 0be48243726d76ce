"""What a source says of its files leads nowhere but into the pools of the target."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.inventory import copy_target
from saltext.kvmclone.model.base_copy import NVRAM, BaseOffer, OfferedFile

DISK = OfferedFile("vda", "qcow2", 9, "d" * 64, 9, 9, "", "")
OFFER = BaseOffer("0123456789abcdef", "base", "d" * 64, ())


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    made = tmp_path / "pool"
    (made / "below").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "pool2").mkdir()
    os.symlink(tmp_path / "elsewhere", made / "link")
    return made


@pytest.fixture
def host(pool: Path) -> Any:
    """It has one active pool."""
    raw = Mock()
    raw.name.return_value = "default"
    raw.XMLDesc.return_value = f"<pool type='dir'><target><path>{pool}</path></target></pool>"
    host = Mock()
    host.call = lambda call, *words: call(*words)
    host.raw.listAllStoragePools.return_value = [raw]
    host.folders.stores = "/stores"
    host.commands.virsh.return_value = "virsh"
    return host


def path_of(host: Any, file: OfferedFile) -> str:
    return copy_target.planned_volumes(host, replace(OFFER, files=(file,)), None)[0].path


@pytest.mark.parametrize("folder", ["pool", "pool/below"])
def test_a_disk_goes_into_a_folder_of_a_pool(host: Any, pool: Path, folder: str) -> None:
    folder = str(pool.parent / folder)
    assert path_of(host, replace(DISK, folder=folder)) == f"{folder}/base-vda.qcow2"
    store = replace(DISK, name=NVRAM, format="", folder=folder)
    assert path_of(host, store) == f"{folder}/base_VARS.fd"


@pytest.mark.parametrize(
    "folder", ["elsewhere", "pool2", "pool/../elsewhere", "pool/link", ".", "nowhere"]
)
def test_no_file_goes_elsewhere(host: Any, pool: Path, folder: str) -> None:
    folder = f"{pool.parent}/{folder}"
    with pytest.raises(PlanRefused, match="which must be in a storage pool"):
        path_of(host, replace(DISK, folder=folder))
    store = replace(DISK, name=NVRAM, format="", folder=folder)
    assert path_of(host, store) == "/stores/base_VARS.fd"


def test_an_offer_with_other_words_is_refused() -> None:
    copy_target.require_sound(OFFER)
    with pytest.raises(PlanRefused, match="no name of a base"):
        copy_target.require_sound(replace(OFFER, base="../x"))
