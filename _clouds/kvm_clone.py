"""
Salt-cloud driver for KVM machines
==================================

``driver: libvirt``, as Salt had it until 3008: the old provider and
profile files run unchanged. A door over the same path as ``salt-run
kvmclone.create``; where Salt still ships its own libvirt driver (3006,
3007) this one takes its place.

The file is not called ``libvirt.py``, so that ``import libvirt`` cannot
mean itself.

:depends: libvirt-python, lxml; paramiko >= 3.2 to reach guests over ssh
"""

from __future__ import annotations

import logging

import salt.utils.cloud
from salt.exceptions import SaltCloudSystemExit

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import entrypoints

try:
    from saltext.kvmclone.master import at_once, cloud_driver, cloud_keys, cloud_providers
    from saltext.kvmclone.reactor import intake

    MISSING = ""
except ImportError as error:
    MISSING = entrypoints.missing(error)

log = logging.getLogger(__name__)

__virtualname__ = "libvirt"

#: The machine at which a Ctrl-C ended the command.
_ENDED = []

#: The keys that were accepted before salt-cloud's core made any; see cloud_keys.
_NOTED = {}


def __virtual__():
    return (False, MISSING) if MISSING else __virtualname__


def __init__(opts):
    # Salt calls this before __virtual__, so also where something is missing.
    _NOTED.clear()
    _NOTED.update({} if MISSING else cloud_keys.note(opts))


def get_configured_provider():
    """
    Return the first configured provider of this driver, or False.
    """
    return cloud_providers.configured_provider(__opts__, _active_provider() or __virtualname__)


def _active_provider():
    try:
        return __active_provider_name__.value() or ""
    except AttributeError:
        return __active_provider_name__ or ""


def _asked():
    return cloud_driver.CloudDriver(
        __opts__, intake.expect_highstate, _active_provider(), __utils__, _NOTED
    )


def create(vm_):
    """
    Clone one machine and make it a minion, with the key pair that
    salt-cloud accepted.

    CLI Example: ``salt-cloud -p centos7 my-centos7-clone``
    """
    name = vm_["name"]
    with (
        entrypoints.cloud_call("create"),
        at_once.one_of_several(_ENDED, name, "the create", defers=True),
    ):
        return _asked().create(vm_)


def destroy(name=None, call=None, kwargs=None):
    """
    Destroy a clone and remove its key. Answers only when the machine is
    gone, and raises on a refusal: then the key stays, too.

    CLI Example: ``salt-cloud -d my-centos7-clone``
    """
    # Of several at once the core takes an error of its own kind for success, and would remove the
    # key of a machine that is still there.
    ours = bool(__opts__.get("parallel"))
    with (
        entrypoints.cloud_call("destroy", call, "action", typed="salt-cloud -d NAME", ours=ours),
        at_once.one_of_several(_ENDED, name, "the destroy", defers=False),
    ):
        return _asked().destroy(name)


def start(name=None, kwargs=None, call=None):
    """
    Start a clone that is off.

    CLI Example: ``salt-cloud -a start my-centos7-clone``
    """
    with entrypoints.cloud_call("start", call, "action", kwargs):
        return _asked().power(name, "start")


def stop(name=None, kwargs=None, call=None):
    """
    Shut a clone down.

    CLI Example: ``salt-cloud -a stop my-centos7-clone``
    """
    with entrypoints.cloud_call("stop", call, "action", kwargs):
        return _asked().power(name, "stop")


def reboot(name=None, kwargs=None, call=None):
    """
    Reboot a clone.

    CLI Example: ``salt-cloud -a reboot my-centos7-clone``
    """
    with entrypoints.cloud_call("reboot", call, "action", kwargs):
        return _asked().power(name, "reboot")


def show_instance(name=None, kwargs=None, call=None):
    """
    Return everything that is known of one clone.

    CLI Example: ``salt-cloud -a show_instance my-centos7-clone``
    """
    with entrypoints.cloud_call("show_instance", call, "action", kwargs):
        return _asked().show(name)


def list_nodes(name=None, call=None):
    """
    List the clones of a provider, with id, image, state and addresses.

    CLI Example: ``salt-cloud -Q``
    """
    with entrypoints.cloud_call("list_nodes", call, "function"):
        return _asked().nodes()


def list_nodes_full(name=None, call=None):
    """
    List the clones of a provider with everything that is known of each.

    CLI Example: ``salt-cloud -F``
    """
    with entrypoints.cloud_call("list_nodes_full", call, "function"):
        return _asked().nodes(full=True)


def list_nodes_select(name=None, call=None):
    """
    List the clones of a provider with the fields that
    ``query.selection`` of /etc/salt/cloud names.

    CLI Example: ``salt-cloud -S``
    """
    with entrypoints.cloud_call("list_nodes_select", call, "function"):
        wanted = __opts__.get("query.selection")
        if not wanted:
            # The core leaves out what fails in a query, and says so to nobody.
            log.error("Nothing is listed: 'query.selection' is not set in /etc/salt/cloud")
            raise SaltCloudSystemExit("query.selection not found in /etc/salt/cloud")
        return salt.utils.cloud.list_nodes_select(list_nodes_full(), wanted, call)


def avail_images(name=None, call=None):
    """
    List the machines that could be cloned: what ``base_domain`` may
    name.

    CLI Example: ``salt-cloud --list-images kvm-provider``
    """
    with entrypoints.cloud_call("avail_images", call, "function"):
        return _asked().images()


def avail_sizes(name=None, call=None):
    """
    List CPUs and memory (bytes) of each base; a clone has the same
    unless its profile says more.

    CLI Example: ``salt-cloud --list-sizes kvm-provider``
    """
    with entrypoints.cloud_call("avail_sizes", call, "function"):
        return _asked().sizes()


def avail_locations(name=None, call=None):
    """
    List where clones of a provider are made: one provider is one KVM
    host.

    CLI Example: ``salt-cloud --list-locations kvm-provider``
    """
    with entrypoints.cloud_call("avail_locations", call, "function"):
        return _asked().locations()


def adopt(kwargs=None, call=None):
    """
    Make a clone of Salt's own driver one of ours: from then on it is
    listed, and can be destroyed.

    CLI Example: ``salt-cloud -f adopt kvm-provider name=my-old-clone``
    """
    with entrypoints.cloud_call("adopt", call, "function"):
        given = kwargs or {}
        if "name" not in given or set(given) - {"name", "base_domain"}:
            raise SaltCloudSystemExit("salt-cloud -f adopt PROVIDER name=NAME [base_domain=BASE]")
        return _asked().adopt(given["name"], given.get("base_domain", ""))
