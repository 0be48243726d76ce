"""The file system under a folder is the one that is mounted nearest above it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.system import filesystems
from saltext.kvmclone.system.filesystems import covering

MOUNTS = """\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 21 7:1 / /srv rw - xfs /dev/loop1 rw
31 30 0:40 / /srv/a rw master:1 shared:2 - btrfs /dev/loop2 rw
32 21 7:3 /sub /with\\040space rw - ext4 /dev/loop3 rw
33 30 7:9 / /srv rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "device", "kind"),
    [
        ("/", "254:0", "ext4"),
        ("/var/lib", "254:0", "ext4"),
        ("/srvx", "254:0", "ext4"),
        ("/srv/a/pool", "0:40", "btrfs"),
        ("/with space/pool", "7:3", "ext4"),
        ("/srv/b", "7:9", "tmpfs"),  # mounted over the other
    ],
)
def test_the_nearest_mount_counts(path: str, device: str, kind: str) -> None:
    mount = covering(MOUNTS, path)
    assert mount is not None
    assert (mount.device, mount.type) == (device, kind)


def test_nothing_is_known_where_nothing_is_mounted() -> None:
    assert covering("", "/srv") is None
    assert covering("garbage\n1 2 3\n", "/srv") is None


@pytest.mark.parametrize(
    ("path", "mount", "over"),
    [
        ("/var/lib/x", "/", ""),
        ("/srv/b", "/srv", ""),
        ("/srv/b", "/", "/srv"),
        ("/srv/a/x", "/srv", "/srv/a"),
        ("/pool/x", "/", ""),  # a folder that is mounted at itself, as in a sandbox
        ("/other/x", "/", "/other"),
    ],
)
def test_a_mount_that_hides_a_file_is_told_from_one_that_shows_it(
    path: str, mount: str, over: str
) -> None:
    bound = "34 21 254:0 /pool /pool rw - ext4 /dev/vda rw\n"
    bound += "35 21 254:0 /backup /other rw - ext4 /dev/vda rw\n"
    assert filesystems.hiding(MOUNTS + bound, path, mount) == over


@given(st.text(max_size=200), st.text(max_size=40))
def test_any_text_is_survived(mounts: str, path: str) -> None:
    covering(mounts, path)


def test_this_machine_is_told_as_the_kernel_tells_it(tmp_path: Path) -> None:
    found = filesystems.of(str(tmp_path))
    room = os.statvfs(tmp_path)
    assert abs(found.available - room.f_bavail * room.f_frsize) < 2**28
    assert found.type
    assert found.id


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    assert filesystems.of(str(tmp_path / "link")).type == "proc"


def test_an_ordinary_file_is_copied_on_write(tmp_path: Path) -> None:
    assert filesystems.copies_on_write(str(tmp_path))
    assert filesystems.copies_on_write("/nowhere")
