"""A seed is known by its label, or its folder, on whatever it lies; hostile images hurt nobody."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext.kvmclone.model.cloud_seed import Seed
from saltext.kvmclone.system import cloud_seed, guest_disk

MIB = 2**20


def run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def reader(path: Path) -> guest_disk.Read:
    data = path.read_bytes()
    return lambda offset, length: data[offset : offset + length]


def found(path: Path, form: str = "raw") -> Seed | None:
    return cloud_seed.find(guest_disk.view([(form, reader(path))]))


def iso(path: Path, label: str) -> Path:
    folder = path.with_suffix(".files")
    folder.mkdir()
    (folder / "user-data").write_text("#cloud-config\n")
    run("xorrisofs", "-quiet", "-o", path, "-V", label, "-J", "-r", folder)
    return path


def ext(path: Path, label: str, *files: str, kind: str = "ext4", size: int = 8) -> Path:
    folder = path.with_suffix(".files")
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("x")
    folder.mkdir(exist_ok=True)
    run("mke2fs", "-q", "-t", kind, "-L", label, "-d", folder, path, f"{size}M")
    return path


def fat(path: Path, label: bytes, in_boot: bytes = b"NO NAME", wide: bool = False) -> Path:
    """A FAT whose root folder, and whose boot sector, have these labels."""
    boot = bytearray(512)
    struct.pack_into("<HBHBH", boot, 11, 512, 1, 1, 2, 0 if wide else 64)
    struct.pack_into("<H", boot, 22, 0 if wide else 4)
    struct.pack_into("<I", boot, 36, 4)
    struct.pack_into("<I", boot, 44, 2)
    at, mark = (71, b"FAT32   ") if wide else (43, b"FAT12   ")
    boot[at : at + 19] = in_boot.ljust(11) + mark
    boot[510:] = b"\x55\xaa"
    entry = label.ljust(11) + b"\x08" + bytes(20) if label else b""
    path.write_bytes(bytes(boot) + bytes(8 * 512) + entry.ljust(4096, b"\0"))
    return path


@pytest.fixture(params=["raw", "qcow2", "compressed"])
def as_image(request: pytest.FixtureRequest) -> Callable[[Path], Seed | None]:
    """Looks at a raw file as it is, or as an image of it."""

    def look(path: Path) -> Seed | None:
        if request.param == "raw":
            return found(path)
        image = path.with_suffix(".qcow2")
        words = ["-c"] if request.param == "compressed" else []
        run("qemu-img", "convert", *words, "-O", "qcow2", path, image)
        return found(image, "qcow2")

    return look


@pytest.mark.parametrize("label", ["cidata", "CIDATA", "config-2", "CONTEXT"])
def test_an_iso_is_known_by_its_label(tmp_path: Path, label: str, as_image) -> None:
    seed = as_image(iso(tmp_path / "any-name.img", label))
    assert seed == Seed(label)


def test_other_media_are_no_seeds(tmp_path: Path, as_image) -> None:
    assert as_image(iso(tmp_path / "cidata.img", "Debian 12")) is None
    assert as_image(ext(tmp_path / "seed.img", "root", "etc/passwd", "var/lib/cloud/x")) is None


@pytest.mark.parametrize("wide", [False, True])
def test_a_fat_is_known_by_either_of_its_labels(tmp_path: Path, wide: bool) -> None:
    assert found(fat(tmp_path / "a", b"cidata", wide=wide)) == Seed("cidata")
    assert found(fat(tmp_path / "b", b"", b"CIDATA", wide)) == Seed("CIDATA")
    assert found(fat(tmp_path / "c", b"BOOT", wide=wide)) is None


def test_an_ext_is_known_by_its_label(tmp_path: Path) -> None:
    assert found(ext(tmp_path / "x", "config-2", kind="ext2")) == Seed("config-2")


def partitioned(path: Path, script: str, parts: dict[int, Path]) -> Path:
    path.write_bytes(bytes(40 * MIB))
    subprocess.run(
        ["sfdisk", "-q", str(path)], input=script.encode(), check=True, capture_output=True
    )
    with path.open("r+b") as disk:
        for start, part in parts.items():
            disk.seek(start * MIB)
            disk.write(part.read_bytes())
    return path


@pytest.mark.parametrize("table", ["dos", "gpt"])
def test_a_seed_is_found_on_a_partition(tmp_path: Path, table: str, as_image) -> None:
    seed = iso(tmp_path / "seed", "cidata")
    script = f"label: {table}\nstart=1MiB size=8MiB\n"
    alone = partitioned(tmp_path / "alone", script, {1: seed})
    assert as_image(alone) == Seed("cidata", 1)
    root = ext(tmp_path / "root", "root")
    both = partitioned(tmp_path / "both", f"{script}start=16MiB size=8MiB\n", {1: root, 16: seed})
    assert as_image(both) == Seed("cidata", 2, alone=False)


def test_a_seed_is_found_on_a_logical_partition(tmp_path: Path) -> None:
    script = "label: dos\nstart=1MiB size=30MiB type=5\nstart=2MiB size=8MiB\n"
    script += "start=12MiB size=8MiB\n"
    seed = iso(tmp_path / "seed", "cidata")
    assert found(partitioned(tmp_path / "disk", script, {12: seed})) == Seed(
        "cidata", 6, alone=False
    )


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("var/lib/cloud/seed/nocloud/user-data", "/var/lib/cloud/seed/nocloud"),
        ("var/lib/cloud/seed/nocloud-net/meta-data", "/var/lib/cloud/seed/nocloud-net"),
        ("var/lib/cloud/seed/config_drive/openstack/x", "/var/lib/cloud/seed/config_drive"),
        ("lib/cloud/seed/ovf/ovf-env.xml", "/lib/cloud/seed/ovf"),
    ],
)
def test_a_seed_inside_the_image_is_found(
    tmp_path: Path, kind: str, file: str, folder: str
) -> None:
    image = ext(tmp_path / "root", "root", file, *(f"etc/{n}" for n in range(300)), kind=kind)
    assert found(image) == Seed(folder=folder, alone=False)


def test_an_empty_folder_for_seeds_is_none(tmp_path: Path) -> None:
    (tmp_path / "root.files/var/lib/cloud/seed/nocloud").mkdir(parents=True)
    assert found(ext(tmp_path / "root.img", "root")) is None


def test_what_an_overlay_does_not_have_is_read_below_it(tmp_path: Path) -> None:
    below = ext(tmp_path / "root", "root", "var/lib/cloud/seed/nocloud/user-data")
    over = tmp_path / "over.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "raw", over)
    view = guest_disk.view([("qcow2", reader(over)), ("raw", reader(below))])
    assert cloud_seed.find(view) == Seed(folder="/var/lib/cloud/seed/nocloud", alone=False)
    size = below.stat().st_size
    assert b"".join(view(at, MIB) for at in range(0, size, MIB)) == below.read_bytes()


def test_an_image_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    image = tmp_path / "image"
    options = "extended_l2=on,cluster_size=128k"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, "8M")
    with pytest.raises(guest_disk.UnreadableImage):
        found(image, "qcow2")


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_no_damage_does_more_than_mislead(data: st.DataObject) -> None:
    """Whatever stands in the tables, the search ends soon and reads little."""
    image = bytearray(_sample())
    for _ in range(data.draw(st.integers(1, 20))):
        at = data.draw(st.sampled_from(_PLACES))
        image[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    reads = 0

    def read(offset: int, length: int) -> bytes:
        nonlocal reads
        reads += length
        assert 0 <= offset < 2**63
        return bytes(image[offset : offset + length])

    for form in ("raw", "qcow2"):
        try:
            cloud_seed.find(guest_disk.view([(form, read)]))
        except guest_disk.UnreadableImage:
            pass
    assert reads < 200 * MIB


#: Where numbers stand: partition tables, superblocks, group descriptors, volume descriptors.
_PLACES = [*range(11, 90, 2), *range(446, 512, 2), *range(512, 620, 4), *range(1024, 1290, 2)]
_PLACES += [*range(4096, 4200, 4), *range(32768, 32900, 4), *range(65536, 65700, 4)]


def _sample() -> bytes:
    if not _KEPT:
        folder = Path(os.environ.get("TMPDIR", "/tmp"), f"kvm-clone-sample-{os.getpid()}")
        folder.mkdir()
        file = ext(folder / "x", "root", "var/lib/cloud/seed/nocloud/user-data", size=2)
        _KEPT.append(file.read_bytes())
        run("rm", "-r", folder)
    return _KEPT[0]


_KEPT: list[bytes] = []
