"""
Compare bases and copy them from host to host
=============================================

The part of the runner ``kvmclone`` that brings one base to many hosts.

:depends: lxml; rsync and ssh on the hosts
"""

from __future__ import annotations

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import entrypoints

try:
    from saltext.kvmclone.master import base_copies, base_removal, fleet
    from saltext.kvmclone.model.names import check
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
def bases(base=None, hash=False):
    """
    Return which host has which base, and whether its content is the
    same.

    base
        Only the base of that name. By default those of profiles, and
        all that were read before or are protected.
    hash
        Read the content of bases of which it is not known, which takes
        a second or so for each GiB on their disks. It is recorded with
        the base, and counts until one of its files changes.

    Answers ``{"bases": {BASE: {HOST: {"state", "digest", "bytes"}}},
    "retcode"}``; ``state`` is ``same``, ``other``, ``unknown``,
    ``missing`` or ``copying``.

    CLI Example::

        salt-run kvmclone.bases
        salt-run kvmclone.bases debian12 hash=True
    """
    entrypoints.switches(hash=hash)
    return base_copies.bases(_fleet().everywhere, check(base) if base is not None else "", hash)


@entrypoints.runner_function
def push(base, *hosts, source=None, replace=False, yes=False):
    """
    Copy a base, which must be shut off, to other hosts.

    Each of them fetches it from the source by rsync over ssh, with a
    key that is made for this one copy, and reads nothing but the base.
    Both ends are compared at the end. A host that has that very base
    already is left as it is; one that has another under its name
    refuses. A copy that was killed is gone on with by the next push.

    base
        Name of the base.
    hosts
        Minion ids of the hosts that are to have it, or target
        expressions: ``'kvm*'``.
    source
        Minion id of the host that has it; needed where several hosts
        have bases of that name.
    replace
        Where a host has another base of that name, remove that first,
        as ``remove_base`` does. If one of the hosts refuses, nothing is
        done on any.
    yes
        Answer the question before it is replaced on more than ten
        hosts.

    Returns what ``bases`` does, for the hosts that are named; one that
    failed carries ``error``.

    CLI Example::

        salt-run kvmclone.push debian12 kvm02 kvm03
        salt-run kvmclone.push debian12 'G@rack:a2'
        salt-run kvmclone.push debian12 kvm02 source=kvm01 replace=True
    """
    entrypoints.switches(replace=replace, yes=yes)
    targets, source = list(map(str, hosts)), str(source or "")
    return base_removal.push(_fleet(), check(base), targets, source, replace, yes)


@entrypoints.runner_function
def remove_base(base, *only_hosts, yes=False):
    """
    Remove a base from hosts: its definition, and those of its disks
    that were recorded when its content was read, unless another
    machine uses them. Backing files stay.

    If clones stand on it on one of these hosts, or it runs, is
    protected or is being copied there, it stays on all of them.

    base
        Name of the base.
    only_hosts
        Minion ids of the hosts; without any, all that have it. Then
        every host must answer.
    yes
        Answer the question before more than ten hosts.

    Returns ``{"bases": {BASE: {HOST: {"state", "digest", "bytes",
    "removed", "kept"}}}, "retcode"}``; one that failed carries
    ``error``.

    CLI Example::

        salt-run kvmclone.remove_base debian12
        salt-run kvmclone.remove_base debian12 kvm02
    """
    entrypoints.switches(yes=yes)
    return base_removal.remove(_fleet(), check(base), list(map(str, only_hosts)), yes)
