"""
Salt-cloud driver for KVM machines
==================================

``driver: libvirt``, as Salt had it until 3008: the old provider and profile files run
unchanged. A door over the same path as ``salt-run kvmclone.create``; where Salt still
ships its own libvirt driver (3006, 3007) this one takes its place.

The file is not called ``libvirt.py``, so that ``import libvirt`` cannot mean itself.

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
    from saltext.kvmclone import interrupts
    from saltext.kvmclone.errors import Interrupted, KvmCloneError
    from saltext.kvmclone.master import at_once, cloud_driver, cloud_keys
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
    """The first provider of this driver that is configured, or False."""
    return cloud_driver.configured_provider(__opts__, _active_provider() or __virtualname__)


def _active_provider():
    try:
        return __active_provider_name__.value() or ""
    except AttributeError:
        return __active_provider_name__ or ""


def _asked():
    return cloud_driver.CloudDriver(
        __opts__, intake.expect_highstate, _active_provider(), __utils__, _NOTED
    )


def _answer(work):
    """What the library answers, or its refusal as an error of salt-cloud."""
    try:
        return work(_asked())
    except KvmCloneError as error:
        raise SaltCloudSystemExit(str(error)) from error


def _guarded(name, work, what, defers):
    """
    What the library answers, where a Ctrl-C must not end it in the middle. The core would go on
    with the next machine of a map, so it is not begun.

    :param what: ``the create``, which looks for interrupts itself (``defers``), or the destroy.
    :raises KvmCloneError: It was refused, or interrupted.
    """
    if _ENDED:
        raise Interrupted(
            f"'{name}' was left as it is: the command was interrupted before its turn.",
            "Repeat the command.",
        )
    try:
        with interrupts.guard(interrupts.AT_MASTER), interrupts.work(str(name), what, defers):
            try:
                return work()
            finally:
                if interrupts.pressed():  # also where it came too late for this one
                    _ENDED.append(name)
    except interrupts.Interrupt:
        raise (at_once.nothing_made if defers else at_once.half_destroyed)(name) from None


def _refusal(error):
    if isinstance(error, Interrupted):
        return SaltCloudSystemExit(str(error), interrupts.EXIT_CODE)
    return SaltCloudSystemExit(str(error))


def _need_function(call, name):
    # salt-cloud -a gives the name of a machine, first
    if call == "action":
        raise SaltCloudSystemExit(f"{name} is a function: salt-cloud -f {name} PROVIDER")


def _need_action(call, name, kwargs=None):
    # salt-cloud -f gives no name
    if call == "function":
        raise SaltCloudSystemExit(f"{name} is an action: salt-cloud -a {name} NAME")
    if kwargs:
        raise SaltCloudSystemExit(f"{name} takes no arguments: {', '.join(sorted(kwargs))}")


def create(vm_):
    """
    Clone one machine and make it a minion, with the key pair that salt-cloud accepted.

    CLI Example:

    .. code-block:: bash

        salt-cloud -p centos7 my-centos7-clone
    """
    try:
        return _guarded(vm_["name"], lambda: _asked().create(vm_), "the create", defers=True)
    except KvmCloneError as error:
        raise _refusal(error) from error


def destroy(name=None, call=None, kwargs=None):
    """
    Destroy a clone and remove its key. Answers only when the machine is gone, and raises
    on a refusal: then the key stays, too.

    CLI Example:

    .. code-block:: bash

        salt-cloud -d my-centos7-clone
    """
    if call == "function":
        raise SaltCloudSystemExit("destroy is an action: salt-cloud -d NAME")
    try:
        return _guarded(name, lambda: _asked().destroy(name), "the destroy", defers=False)
    except KvmCloneError as error:
        # Of several at once the core takes an error of its own kind for success, and would
        # remove the key of a machine that is still there.
        if __opts__.get("parallel"):
            raise
        raise _refusal(error) from error


def start(name=None, kwargs=None, call=None):
    """
    Start a clone that is off.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a start my-centos7-clone
    """
    _need_action(call, "start", kwargs)
    return _answer(lambda asked: asked.power(name, "start"))


def stop(name=None, kwargs=None, call=None):
    """
    Shut a clone down.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a stop my-centos7-clone
    """
    _need_action(call, "stop", kwargs)
    return _answer(lambda asked: asked.power(name, "stop"))


def reboot(name=None, kwargs=None, call=None):
    """
    Reboot a clone.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a reboot my-centos7-clone
    """
    _need_action(call, "reboot", kwargs)
    return _answer(lambda asked: asked.power(name, "reboot"))


def show_instance(name=None, kwargs=None, call=None):
    """
    Everything that is known of one clone.

    CLI Example:

    .. code-block:: bash

        salt-cloud -a show_instance my-centos7-clone
    """
    _need_action(call, "show_instance", kwargs)
    return _answer(lambda asked: asked.show(name))


def list_nodes(name=None, call=None):
    """
    The clones of a provider, with id, image, state and addresses.

    CLI Example:

    .. code-block:: bash

        salt-cloud -Q
    """
    _need_function(call, "list_nodes")
    return _answer(lambda asked: asked.nodes())


def list_nodes_full(name=None, call=None):
    """
    The same machines with everything that is known of each.

    CLI Example:

    .. code-block:: bash

        salt-cloud -F
    """
    _need_function(call, "list_nodes_full")
    return _answer(lambda asked: asked.nodes(full=True))


def list_nodes_select(name=None, call=None):
    """
    The same machines with the fields that ``query.selection`` of /etc/salt/cloud names.

    CLI Example:

    .. code-block:: bash

        salt-cloud -S
    """
    _need_function(call, "list_nodes_select")
    wanted = __opts__.get("query.selection")
    if not wanted:
        # The core leaves out what fails in a query, and says so to nobody.
        log.error("Nothing is listed: 'query.selection' is not set in /etc/salt/cloud")
        raise SaltCloudSystemExit("query.selection not found in /etc/salt/cloud")
    return salt.utils.cloud.list_nodes_select(list_nodes_full(), wanted, call)


def avail_images(name=None, call=None):
    """
    The machines that could be cloned: what ``base_domain`` may name.

    CLI Example:

    .. code-block:: bash

        salt-cloud --list-images kvm-provider
    """
    _need_function(call, "avail_images")
    return _answer(lambda asked: asked.images())


def avail_sizes(name=None, call=None):
    """
    CPUs and memory (bytes) of each base; a clone has the same unless its profile says more.

    CLI Example:

    .. code-block:: bash

        salt-cloud --list-sizes kvm-provider
    """
    _need_function(call, "avail_sizes")
    return _answer(lambda asked: asked.sizes())


def avail_locations(name=None, call=None):
    """
    Where clones of a provider are made: one provider is one KVM host.

    CLI Example:

    .. code-block:: bash

        salt-cloud --list-locations kvm-provider
    """
    _need_function(call, "avail_locations")
    return _answer(lambda asked: asked.locations())


def adopt(kwargs=None, call=None):
    """
    Make a clone of Salt's own driver one of ours: from then on it is listed, and can be destroyed.

    CLI Example:

    .. code-block:: bash

        salt-cloud -f adopt kvm-provider name=my-old-clone
    """
    _need_function(call, "adopt")
    given = kwargs or {}
    if "name" not in given or set(given) - {"name", "base_domain"}:
        raise SaltCloudSystemExit("salt-cloud -f adopt PROVIDER name=NAME [base_domain=BASE]")
    return _answer(lambda asked: asked.adopt(given["name"], given.get("base_domain", "")))
