"""A saved image is read and written byte for byte, and one that is not understood is refused."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.system import copying, saved_image
from saltext.kvmclone.system.saved_image import SavedImage, UnknownLayout

XML, COOKIE = "<domain/>", "<cookie/>"

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300)
cookies = st.one_of(st.just(""), texts)


def padded(xml: str, cookie: str, padding: int, running: bool = True) -> SavedImage:
    ends = 2 if cookie else 1
    length = len(xml.encode()) + len(cookie.encode()) + ends + padding
    return SavedImage(xml, cookie, running, length)


def written(
    magic: bytes = saved_image.MAGIC,
    version: int = 2,
    length: int = 64,
    running: int = 1,
    stream_format: int = 0,
    cookie_at: int = len(XML) + 1,
    unused: bytes = b"",
    text: bytes = f"{XML}\0{COOKIE}\0".encode(),
) -> bytes:
    """Return an image as libvirt writes it, but for what is given."""
    numbers = (version, length, running, stream_format, cookie_at)
    start = struct.pack("<16s5I56s", magic, *numbers, unused)
    return start + text.ljust(64, b"\0") + b"STREAM"


@given(texts, cookies, st.integers(0, 9000), st.booleans())
def test_what_is_written_is_read_back(xml: str, cookie: str, padding: int, running: bool) -> None:
    image = padded(xml, cookie, padding, running)
    data = io.BytesIO(image.pack() + b"STREAM")
    assert saved_image.read(data) == image
    assert data.tell() == image.stream_at
    assert data.read() == b"STREAM"


@given(texts, cookies, texts, st.integers(0, 9000))
def test_the_stream_moves_by_whole_blocks_and_only_if_it_must(
    xml: str, cookie: str, other: str, padding: int
) -> None:
    before = padded(xml, cookie, padding)
    after = before.with_xml(other)
    moved = after.stream_at - before.stream_at
    assert moved % 4096 == 0
    assert (moved > 0) == (len(other.encode()) - len(xml.encode()) > padding)
    assert saved_image.read(io.BytesIO(after.pack())) == after
    assert after.cookie == cookie


@given(st.binary(max_size=400))
def test_nothing_is_read_that_would_not_be_written_the_same(data: bytes) -> None:
    for whole in (data, written(length=max(1, len(data)), cookie_at=0)[:92] + data):
        try:
            image = saved_image.read(io.BytesIO(whole))
        except UnknownLayout:
            continue
        assert image.pack() == whole[: image.stream_at]


def test_an_image_as_libvirt_writes_it_is_understood() -> None:
    assert saved_image.read(io.BytesIO(written())) == SavedImage(XML, COOKIE, True, 64)
    paused = written(running=0, cookie_at=0, text=XML.encode())
    assert saved_image.read(io.BytesIO(paused)) == SavedImage(XML, "", False, 64)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (written(magic=b"LibvirtQemudPart"), "not written to its end"),
        (b"QFI\xfb" + bytes(200), "no saved image"),
        (b"", "no saved image"),
        (written()[:91], "ends within its header"),
        (written()[:140], "ends within its definition"),
        (written(version=3), "version 3"),
        (written(version=2 << 24), "version 33554432"),
        (written(stream_format=1), "compressed"),
        (written(running=7), "something in its header"),
        (written(unused=b"\1"), "something in its header"),
        (written(length=0), "impossible length"),
        (written(length=2**31), "impossible length"),
        (written(cookie_at=12), "cookie at another place"),
        (written(cookie_at=0), "other texts"),
        (written(length=9, cookie_at=0), "other texts"),
        (written(length=15), "other texts"),
        (written(text=f"{XML}\0".encode()), "other texts"),
        (written(text=b"\0", cookie_at=1), "other texts"),
        (written(text=f"{XML}\0{COOKIE}\0 ".encode()), "other texts"),
        (written(text=XML.encode() + b"\xff", cookie_at=0), "UTF-8"),
    ],
)
def test_an_image_that_is_not_understood_to_the_last_byte_is_refused(
    data: bytes, reason: str
) -> None:
    with pytest.raises(UnknownLayout, match=reason):
        saved_image.read(io.BytesIO(data))


@pytest.mark.parametrize("bad", [SavedImage(XML, COOKIE, True, 5), SavedImage("<\0>", "", True, 9)])
def test_nothing_is_written_that_could_not_be_read(bad: SavedImage) -> None:
    with pytest.raises(ValueError, match="saved image"):
        bad.pack()


@pytest.mark.parametrize("longer", ["", "x" * 300])
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_copy_has_the_other_definition_and_the_same_stream(
    tmp_path: Path, longer: str, by_hand: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_hand:
        monkeypatch.setattr(copying.os, "copy_file_range", _refused)
    source, target = tmp_path / "source", tmp_path / "target"
    stream = os.urandom(3 * 4096) + bytes(5000) + b"end"
    source.write_bytes(padded(XML, COOKIE, 100).pack() + stream)
    saved_image.write(str(source), str(target), f"<other>{longer}</other>")
    with target.open("rb") as copy:
        image = saved_image.read(copy)
        assert copy.read() == stream
    assert (image.xml, image.cookie) == (f"<other>{longer}</other>", COOKIE)
    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        saved_image.write(str(source), str(target), XML)


def _refused(*_arguments: object) -> int:
    raise OSError(18, "another file system")


def test_a_copy_that_was_cut_off_is_not_taken_for_a_saved_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(padded(XML, COOKIE, 100).pack() + b"STREAM")

    def cut_off(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(copying, "copy_range", cut_off)
    with pytest.raises(KeyboardInterrupt):
        saved_image.write(str(source), str(target), XML)
    with target.open("rb") as copy, pytest.raises(UnknownLayout, match="no saved image"):
        saved_image.read(copy)
