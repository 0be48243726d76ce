"""
Watch the clones of a KVM host
==============================

Tells the master when a clone stopped that nobody stopped on purpose, and when the base of a
clone changed:

.. code-block:: yaml

    beacons:
      kvm_clone:
        - interval: 60

The event is ``salt/beacon/HOST/kvm_clone/changed``, and the doorbell ``kvm_clone/changed`` rings
with the same data: ``{"clones": [{"name", "what", "detail"}]}`` where ``what`` is ``stopped`` or
``base``. A guest that is shut down in the ordinary way, also by ``kvm_clone.stop``, is told as
well, since libvirt cannot tell who wished it; with ``ignore_shutdown: true`` it is not.

It polls, in a process of its own: the minion's process, which runs beacons, must neither wait
for a libvirtd that hangs nor hold a connection when it forks its jobs.

:depends: libvirt-python, lxml
"""

from __future__ import annotations

import logging

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import doors
from saltext.kvmclone.errors import KvmCloneError

try:
    from saltext.kvmclone import host, watchman

    MISSING = "" if host.available() else doors.missing_package("libvirt-python")
except ImportError as error:
    MISSING = doors.missing(error)

log = logging.getLogger(__name__)

__virtualname__ = "kvm_clone"


def __virtual__():
    return (False, MISSING) if MISSING else __virtualname__


def validate(config):
    """
    Whether the configuration of the beacon is right.
    """
    return watchman.validate(config)


def beacon(config):
    """
    One look at the clones; what changed since the last one.
    """
    try:
        news = watchman.news(__opts__, config)
    except KvmCloneError as error:
        log.error("beacon kvm_clone: %s", error)
        return []
    if not news:
        return []
    __salt__["event.send"]("kvm_clone/changed", {"clones": news})
    return [{"tag": "changed", "clones": news}]
