"""What an image needs, however its header spells it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.system import backing_files, images
from saltext.kvmclone.system.backing_files import Unreadable


def test_raw_files_folders_and_devices_that_are_no_disks_need_nothing(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"\0" * 1000)
    (tmp_path / "empty").touch()
    for path in (tmp_path / "raw", tmp_path / "empty", tmp_path, Path("/dev/zero")):
        assert backing_files.needs(str(path)) == ()


def test_a_cut_off_header_is_told(tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(b"QFI\xfb\0\0\0\3")
    with pytest.raises(Unreadable):
        backing_files.needs(str(tmp_path / "cut"))


def test_a_data_file_is_looked_for_where_qemu_runs_too(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    image, data = tmp_path / "pool" / "image", tmp_path / "data"
    options = f"data_file={str(data)[1:]}"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(image), "1M"]
    subprocess.run(words, check=True, cwd="/")
    assert data.exists()
    assert str(data) in backing_files.needs(str(image))


def test_sizes_of_nothing_are_none(tmp_path: Path) -> None:
    assert backing_files.sizes(str(tmp_path / "none"), "raw") is None
    assert backing_files.sizes(str(tmp_path), "raw") is None


def test_a_raw_disk_is_as_large_as_its_file_whatever_a_guest_wrote_into_it(tmp_path: Path) -> None:
    image = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "64M"], check=True)
    size = image.stat().st_size
    assert backing_files.sizes(str(image), "qcow2") == (64 * 2**20, image.stat().st_blocks * 512)
    assert backing_files.sizes(str(image), "raw") == (size, image.stat().st_blocks * 512)


def img(*words: object) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


def node(path: str, **others: object) -> dict[str, object]:
    return {"driver": "qcow2", "file": {"driver": "file", "filename": path}, **others}


#: Backing names by what is odd about them. ``one`` and ``two`` are images without a backing file,
#: ``over`` is an overlay on ``one``.
ODD: dict[str, Any] = {
    "a path": "{pool}/one",
    "a path from the folder of the image": "one",
    "a file": "file:{pool}/one",
    "a file from the folder of the process": "file:{bare}/one",
    "json": node("{pool}/one"),
    "json with dots": {"driver": "qcow2", "file.driver": "file", "file.filename": "{pool}/one"},
    "json without drivers": {"file": {"filename": "{pool}/one"}},
    "json with options": {**node("{pool}/one"), "read-only": True, "node-name": "base"},
    "JSON from the folder of the process": node("{bare}/one"),
    "the same file twice, and another": {
        "driver": "qcow2", "file.filename": "{pool}/one", "file": {"filename": "{pool}/two"},
    },
    "a backing file of its own": node("{pool}/over", backing=node("{pool}/two")),
    "no backing file of its own": node("{pool}/over", backing=None),
    "an overlay": node("{pool}/over"),
    "another format than the file": {**node("{pool}/over"), "driver": "raw"},
    "a part of a file": {"driver": "raw", "offset": 65536, "file": {"filename": "{pool}/one"}},
    "a filter": {"driver": "throttle", "throttle-group": "", "file": node("{pool}/one")},
    "a filter that is for tests": "blkdebug::{pool}/one",
    "such a filter in json": {
        "driver": "qcow2", "file": {"driver": "blkdebug", "x-image": "{pool}/one"},
    },
    "a name with a port": "1:{pool}/one",
    "a device": "host_device:{pool}/one",
}  # fmt: skip


#: Those that are followed; what the others mean is told as a fault of the chain.
FOLLOWED = {name for name in ODD if name.startswith(("a path", "json"))} | {"a file", "an overlay"}


@pytest.fixture(scope="module", params=["qcow2", "raw"])
def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, form = tmp_path_factory.mktemp("pool"), request.param
    for number, name in enumerate(("one", "two"), 1):
        img("create", "-f", form, folder / name, "1M")
        write = f"write -P {number} 0 64k"
        subprocess.run(["qemu-io", "-f", form, "-c", write, folder / name], check=True)
    img("create", "-f", "qcow2", "-F", form, "-b", folder / "one", folder / "over")
    (folder / "form").write_text(form)
    return folder


@pytest.mark.parametrize("odd", ODD)
def test_a_chain_and_a_scan_agree_with_qemu_on_what_an_image_stands_on(
    odd: str, pool: Path
) -> None:
    name = ODD[odd] if isinstance(ODD[odd], str) else "json:" + json.dumps(ODD[odd])
    name = name.replace("{pool}", str(pool)).replace("{bare}", str(pool)[1:])
    form, top = (pool / "form").read_text(), pool / "top"
    img("create", "-u", "-f", "qcow2", "-F", form, "-b", name, top, "1M")
    found, _data, fault = images.chain(str(top), "qcow2", images.look)
    chain = [image.path for image in found]
    used = [str(top)]
    for path in used:
        used += [file for file in backing_files.needs(path) if os.path.exists(file)]
    assert set(chain) <= set(used)
    assert odd not in FOLLOWED or not fault
    for number, image in enumerate(("one", "two"), 1):
        words = ["qemu-io", "-r", "-f", "qcow2", "-c", f"read -P {number} 0 64k", str(top)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/")
        if done.returncode == 0:  # QEMU reads it from that image
            assert str(pool / image) in used
            assert fault or chain[-1] == str(pool / image)
