"""Refuse to destroy a clone while one of its files cannot be looked at, and say how to reach it."""

from __future__ import annotations

import os

from saltext.kvmclone.errors import OutOfReach
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory.file_usage import Absence


def refusal(host: Host, name: str, absence: Absence, path: str) -> OutOfReach:
    """
    Return the error for a file of a clone that may be there and cannot be looked at.

    :param name: Name of the clone.
    :param absence: Why it cannot be looked at.
    """
    return OutOfReach(
        f"'{path}' was made for '{name}' and cannot be looked at now: {absence}. "
        "Nothing was touched.",
        f"{_way_to(host, absence, path)}   Then repeat the command. If that file is lost "
        "for good, leave it wherever it is: " + host.commands.forced(name),
    )


def _way_to(host: Host, absence: Absence, path: str) -> str:
    """Return the command that brings a file back into reach."""
    virsh, there = host.commands.virsh, host.commands.there
    if absence.pool:
        return virsh("pool-start", absence.pool)
    if host.local and os.path.isdir(os.path.dirname(path)):
        return f"See what is mounted there: {there('findmnt', '-T', path)}"
    if host.local:
        return f"Mount what is missing: {there('ls', '-ld', os.path.dirname(path))}"
    return virsh("pool-list", "--all")
