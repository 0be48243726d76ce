"""
Watch the clones of a KVM host
==============================

Tells the master when a clone stopped that nobody stopped on purpose,
and when the base of a clone changed:

.. code-block:: yaml

    beacons:
      kvm_clone:
        - interval: 60

The event is ``salt/beacon/HOST/kvm_clone/changed``, and the doorbell
``kvm_clone/changed`` rings with the same data: ``{"clones": [{"name",
"what", "detail"}]}`` where ``what`` is ``stopped`` or ``base``. A guest
that is shut down in the ordinary way, also by ``kvm_clone.stop``, is
told as well, since libvirt cannot tell who wished it; with
``ignore_shutdown: true`` it is not.

It polls, in a process of its own: the minion's process, which runs
beacons, must neither wait for a libvirtd that hangs nor hold a
connection when it forks its jobs.

Salt's loader of beacons knows nothing of our library, so the work is
the execution module's (``kvm_clone.news``).

:depends: libvirt-python, lxml
"""

from __future__ import annotations

import logging

from salt.exceptions import CommandExecutionError

log = logging.getLogger(__name__)

__virtualname__ = "kvm_clone"

_KNOWN = {"url": str, "ignore_shutdown": bool}

#: Salt's own, for every beacon.
_SALTS = ("interval", "enabled", "beacon_module", "disable_during_state_run", "run_once")


def __virtual__():
    if "kvm_clone.news" not in __salt__:
        return False, "The execution module kvm_clone is not loaded here: saltutil.sync_all"
    return __virtualname__


def _settings(config):
    """Return the configuration, which is a list of mappings, or one."""
    parts = [config] if isinstance(config, dict) else config
    return {key: value for part in parts for key, value in part.items() if key not in _SALTS}


def validate(config):
    """
    Return whether the configuration of the beacon is right, and why
    not.
    """
    parts = [config] if isinstance(config, dict) else config
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        return False, "The configuration of the beacon kvm_clone is a list: [interval: 60]."
    for key, value in _settings(config).items():
        if not key.startswith("_") and not isinstance(value, _KNOWN.get(key, ())):
            known = ", ".join(_KNOWN)
            return False, f"{key}: {value!r} is not known to the beacon kvm_clone ({known})."
    return True, "Valid beacon configuration"


def beacon(config):
    """
    Look at the clones, and return what changed since the last look.
    """
    wishes = {key: value for key, value in _settings(config).items() if key in _KNOWN}
    try:
        news = __salt__["kvm_clone.news"](**wishes)
    except CommandExecutionError as error:
        log.error("beacon kvm_clone: %s", error)
        return []
    if not news:
        return []
    __salt__["event.send"]("kvm_clone/changed", {"clones": news})
    return [{"tag": "changed", "clones": news}]
