"""What is no disk image, or would have a file of this host read, is refused before it is opened."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from saltext.kvmclone.errors import BadImage
from saltext.kvmclone.system import base_image

MIB = 2**20


def qcow2(path: Path, *options: str, size: str = "64M") -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, size], check=True)
    return path


def raw(path: Path, at: int = 510, magic: bytes = b"\x55\xaa", size: int = MIB) -> Path:
    data = bytearray(size)
    data[at : at + len(magic)] = magic
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("at", "magic"), [(510, b"\x55\xaa"), (512, b"EFI PART"), (1080, b"\x53\xef"), (0, b"XFSB")]
)
def test_a_raw_disk_is_taken_by_its_partition_table_or_file_system(
    tmp_path: Path, at: int, magic: bytes
) -> None:
    judged = base_image.judge(str(raw(tmp_path / "d", at, magic)), "d")
    assert (judged.format, judged.capacity) == ("raw", MIB)


def test_a_size_is_rounded_up_to_whole_sectors(tmp_path: Path) -> None:
    assert base_image.judge(str(raw(tmp_path / "d", size=MIB + 1)), "d").capacity == MIB + 512


def test_a_qcow2_image_has_the_size_that_its_header_says(tmp_path: Path) -> None:
    judged = base_image.judge(str(qcow2(tmp_path / "d")), "d")
    assert (judged.format, judged.capacity) == ("qcow2", 64 * MIB)


NONE = {
    "a web page": b"<!DOCTYPE html><html>404</html>".ljust(MIB, b"\n"),
    "a text": b'{"error": 404}'.ljust(MIB),
    "xz -d": b"\xfd7zXZ\0".ljust(MIB, b"x"),
    "gzip -d": b"\x1f\x8b\x08".ljust(MIB, b"x"),
    "zstd -d": b"\x28\xb5\x2f\xfd".ljust(MIB, b"x"),
    "bzip2 -d": b"BZh9".ljust(MIB, b"x"),
    "unzip": b"PK\3\4".ljust(MIB, b"x"),
    "tar -xf": (b"x" * 257 + b"ustar").ljust(MIB, b"\0"),
    "cloud image": (b"\0" * 510 + b"\x55\xaa" + b"\0" * 32257 + b"CD001").ljust(MIB, b"\0"),
    "it has 3 bytes": b"404",
    "it has 0 bytes": b"",
    "neither a partition table": os.urandom(509) + b"\0" * MIB,
    "vmdk image": b"KDMV".ljust(MIB, b"\0"),
    "vhdx image": b"vhdxfile".ljust(MIB, b"\0"),
}


@pytest.mark.parametrize("word", NONE)
def test_what_is_no_disk_image_is_named(tmp_path: Path, word: str) -> None:
    (tmp_path / "d").write_bytes(NONE[word])
    with pytest.raises(BadImage) as told:
        base_image.judge(str(tmp_path / "d"), "https://x/d")
    assert "'https://x/d' cannot become a base" in told.value.message
    assert word.lower() in str(told.value).lower()


def test_a_file_that_is_not_there_is_one_of_the_host(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="No such file"):
        base_image.judge(str(tmp_path / "gone"), "/srv/gone")


@pytest.mark.parametrize("which", ["backing", "json", "data"])
def test_an_image_that_names_a_file_of_this_host_is_refused(tmp_path: Path, which: str) -> None:
    secret = raw(tmp_path / "secret")
    path = tmp_path / "d"
    if which == "data":
        qcow2(path, "-o", f"data_file={secret},data_file_raw=on", size="1M")
    else:
        name = str(secret) if which == "backing" else f'json:{{"file.filename":"{secret}"}}'
        qcow2(path, "-u", "-F", "raw", "-b", name)
    with pytest.raises(BadImage, match=f"names a {'data' if which == 'data' else 'backing'} file"):
        base_image.judge(str(path), "d")


def test_a_disk_that_is_absurdly_large_is_refused(tmp_path: Path) -> None:
    path = qcow2(tmp_path / "d")
    data = bytearray(path.read_bytes())
    struct.pack_into(">Q", data, 24, 2**50)
    path.write_bytes(data)
    with pytest.raises(BadImage, match="are the most"):
        base_image.judge(str(path), "d")


def test_an_image_that_is_encrypted_or_corrupt_is_refused(tmp_path: Path) -> None:
    path = qcow2(tmp_path / "d")
    data = bytearray(path.read_bytes())
    struct.pack_into(">I", data, 32, 2)
    path.write_bytes(data)
    with pytest.raises(BadImage, match="encrypted"):
        base_image.judge(str(path), "d")


def test_an_image_that_was_cut_off_is_noticed(tmp_path: Path) -> None:
    path = qcow2(tmp_path / "d")
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 8M", path], check=True, capture_output=True
    )
    whole = base_image.judge(str(path), "d")
    base_image.check_tables(str(path), whole, "d")
    os.truncate(path, path.stat().st_size - 4 * MIB)
    assert base_image.judge(str(path), "d") == whole
    with pytest.raises(BadImage, match="cut off"):
        base_image.check_tables(str(path), whole, "d")


def test_the_first_sectors_are_those_that_the_guest_sees(tmp_path: Path) -> None:
    disk = raw(tmp_path / "raw", 510, b"\x55\xaa")
    words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, tmp_path / "d"]
    subprocess.run(words, check=True)
    assert base_image.start_of(str(tmp_path / "d"))[510:512] == b"\x55\xaa"


def test_what_opening_might_wait_for_or_change_is_refused_before(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    for path in (str(pipe), "/dev/null", str(tmp_path)):
        with pytest.raises(BadImage, match="neither a file nor a block device"):
            base_image.identity(path, "d")
    with pytest.raises(BadImage, match="cannot be read on the KVM host: No such file"):
        base_image.identity(str(tmp_path / "none"), "d")


def test_a_file_that_was_written_or_replaced_is_another_one(tmp_path: Path) -> None:
    path = raw(tmp_path / "d")
    before = base_image.identity(str(path), "d")
    assert base_image.identity(str(path), "d") == before
    raw(path)
    written = base_image.identity(str(path), "d")
    raw(tmp_path / "e").replace(path)
    assert len({before, written, base_image.identity(str(path), "d")}) == 3
