"""
Tell which files SELinux keeps from the guests of this machine.
"""

from __future__ import annotations

import os

#: Where the kernel shows SELinux; there is no such folder without it.
SELINUX = "/sys/fs/selinux"

#: The switches that let guests use files of these types, which libvirt cannot label.
_SWITCHES = {
    "cifs_t": "virt_use_samba",
    "fusefs_t": "virt_use_fusefs",
    "nfs_t": "virt_use_nfs",
}


def is_enforced(selinux: str = SELINUX) -> bool:
    """Return whether SELinux is there and enforces its policy."""
    return _first(os.path.join(selinux, "enforce")) == "1"


def closed(path: str, selinux: str = SELINUX) -> str:
    """
    Return the switch of SELinux that keeps a file from every guest; empty for none.

    :param path: A disk of a guest.
    """
    try:
        label = os.getxattr(path, "security.selinux").decode("ascii", "replace")
    except OSError:  # no such file, or no labels there
        return ""
    switch = _SWITCHES.get((label.split(":") + [""] * 3)[2], "")
    # "0 0": what counts now, and what was asked for.
    off = switch and _first(os.path.join(selinux, "booleans", switch)) == "0"
    return switch if off else ""


def _first(path: str) -> str:
    try:
        with open(path, encoding="ascii") as source:
            return source.read().split()[0]
    except (OSError, IndexError):
        return ""
