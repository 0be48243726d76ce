"""
Salt-cloud driver for KVM machines
==================================

``driver: libvirt``, as Salt had it until 3008: the old provider and profile files run
unchanged. A door over the same path as ``salt-run kvmclone.create``; where Salt still
ships its own libvirt driver (3006, 3007) this one takes its place.

The file is not called ``libvirt.py``, so that ``import libvirt`` cannot mean itself.

:depends: libvirt-python, lxml, paramiko
"""

from __future__ import annotations

from salt.exceptions import SaltCloudExecutionFailure, SaltCloudSystemExit

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import doors

try:
    from saltext.kvmclone import cloud

    MISSING = ""
except ImportError as error:
    MISSING = doors.missing(error)

__virtualname__ = "libvirt"


def __virtual__():
    return (False, MISSING) if MISSING else __virtualname__


def get_configured_provider():
    """The first provider of this driver that is configured, or False."""
    return cloud.configured_provider(__opts__, _active_provider())


def _active_provider():
    try:
        return __active_provider_name__.value() or __virtualname__
    except AttributeError:
        return __active_provider_name__ or __virtualname__


def create(vm_):
    """
    Clone one machine and make it a minion, with the key pair that salt-cloud accepted.

    CLI Example:

    .. code-block:: bash

        salt-cloud -p centos7 my-centos7-clone
    """
    outcome = cloud.create(__opts__, vm_)
    if outcome.error is not None:
        raise SaltCloudExecutionFailure(str(outcome.error))
    return outcome.as_dict()


def destroy(name, call=None):
    """
    Destroy a clone. Answers with a truthy dictionary only when the machine is gone, and
    raises on a refusal: salt-cloud keeps or deletes the minion's key by that.

    CLI Example:

    .. code-block:: bash

        salt-cloud -d my-centos7-clone
    """
    if call == "function":
        raise SaltCloudSystemExit("destroy is an action: salt-cloud -d NAME")
    outcome = cloud.destroy(__opts__, name)
    if outcome.error is not None:
        raise SaltCloudExecutionFailure(str(outcome.error))
    return outcome.as_dict()


def list_nodes(call=None):
    """
    The machines of every configured host, with id, image, state and addresses.

    CLI Example:

    .. code-block:: bash

        salt-cloud -Q
    """
    if call == "action":
        raise SaltCloudSystemExit("list_nodes is a function: salt-cloud -f list_nodes PROVIDER")
    return cloud.list_nodes(__opts__, _active_provider())


def list_nodes_full(call=None):
    """
    The same machines with everything that is known of each.

    CLI Example:

    .. code-block:: bash

        salt-cloud -F
    """
    if call == "action":
        raise SaltCloudSystemExit(
            "list_nodes_full is a function: salt-cloud -f list_nodes_full PROVIDER"
        )
    return cloud.list_nodes(__opts__, _active_provider(), full=True)
