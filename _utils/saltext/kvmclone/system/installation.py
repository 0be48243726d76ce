"""
Tell which files of kvm_clone work on this machine, and which programs they find.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator

import saltext.kvmclone
from saltext.kvmclone.model.host_reports import Installation
from saltext.kvmclone.system import fetching, guest_content, ssh_server
from saltext.kvmclone.system.ssh_server import NoAccess

#: Packages that kvm_clone takes beside Salt's own. Whoever reads this has kvm_clone itself.
_PACKAGES = ("libvirt-python", "lxml", "paramiko", "rich")

#: How the modules are called that Salt's loader makes of our entry points.
_LOADED = re.compile(r"salt\.loaded\..*\.(kvm_clone|kvmclone)(_[a-z_]+)?")

#: The folder of packages that ``salt-pip`` installs, which each Python has its own of.
_EXTRAS = re.compile(r"extras-(\d+\.\d+)")


def look(copies: bool = True) -> Installation:
    """
    Return what of kvm_clone works in this process, and what it finds on this machine.

    :param copies: Look, too, for what a copy of a base to or from here takes.
    """
    path = os.path.dirname(os.path.realpath(saltext.kvmclone.__file__))
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    own = digest(path)
    lacking, shut = _for_copies() if copies else ((), "")
    return Installation(
        version=saltext.kvmclone.__version__,
        digest=own,
        path=path,
        other=other_library(_doors(), path, own),
        salt=_version("salt"),
        python=python,
        lost=lost(sys.prefix, python),
        clock=time.time(),
        lacking=lacking,
        shut=shut,
    )


def digest(folder: str) -> str:
    """
    Return a digest of the library's files, the same however they were installed.

    :param folder: The library's; empty is returned where it has no files, or they cannot be read.
    """
    found = hashlib.sha256()
    files = sorted(_files(folder))
    try:
        for path in files:
            with open(path, "rb") as source:
                content = hashlib.sha256(source.read()).digest()
            found.update(f"{os.path.relpath(path, folder)}\0".encode() + content)
    except OSError:  # a sync replaces them at this moment
        return ""
    return found.hexdigest() if files else ""


def _files(folder: str) -> Iterator[str]:
    for here, folders, files in os.walk(folder):
        if here == folder:  # a package has the entry points there
            folders[:] = [name for name in folders if name not in saltext.kvmclone.DOORS]
        yield from (os.path.join(here, name) for name in files if name.endswith(".py"))


def _doors() -> list[str]:
    """Return the files of our entry points that Salt's loader has loaded here."""
    files = [
        getattr(module, "__file__", None)
        for name, module in list(sys.modules.items())
        if _LOADED.fullmatch(name)
    ]
    return sorted(filter(None, files))


def other_library(doors: Iterable[str], path: str, own: str) -> str:
    """
    Return a library that came with entry points and is not the one that they work with.

    So it is where a package is installed and modules of another version are synced: Python takes
    the library of the package.

    :param doors: Files of entry points.
    :param path: The folder of the library that is loaded, ``own`` its digest.
    :return: The folder; empty for none.
    """
    for root in sorted({os.path.dirname(os.path.dirname(os.path.realpath(one))) for one in doors}):
        for beside in ("utils", "_utils"):
            folder = os.path.join(root, beside, "saltext", "kvmclone")
            if os.path.realpath(folder) != path and digest(folder) not in ("", own):
                return folder
    return ""


def not_synced(own: Installation, cache: str, roots: Iterable[str]) -> str:
    """
    Return the library that Salt would sync to here, where it has other files than the one here.

    :param own: What works here.
    :param cache: Where Salt puts what it syncs (``extension_modules``).
    :param roots: The folders of ``file_roots`` that it syncs from; of several the first counts.
    :return: The folder; empty for none, and where what works here was not synced.
    """
    if not own.path.startswith(f"{os.path.realpath(cache)}/"):
        return ""
    for root in roots:
        folder = os.path.join(root, "_utils", "saltext", "kvmclone")
        if found := digest(folder):
            return folder if own.digest and found != own.digest else ""
    return ""


def lost(prefix: str, python: str) -> tuple[str, ...]:
    """
    Return the packages that an upgrade of Salt left behind: only a Python before had them.

    :param prefix: Where Salt's own Python is, with the folders of ``salt-pip`` beside.
    :param python: The version of this one, ``3.11``.
    """
    try:
        names = os.listdir(prefix)
    except OSError:
        return ()
    olds = [
        os.path.join(prefix, name)
        for name in names
        if (found := _EXTRAS.fullmatch(name)) and found[1] != python
    ]
    had = {
        str(one.metadata["Name"]).lower().replace("_", "-")
        for one in importlib.metadata.distributions(path=olds)
    }
    return tuple(name for name in _PACKAGES if name in had and not _version(name))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _for_copies() -> tuple[tuple[str, ...], str]:
    """Return the packages that are missing for a copy of a base, and why none is let out."""
    number = 0 if shutil.which("dpkg") else 1
    found = [fetching.PROGRAMS[program][number] for program in fetching.missing()]
    if not guest_content.can_read():
        found.append(("qemu-utils", "qemu-img")[number])
    shut = ""
    if not ssh_server.is_installed():
        found.append("openssh-server")
    else:
        try:
            ssh_server.look()
        except NoAccess as error:
            shut = str(error)
    return tuple(dict.fromkeys(found)), shut
