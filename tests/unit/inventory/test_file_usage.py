"""Whose a file is, and what is not found: gone, or only out of reach, and what brings it back."""

from __future__ import annotations

from pathlib import Path

from saltext.kvmclone.inventory import file_usage
from saltext.kvmclone.inventory.file_usage import Absence, FileUsage, Pool, Use


def pool(name: str, active: bool, path: str = "/pool") -> Pool:
    return Pool(name, "dir", path, active)


def test_a_pool_that_is_off_may_hold_the_file_and_is_named() -> None:
    found = file_usage.away([pool("images", False)], False, "/pool/web1-vda.qcow2")
    assert found == Absence("the storage pool 'images' is not running", "images")


def test_one_running_pool_over_the_folder_is_enough_to_know_that_a_file_is_gone() -> None:
    pools = [pool("images", False), pool("same", True)]
    assert not file_usage.away(pools, False, "/pool/web1-vda.qcow2")


def test_without_a_pool_nobody_can_look_from_afar() -> None:
    found = file_usage.away([pool("images", True)], False, "/elsewhere/web1-vda.qcow2")
    assert found
    assert found.pool == ""
    assert "no storage pool covers '/elsewhere'" in str(found)


def test_here_a_folder_that_is_not_there_says_more_than_a_pool_that_is_off(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    found = file_usage.away([pool("images", False, str(folder))], True, str(folder / "x.qcow2"))
    assert found == Absence(f"its folder '{folder}' does not exist")


def test_here_a_file_that_was_deleted_is_gone(tmp_path: Path) -> None:
    assert not file_usage.away([], True, str(tmp_path / "x.qcow2"))


def test_a_path_with_two_slashes_in_front_belongs_to_whom_it_would_with_one() -> None:
    folder = "/var/lib/libvirt/qemu/snapshot/web"
    usage = FileUsage(False, derived=(Use("web", "of web", folder, folder),))
    assert usage.derived_by_others("of another", f"/{folder}/then.xml") == "web"
    assert usage.derived_by_others("of web", f"/{folder}/then.xml") == ""
    assert usage.derived_by_others("of another", "//pool/data.raw") == ""
