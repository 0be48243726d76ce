"""
Write a file whole or not at all.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil


def write(
    path: str, text: str, mode: int = 0o600, overwrite: bool = True, draft_folder: str = ""
) -> None:
    """
    Write a file whole or not at all, even if the machine goes down.

    :param mode: Permissions of the file, as far as the umask leaves them.
    :param overwrite: Replace a file that is there.
    :param draft_folder: Where the text is written first, on the same file system; by default the
        file's own folder.
    :raises FileExistsError: A file is there, and is not to be overwritten.
    :raises OSError: It cannot be written; a file that was there is as it was.
    """
    folder = os.path.dirname(path)
    # Without the file's name, which with a suffix may be longer than a name can be.
    draft = os.path.join(draft_folder or folder, f".kvm_clone.{secrets.token_hex(8)}")
    try:
        opener = functools.partial(os.open, mode=mode)
        with open(draft, "x", encoding="utf-8", opener=opener) as target:
            target.write(text)
            target.flush()
            os.fsync(target.fileno())
        if overwrite:
            os.replace(draft, path)
        else:
            os.link(draft, path)
    finally:
        with contextlib.suppress(FileNotFoundError):  # it has the file's name now
            os.unlink(draft)
    entered = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(entered)
    finally:
        os.close(entered)


def copy(source: str, path: str, draft: str, overwrite: bool) -> None:
    """
    Copy a small file with its mode and owner, whole or not at all.

    :param draft: Where it is written first, on the file system of ``path``; a file that an
        earlier attempt left there is removed.
    :param overwrite: Replace a file that is there; its mode and owner stay. Otherwise the draft
        stays as a second name of the new file, until the caller has noted that this is there.
    :raises FileExistsError: A file is there, and is not to be overwritten.
    :raises OSError: It cannot be copied; a file that was there is as it was.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft)
    like = path if overwrite and os.path.exists(path) else source
    with open(source, "rb") as original, open(draft, "xb") as target:
        shutil.copyfileobj(original, target)
        status = os.stat(like)
        os.fchown(target.fileno(), status.st_uid, status.st_gid)
        os.fchmod(target.fileno(), status.st_mode & 0o7777)
        target.flush()
        os.fsync(target.fileno())
    if overwrite:
        os.replace(draft, path)
    else:
        os.link(draft, path)
