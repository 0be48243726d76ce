"""
Find the other files that an image needs: its backing file and its external data file.

Read from the image's own header, so that it costs one ``read`` and no subprocess, works
while a guest has the image open, and sees what libvirt does not (external data files,
folders of inactive pools).
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterable
from typing import TypeVar

from saltext.kvmclone.model.facts import RAW
from saltext.kvmclone.system import image_header

Key = TypeVar("Key")


class Unreadable(Exception):
    """The image at ``path`` does not say understandably which other files it needs."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(why)
        self.path = path


def walk(
    start: Iterable[tuple[Key, str]],
    directly: Callable[[Key, str], Iterable[tuple[Key, str]]],
) -> dict[Key, str]:
    """
    Return images and all that stand below or above them, each file once, the nearest first.

    :param start: What tells each of the images from others, and its path.
    :param directly: Returns the same of what is directly below, or above, one image.
    """
    found: dict[Key, str] = {}
    todo = list(start)
    for key, path in todo:
        if key not in found:
            found[key] = path
            todo += directly(key, path)
    return found


def needs(path: str) -> tuple[str, ...]:
    """
    Return the absolute paths of the files that an image needs directly.

    :return: Empty for a raw image, for what is neither a file nor a block device, and
        where the image stands on something that is not a file (``nbd:``, ``rbd:``).
    :raises OSError: The file cannot be read.
    :raises Unreadable: Its header is damaged, or qemu-img cannot read it.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):  # opening a pipe would wait forever
        return ()
    with open(path, "rb") as image:
        header = image_header.read(image)
    if header.fault or header.data_file == "?":
        raise Unreadable(path, header.fault or "it does not say where its data file is")
    names = list(filter(None, [header.backing, header.data_file]))
    if header.format in image_header.RARE:
        names = _asked(path)
    try:
        found = _files(names, {"/"})
        if not all(name.startswith("/") for name in names):
            # QEMU takes a relative name from where the image was opened, which may be a symlink;
            # that of a data file, or one behind file: or json:, from "/", where libvirt starts it.
            folders = {os.path.dirname(real(path)) for real in (os.path.abspath, os.path.realpath)}
            found = [*_files(names, folders), *filter(os.path.exists, found)]
    except ValueError as error:
        raise Unreadable(path, str(error)) from None
    return tuple(dict.fromkeys(file for file in found if file != os.path.abspath(path)))


def _files(names: list[str], folders: set[str]) -> list[str]:
    """
    Return the files that names in an image may mean.

    :param folders: What a relative name is relative to.
    :raises ValueError: One is not valid JSON behind ``json:``.
    """
    return [file for name in names for file in image_header.files_named(name, folders)]


def _asked(path: str) -> list[str]:
    """
    Return the names of the files that an image of a rare format needs, as qemu-img gives them.

    :raises Unreadable: qemu-img cannot tell.
    """
    words = ["qemu-img", "info", "-U", "--output=json", path]
    try:
        done = subprocess.run(words, check=False, capture_output=True, timeout=60)
        told = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise Unreadable(path, f"qemu-img cannot tell: {error}") from error
    if told is None:
        said = done.stderr.decode(errors="replace").strip()
        raise Unreadable(path, f"qemu-img cannot tell: {said}")
    names = [told["full-backing-filename"]] if "full-backing-filename" in told else []
    data = told.get("format-specific", {}).get("data", {})
    return names + [extent["filename"] for extent in data.get("extents", [])]


def sizes(path: str, image_format: str) -> tuple[int, int] | None:
    """
    Return the bytes that a guest sees of an image, and the bytes that it occupies.

    :param image_format: What a domain takes it for; a guest may write a header into a raw one.
    :return: None where there is no image that can be read.
    """
    try:
        status = os.stat(path)
        with open(path, "rb") as image:
            told = 0 if image_format == RAW else image_header.read(image).capacity
            capacity = told or image.seek(0, os.SEEK_END)
    except (OSError, ValueError):
        return None
    return capacity, status.st_blocks * 512 or (capacity if stat.S_ISBLK(status.st_mode) else 0)
