"""
Take snapshots of clones and roll back to them
==============================================

The part of the execution module ``kvm_clone`` that is about snapshots:
files that stay as they were at one moment, and the way back to them.

:depends: libvirt-python, lxml; qemu-img
"""

from __future__ import annotations

import functools

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import entrypoints
from saltext.kvmclone.model.names import check
from saltext.kvmclone.model.snapshots import check_label

try:
    from saltext.kvmclone.hosts import this_host
    from saltext.kvmclone.hypervisor.connection import available

    MISSING = "" if available() else entrypoints.missing_package("libvirt-python")
except ImportError as error:
    MISSING = entrypoints.missing(error)

__virtualname__ = "kvm_clone"


def __virtual__():
    # Also where libvirt is missing: each function then says what it lacks.
    return __virtualname__


def _host(url=None):
    return this_host.local_host(__opts__["id"], url)


@functools.partial(entrypoints.module_function, guarded=True)
def snapshot(name, label=None, url=None):
    """
    Take a snapshot of a clone: its disks and its UEFI variables, no
    memory. A clone that runs must have a guest agent, which freezes its
    file systems for that moment; without one stop it first.

    label
        What to call it; by default the time, ``2026-11-30T01-20-00``.

    CLI Example: ``salt kvm01 kvm_clone.snapshot web1 label=before``
    """
    return _host(url).snapshot(check(name), "" if label is None else check_label(label)).as_dict()


@functools.partial(entrypoints.module_function, guarded=True)
def rollback(name, label, url=None):
    """
    Bring the disks of a clone back to a snapshot. What was written
    since is lost. The clone is stopped for that, and started again if
    it ran; its definition, record and minion key stay as they are now.

    CLI Example: ``salt kvm01 kvm_clone.rollback web1 before``
    """
    return _host(url).rollback(check(name), check_label(label)).as_dict()


@entrypoints.module_function
def snapshots(name, url=None):
    """
    Return the snapshots of a clone, oldest first. ``current`` is the
    one that the clone goes on from.

    CLI Example: ``salt kvm01 kvm_clone.snapshots web1``
    """
    return [one.as_dict() for one in _host(url).snapshots(check(name))]


@functools.partial(entrypoints.module_function, guarded=True)
def delete_snapshot(name, label, url=None):
    """
    Delete one snapshot of a clone; the clone and its other snapshots
    keep what they hold. Stop the clone first if it is based on it.

    CLI Example: ``salt kvm01 kvm_clone.delete_snapshot web1 before``
    """
    return _host(url).delete_snapshot(check(name), check_label(label)).as_dict()
