"""
Make bases
==========

The part of the runner ``kvmclone`` that makes bases.

:depends: lxml; libvirt-python only where a provider has no ``host:``
"""

from __future__ import annotations

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import entrypoints

try:
    from saltext.kvmclone.master import bases, fleet
    from saltext.kvmclone.reactor import intake

    MISSING = ""
except ImportError as error:
    MISSING = entrypoints.missing(error)

__virtualname__ = "kvmclone"

__virtual_aliases__ = ("kvm_clone",)  # see kvmclone.py


def __virtual__():
    # Also where a package is missing: each function then says what it lacks.
    return __virtualname__


@entrypoints.runner_function
def promote(name, base):
    """
    Make a base of a clone; the clone is destroyed, and its key removed.

    The base is a full copy of the clone, without what made it a machine
    of its own, and protected. A failure before it is finished leaves
    the clone as it was, and nothing of the base.

    name
        The clone. It is shut off, has a guest agent, and nothing is
        based on it.
    base
        Name of the base.

    Returns ``{"bases": {BASE: …}, "retcode"}``.

    CLI Example: ``salt-run kvmclone.promote web1 debian12-web``
    """
    return bases.promote(fleet.Fleet(__opts__, intake.expect_highstate), name, base)
