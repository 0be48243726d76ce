"""
Take snapshots of clones and roll back to them
==============================================

The part of the runner ``kvmclone`` that is about snapshots.

:depends: lxml
"""

from __future__ import annotations

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import entrypoints

try:
    from saltext.kvmclone.master import clone_snapshots, fleet
    from saltext.kvmclone.reactor import intake

    MISSING = ""
except ImportError as error:
    MISSING = entrypoints.missing(error)

__virtualname__ = "kvmclone"

__virtual_aliases__ = ("kvm_clone",)  # see kvmclone.py


def __virtual__():
    # Also where a package is missing: each function then says what it lacks.
    return __virtualname__


def _fleet():
    return fleet.Fleet(__opts__, intake.expect_highstate)


@entrypoints.runner_function
def snapshot(name, label=None):
    """
    Take a snapshot of a clone: its disks and its UEFI variables, no
    memory. A clone that runs must have a guest agent, which freezes its
    file systems for that moment; without one stop it first.

    label
        What to call it; by default the time, ``2026-11-30T01-20-00``.

    Answers ``{"clones": {NAME: SNAPSHOT}, "retcode"}``.

    CLI Example: ``salt-run kvmclone.snapshot web1 label=before``
    """
    return clone_snapshots.take(_fleet(), name, label)


@entrypoints.runner_function
def rollback(name, label):
    """
    Bring the disks of a clone back to a snapshot. What was written
    since is lost. The clone is stopped for that, and started again if
    it ran; its definition, record and minion key stay as they are now.

    Answers ``{"clones": {NAME: CLONE}, "retcode"}``.

    CLI Example: ``salt-run kvmclone.rollback web1 before``
    """
    return clone_snapshots.roll_back(_fleet(), name, label)


@entrypoints.runner_function
def snapshots(name):
    """
    Return the snapshots of a clone, oldest first. ``current`` is the
    one that the clone goes on from.

    Answers ``{"snapshots": {NAME: [SNAPSHOT]}, "retcode"}``.

    CLI Example: ``salt-run kvmclone.snapshots web1``
    """
    return clone_snapshots.listed(_fleet(), name)


@entrypoints.runner_function
def delete_snapshot(name, label):
    """
    Delete one snapshot of a clone; the clone and its other snapshots
    keep what they hold. Stop the clone first if it is based on it.

    Answers ``{"clones": {NAME: SNAPSHOT}, "retcode"}``.

    CLI Example: ``salt-run kvmclone.delete_snapshot web1 before``
    """
    return clone_snapshots.delete(_fleet(), name, label)
