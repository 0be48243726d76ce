"""
Offer some files of this machine, and nothing else, to an rsync that logs in with one key.

The folder holds a link for each file. What the key may run is a script beside it, which starts
rsync as a sender of one of these links, whatever the other side asks for; so neither options nor
paths come from there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from saltext.kvmclone.system import copy_folder

PROGRAM = "rsync"

_FOLDER, _SCRIPT = "export", "serve"

#: The names of links: they become words of a command.
_NAME = re.compile("[a-z0-9]+")

#: Options of both ends. ``--inplace`` lets a copy that was cut off go on; links are followed only
#: at this end. What the other end can do beyond that follows the last letter.
OPTIONS = (
    "--times", "--copy-links", "--sparse", "--inplace", "--compress", "--compress-level=1",
    "--timeout=300",
)  # fmt: skip
_AS_SENDER = "-LtSze."
_LONG = "--compress-level=1 --timeout=300 --inplace"

_TEXT = f"""\
# Sends one of the files beside it, for kvm_clone.
set -f
cd '{{folder}}/{_FOLDER}' || exit 1
set -- $SSH_ORIGINAL_COMMAND
[ "$1 $2 $3" = '{PROGRAM} --server --sender' ] || exit 1
able=${{{{4##*e.}}}}
for name; do :; done
case $able in '' | *[!A-Za-z]*) exit 1 ;; esac
case $name in '' | *[!a-z0-9]*) exit 1 ;; esac
[ -e "$name" ] || exit 1
exec flock --shared '{{folder}}/lock' \\
    {PROGRAM} --server --sender "{_AS_SENDER}$able" {_LONG} . "$name"
"""


def make(copy: str, files: Mapping[str, str], definition: tuple[str, str]) -> None:
    """
    Make the folder for a copy, whose own folder is there.

    :param files: Their paths by the names under which they are offered.
    :param definition: Name and text of one more file, which only root may read.
    :raises OSError: It cannot be made.
    """
    folder = copy_folder.path(copy, _FOLDER)
    os.mkdir(folder, 0o700)
    for name, path in files.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be offered")
        os.symlink(path, os.path.join(folder, name))
    for target, text in (
        (os.path.join(folder, definition[0]), definition[1]),
        (_script(copy), _script_text(copy)),
    ):
        opener = lambda name, flags: os.open(name, flags, 0o600)  # noqa: E731
        with open(target, "x", encoding="utf-8", opener=opener) as file:
            file.write(text)


def command(copy: str) -> str:
    """Return the one command that the key of a copy may run."""
    return f"/bin/sh {_script(copy)}"


def _script(copy: str) -> str:
    return copy_folder.path(copy, _SCRIPT)


def _script_text(copy: str) -> str:
    return _TEXT.format(folder=copy_folder.path(copy))
