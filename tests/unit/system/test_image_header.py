"""An image's header is read as QEMU writes it, and never believed where it is broken."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.model.facts import Header
from saltext.kvmclone.system import image_header
from saltext.kvmclone.system.image_header import LENGTH, files_named, parse, path_of

MIB = 2**20


def img(*words: object) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


def header_of(path: Path) -> Header:
    return parse(path.read_bytes()[:LENGTH])


def with_bits(path: Path, offset: int, bits: int) -> None:
    """Set feature bits of a qcow2 image."""
    with path.open("r+b") as file:
        file.seek(offset)
        (old,) = struct.unpack(">Q", file.read(8))
        file.seek(offset)
        file.write(struct.pack(">Q", old | bits))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.qcow2"
    img("create", "-f", "qcow2", path, "64M")
    return path


def test_a_plain_image(image: Path) -> None:
    assert header_of(image) == Header("qcow2", 64 * MIB)


@pytest.mark.parametrize("options", ["compat=0.10", "cluster_size=2M", "extended_l2=on"])
def test_every_layout_of_a_plain_image_is_plain(tmp_path: Path, options: str) -> None:
    path = tmp_path / "x.qcow2"
    img("create", "-f", "qcow2", "-o", options, path, "64M")
    assert header_of(path) == Header("qcow2", 64 * MIB)


def test_what_an_image_stands_on(image: Path, tmp_path: Path) -> None:
    above = tmp_path / "above.qcow2"
    img("create", "-f", "qcow2", "-F", "qcow2", "-b", image.name, above)
    header = header_of(above)
    assert (header.backing, header.backing_format, header.plain) == ("a.qcow2", "qcow2", False)
    assert path_of(header.backing, str(above)) == str(image)


@pytest.mark.parametrize(("name", "form"), [("json", "raw"), ("path", "")])
def test_a_format_may_stand_in_the_backing_name_alone(
    image: Path, tmp_path: Path, name: str, form: str
) -> None:
    above = tmp_path / "above.qcow2"
    node = "json:" + json.dumps({"driver": "raw", "file": {"filename": str(image)}})
    backing = {"json": node, "path": image}[name]
    img("create", "-f", "qcow2", "-F", "qcow2", "-b", backing, "-u", above, "64M")
    data = above.read_bytes()[:LENGTH]
    assert parse(data).backing_format == "qcow2"
    without = data.replace(bytes.fromhex("e2792aca"), bytes.fromhex("11111111"))
    assert parse(without).backing_format == form


def test_snapshots_are_counted(image: Path) -> None:
    for name in "ab":
        img("snapshot", "-c", name, image)
    header = header_of(image)
    assert (header.snapshots, header.plain) == (2, False)


def test_an_external_data_file_is_seen(tmp_path: Path) -> None:
    path, data = tmp_path / "x.qcow2", tmp_path / "x.data"
    img("create", "-f", "qcow2", "-o", f"data_file={data}", path, "64M")
    header = header_of(path)
    assert (header.data_file, header.plain) == (str(data), False)


def test_an_encrypted_image_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    options = "encrypt.format=aes,encrypt.key-secret=s"
    img(
        "create", "-f", "qcow2", "--object", "secret,id=s,data=abc", "-o", options, path, "64M"
    )  # fmt: skip
    assert header_of(path).encrypted


def test_bitmaps_of_a_backup_program_are_not_part_of_the_disk(image: Path) -> None:
    img("bitmap", "--add", image, "backup")
    assert not header_of(image).plain


@pytest.mark.parametrize(("bit", "word"), [(1, "dirty"), (2, "corrupt")])
def test_an_image_that_is_not_well_says_so(image: Path, bit: int, word: str) -> None:
    with_bits(image, 72, bit)
    assert getattr(header_of(image), word)


def test_a_feature_that_nobody_heard_of_is_not_copied_byte_by_byte(image: Path) -> None:
    with_bits(image, 72, 1 << 40)
    assert not header_of(image).plain


@pytest.mark.parametrize("form", ["vmdk", "vhdx", "vdi", "qed", "qcow", "raw"])
def test_other_formats_are_told_apart(tmp_path: Path, form: str) -> None:
    path = tmp_path / "x"
    img("create", "-f", form, path, "64M")
    assert header_of(path) == Header(form)


def test_an_empty_file_is_raw() -> None:
    assert parse(b"") == Header()


@given(st.binary(max_size=200), st.integers(0, 5))
def test_a_hostile_header_never_raises(rest: bytes, version: int) -> None:
    found = parse(b"QFI\xfb" + struct.pack(">I", version) + rest)
    assert found.format == "qcow2" or version == 1
    assert len(found.backing) <= 1023


@given(st.binary(max_size=300))
def test_any_bytes_are_some_format(data: bytes) -> None:
    assert parse(data).format


@pytest.mark.parametrize(
    ("backing", "path"),
    [
        ("/a/b.qcow2", "/a/b.qcow2"),
        ("b.qcow2", "/pool/b.qcow2"),
        ("../b.qcow2", "/b.qcow2"),
        ("file:/a/b", "/a/b"),
        ('json:{"driver":"qcow2","file":{"driver":"file","filename":"/a/b"}}', "/a/b"),
        ('json:{"file.driver":"file","file.filename":"/a/b"}', "/a/b"),
        ('json:{"driver":"nbd","host":"x"}', ""),
        ('json:{"driver":"qcow2","file":{"driver":"rbd","filename":"/a/b"}}', ""),
        ("json:{", ""),
        ("json:[]", ""),
        ('json:{"driver":"qcow2","file.filename":"/a","file":{"filename":"/b"}}', ""),
        ('json:{"driver":"qcow2","file":{"filename":"/a"},"backing":null}', ""),
        ('json:{"driver":"raw","size":512,"file":{"filename":"/a"}}', ""),
        ('json:{"driver":"qcow2","read-only":true,"file":{"filename":"/a"}}', "/a"),
        ('json:{"driver":"qcow2","file":{"filename":"a"}}', ""),
        ("file:a", ""),
        ("1:/a", ""),
        ("nbd://host/x", ""),
        ("rbd:pool/image", ""),
        ("", ""),
    ],
)
def test_the_file_behind_a_backing_name(backing: str, path: str) -> None:
    assert path_of(backing, "/pool/a.qcow2") == path


NBD = {"driver": "nbd", "host": "h", "port": "1"}
NESTED = {"driver": "qcow2", "file": {"driver": "file", "filename": "/a/b.qcow2"}}
WITH_BACKING = {**NESTED, "backing": {"file.driver": "file", "file.filename": "c.raw"}}
KEYS = st.sampled_from(["driver", "file", "file.filename", "filename", "backing", "read-only"])
QUORUM = {"driver": "quorum", "children": [{"filename": "/1"}, {"file.filename": "/2"}]}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("/a/b.qcow2", ["/a/b.qcow2"]),
        ("/a/../c/./b.qcow2", ["/c/b.qcow2"]),
        ("//a//b.qcow2", ["/a/b.qcow2"]),
        ("b.qcow2", ["/pool/b.qcow2"]),
        ("../b.qcow2", ["/b.qcow2"]),
        ("file:/a/b.qcow2", ["/a/b.qcow2"]),
        ("file:///a/b.qcow2", ["/a/b.qcow2"]),
        ("file:b.qcow2", ["/pool/b.qcow2"]),
        ("nbd://host/export", []),
        ("rbd:pool/image", []),
        ("a/b:c", ["/pool/a/b:c"]),
        ("json:" + json.dumps(NBD), []),
        ("json:" + json.dumps(NESTED), ["/a/b.qcow2"]),
        ("json:" + json.dumps({"driver": "file", "filename": "b.raw"}), ["/pool/b.raw"]),
        ("json:" + json.dumps({"file.filename": "/a/b"}), ["/a/b"]),
        ("json:" + json.dumps(WITH_BACKING), ["/a/b.qcow2", "/pool/c.raw"]),
        ("json:" + json.dumps(QUORUM), ["/1", "/2"]),
    ],
)
def test_the_files_that_a_backing_name_means(name: str, files: list[str]) -> None:
    assert files_named(name, {"/pool"}) == files


def test_a_relative_name_may_mean_two_files_below_a_symlink() -> None:
    assert files_named("b", {"/one", "/two"}) == ["/one/b", "/two/b"]


@pytest.mark.parametrize("name", ["json:{", "json:" + "[" * 1018])
def test_a_name_that_cannot_be_understood_is_told(name: str) -> None:
    assert path_of(name, "/pool/a.qcow2") == ""
    with pytest.raises(ValueError, match="not valid JSON") as error:
        files_named(name, {"/pool"})
    assert name not in str(error.value)


@given(st.recursive(st.text(max_size=9), lambda inner: st.dictionaries(KEYS, inner, max_size=4)))
def test_the_file_that_qemu_opens_is_among_those_that_a_name_may_mean(value: Any) -> None:
    for name in ("json:" + json.dumps(value), str(value)):
        if path := path_of(name, "/pool/a.qcow2"):
            assert path in files_named(name, {"/pool"})


def test_the_longest_chain_is_bounded() -> None:
    assert image_header.LONGEST_CHAIN < 1000
