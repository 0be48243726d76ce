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
    from saltext.kvmclone.master import base_copies, fleet
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
def push(base, *hosts, source=None):
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
        Minion ids of the hosts that are to have it.
    source
        Minion id of the host that has it; needed where several hosts
        have bases of that name.

    Answers as ``bases`` does, for the hosts that are named; one that
    failed carries ``error``.

    CLI Example: ``salt-run kvmclone.push debian12 kvm02 kvm03``
    """
    return _fleet().copier.push(check(base), list(map(str, hosts)), str(source or ""))
