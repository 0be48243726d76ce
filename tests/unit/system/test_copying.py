"""A copy has its source's bytes and its source's holes, and shows whose it is until the end."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltext.kvmclone.system import copying

MIB = 2**20


def sparse(path: Path, size: int, pieces: dict[int, bytes]) -> Path:
    with path.open("wb") as file:
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data)
        file.truncate(size)
    return path


def occupied(path: Path) -> int:
    return path.stat().st_blocks * 512


OFFSETS = st.sampled_from([0, 1, 4095, 65535, 65536, 65537, 131072, 400_000, 524_288])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(0, 600_000),
    pieces=st.dictionaries(OFFSETS, st.binary(min_size=1, max_size=70_000), max_size=4),
    before=st.binary(max_size=200_000),
)
def test_whatever_stood_there_before_the_copy_is_its_source(
    tmp_path: Path, size: int, pieces: dict[int, bytes], before: bytes
) -> None:
    source = sparse(tmp_path / "source", size, pieces)
    target = tmp_path / "target"
    target.write_bytes(before)
    copying.copy(str(source), str(target))
    assert target.read_bytes() == source.read_bytes()


def test_holes_stay_holes(tmp_path: Path) -> None:
    source = sparse(tmp_path / "source", 512 * MIB, {200 * MIB: os.urandom(MIB)})
    target = sparse(tmp_path / "target", 0, {})
    copying.copy(str(source), str(target))
    assert target.stat().st_size == 512 * MIB
    assert occupied(target) <= occupied(source) + 65536


def test_a_copy_by_hand_makes_holes_of_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_file_system(*_arguments: object) -> int:
        raise OSError(18, "EXDEV")

    monkeypatch.setattr(os, "copy_file_range", other_file_system)
    data = b"\0" * 8 * MIB + os.urandom(MIB) + b"\0" * 8 * MIB
    (tmp_path / "source").write_bytes(data)
    target = sparse(tmp_path / "target", 0, {})
    copying.copy(str(tmp_path / "source"), str(target))
    assert target.read_bytes() == data
    assert occupied(target) < 3 * MIB


def test_a_copy_that_was_cut_off_still_has_the_front_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(4 * MIB))
    target = tmp_path / "target"
    target.write_bytes(b"header of libvirt" + b"\0" * 65519 + b"old" * 1000)

    def cut_off(*_arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "copy_file_range", cut_off)
    with pytest.raises(KeyboardInterrupt):
        copying.copy(str(source), str(target))
    assert target.read_bytes()[:17] == b"header of libvirt"
    assert b"old" not in target.read_bytes()


def test_growing_adds_a_hole_and_never_cuts(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * 4096)
    copying.grow(str(path), 64 * MIB)
    assert path.stat().st_size == 64 * MIB
    assert occupied(path) <= MIB
    copying.grow(str(path), 4096)
    assert path.stat().st_size == 64 * MIB


def test_where_blocks_cannot_be_shared_the_target_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * MIB)
    target = Path("/dev/shm") / f"kvmclone-test-{os.getpid()}"
    target.write_bytes(b"before")
    try:
        assert not copying.share_blocks(str(tmp_path / "source"), str(target))
        assert target.read_bytes() == b"before"
    finally:
        target.unlink()


def test_a_failed_conversion_says_what_qemu_img_said(tmp_path: Path) -> None:
    with pytest.raises(copying.ConvertFailed, match="nowhere"):
        copying.convert(str(tmp_path / "nowhere"), "qcow2", str(tmp_path / "x"), "raw")


def test_a_converter_dies_with_the_worker_that_was_killed(tmp_path: Path) -> None:
    """Else it would go on writing into a file that gc has long deleted."""
    fake = tmp_path / "qemu-img"
    fake.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    fake.chmod(0o755)
    library = Path(copying.__file__).parents[3]
    code = (
        f"import sys; sys.path.insert(0, {str(library)!r})\n"
        "from saltext.kvmclone.system import copying\n"
        "copying.convert('a', 'raw', 'b', 'raw')\n"
    )
    worker = subprocess.Popen(
        ["/usr/bin/env", f"PATH={tmp_path}:/usr/bin:/bin", "python3", "-c", code]
    )
    pid_file = tmp_path / "pid"
    _wait(lambda: pid_file.exists() and pid_file.read_text().strip() != "")
    worker.kill()
    worker.wait()
    proc = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    _wait(lambda: not proc.exists() or proc.read_text().split()[2] == "Z")


def _wait(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_image_that_is_to_be_read_alone_shows_nothing_of_a_backing_file(tmp_path: Path) -> None:
    below, image, new = tmp_path / "below", tmp_path / 'an "image"', tmp_path / "new"
    below.write_bytes(b"secret".ljust(MIB, b"!"))
    for words in (["-b", below, "-F", "raw", image], [new, "1M"]):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *words], check=True)
    copying.convert(str(image), "qcow2", str(new), "qcow2", alone=True)
    assert b"secret" not in new.read_bytes()
    copying.convert(str(image), "qcow2", str(new), "qcow2")
    assert b"secret" in new.read_bytes()
