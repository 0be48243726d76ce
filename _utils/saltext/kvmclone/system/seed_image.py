"""
Write a cloud-init seed for NoCloud: a small ISO 9660 image with the label ``cidata``.

The contents may hold passwords: they go through a folder that only we can enter, and into no
argument and no message.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from saltext.kvmclone.errors import ConfigError, HostError
from saltext.kvmclone.model.cloud_seed import SIZE

LABEL = "cidata"

#: Programs that take the arguments of mkisofs.
_PROGRAMS = ("xorrisofs", "genisoimage", "mkisofs")

_BUILD_TIMEOUT_S = 300.0


def program() -> str:
    """Return the path of a program that writes ISO 9660; empty where none is installed."""
    return next((path for name in _PROGRAMS if (path := shutil.which(name))), "")


def build(files: Mapping[str, str], uuid: str, name: str) -> bytes:
    """
    Return the bytes of a seed's image.

    :param files: ``user-data``, ``meta-data`` as JSON, ``network-config``; all may be absent.
    :param uuid: Uuid of the clone, which is its instance id unless ``meta-data`` has one.
    :param name: The clone's name, likewise its ``local-hostname``.
    :raises ConfigError: There is nothing to write, or too much.
    :raises HostError: It cannot be written here.
    """
    if not files:
        raise ConfigError(
            "The contents of the clone's own cloud-init seed did not come with the request.",
            "Bring master and host to one version: salt '*' saltutil.sync_all",
        )
    about = {"instance-id": uuid, "local-hostname": name}
    about.update(json.loads(files.get("meta-data") or "{}"))
    whole = {
        **files,
        "user-data": files.get("user-data") or "#cloud-config\n{}\n",
        "meta-data": json.dumps(about, indent=1) + "\n",
    }
    with tempfile.TemporaryDirectory(prefix="kvm-clone-seed-") as scratch:
        folder, image = Path(scratch, "files"), Path(scratch, "image")
        folder.mkdir()
        for file, text in whole.items():
            (folder / file).write_text(text, encoding="utf-8")
        _write(folder, image)
        data = image.read_bytes()
    if len(data) > SIZE:
        raise ConfigError(
            f"'seed' holds more than the {SIZE >> 20} MiB that a seed has room for.",
            "Let user_data fetch what is large from elsewhere.",
        )
    return data


def write(path: str, files: Mapping[str, str], folders: Mapping[str, str]) -> None:
    """
    Write a seed's image into a file that is there, and empty.

    :param files: Text files by name: ``user-data``, ``meta-data``.
    :param folders: Folders of this machine that go into it, by the name that they have there.
    :raises HostError: It cannot be written here.
    """
    with tempfile.TemporaryDirectory(prefix="kvm-clone-seed-") as scratch:
        for file, text in files.items():
            Path(scratch, file).write_text(text, encoding="utf-8")
        points = [f"{_point(name)}={_point(folder)}" for name, folder in folders.items()]
        _run(path, ["-graft-points", "-joliet-long", *points, _point(scratch)])


def _point(path: str) -> str:
    """Return a path as ``-graft-points`` takes it: an equals sign would end it."""
    return path.replace("\\", "\\\\").replace("=", "\\=")


def _write(folder: Path, image: Path) -> None:
    image.touch()
    _run(str(image), [str(folder)])


def _run(image: str, words: list[str]) -> None:
    tool = program()
    if not tool:
        raise HostError("No program that writes ISO 9660 is installed.", INSTALL)
    begin = [tool, "-quiet", "-volid", LABEL, "-joliet", "-rational-rock"]
    try:
        with open(image, "r+b") as target:
            subprocess.run(
                [*begin, *words],
                stdin=subprocess.DEVNULL,
                stdout=target,
                stderr=subprocess.DEVNULL,
                timeout=_BUILD_TIMEOUT_S,
                check=True,
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(
            f"'{tool}' did not write the cloud-init seed.", f"Try it: {tool} --version"
        ) from error


INSTALL = "Install one: apt install xorriso   or: dnf install xorriso"
