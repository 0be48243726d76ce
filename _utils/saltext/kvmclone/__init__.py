"""
Clone KVM domains and turn the clones into Salt minions.

The Salt entry points (``_modules``, ``_runners``, ``_states``, ``_clouds``, ``_beacons``,
``_output``) import everything from here, however they were installed: synced by Salt, through
``module_dirs``, from a wheel or from an editable checkout.
"""

from __future__ import annotations

import importlib
import os
import sys

__version__ = "0.1.0"

#: The kinds of entry points; a package has a folder of each beside the library's.
DOORS = ("modules", "runners", "states", "clouds", "beacons", "output")


def _stamp() -> dict[str, int]:
    """Return the modification time, in nanoseconds, of every file of the library, by path."""
    stamps: dict[str, int] = {}
    for folder, _folders, files in os.walk(os.path.dirname(os.path.abspath(__file__))):
        for file in files:
            if file.endswith(".py"):
                path = os.path.join(folder, file)
                stamps[path] = os.stat(path).st_mtime_ns
    return stamps


#: What the files were when the library was loaded.
loaded = _stamp()


def has_changed(stamps: dict[str, int]) -> bool:
    """
    Return True if the library's files are not what they were.

    :param stamps: An earlier :data:`loaded`.
    """
    try:
        return _stamp() != stamps
    except OSError:  # a sync is replacing the files right now; the next look sees them whole
        return False


def refresh() -> None:
    """
    Drop the library from memory when its files changed since they were loaded.

    After a sync a daemon reloads the entry points and keeps the library modules that it imported
    before. Each entry point calls this before its other imports, so that both are of one version.
    """
    if not has_changed(loaded):
        return
    here = sys.modules[__name__]
    for name in [name for name in sys.modules if name.startswith(__name__ + ".")]:
        sys.modules.pop(name)
        # "from saltext.kvmclone import plan" would otherwise still find the old module here. The
        # old packages keep their attributes: a job that is under way goes on with them.
        child = name[len(__name__) + 1 :]
        if hasattr(here, child):
            delattr(here, child)
    importlib.invalidate_caches()
    # This file too: its version, and where the package lies now. It takes the new stamp.
    importlib.reload(here)


def loader_dirs() -> dict[str, list[str]]:
    """
    Return the folders in which Salt's loader finds the entry points.

    This is the value of the ``salt.loader`` entry point of the package.

    :return: Folders by kind of entry point, from the installed package, or from the checkout that
        an editable install points to.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    checkout = os.path.abspath(os.path.join(here, os.pardir, os.pardir, os.pardir))
    found: dict[str, list[str]] = {}
    for kind in DOORS:
        for folder in (os.path.join(here, kind), os.path.join(checkout, "_" + kind)):
            if os.path.isdir(folder):
                found[kind] = [folder]
                break
    return found
