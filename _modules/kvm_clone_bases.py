"""
Make bases on this host
=======================

The part of the execution module ``kvm_clone`` that makes and warms
bases.

:depends: libvirt-python, lxml, requests
"""

from __future__ import annotations

import functools

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import entrypoints
from saltext.kvmclone.model.names import check

try:
    from saltext.kvmclone.hosts import this_host
    from saltext.kvmclone.hypervisor.connection import available
    from saltext.kvmclone.master import progress

    MISSING = "" if available() else entrypoints.missing_package("libvirt-python")
except ImportError as error:
    MISSING = entrypoints.missing(error)

__virtualname__ = "kvm_clone"


def __virtual__():
    # Also where libvirt is missing: each function then says what it lacks.
    return __virtualname__


@functools.partial(entrypoints.module_function, guarded=True)
def base_from(source, name, profile=None, *, test=False, **keys):
    """
    Make a base from a vendor's cloud image: download and check it, boot
    it once to install ``qemu-guest-agent``, clean it, protect it.

    source
        URL (``https://``; ``http://`` with ``sha256``) of a qcow2 or
        raw image, or its path on this host.
    profile
        Take pool, network, cpus, memory and disk size from it.
    test
        Only say what would be made.
    keys
        ``sha256``: digest that the image must have (SHA-256 or 512), or
        the https URL of the vendor's checksum file.
        ``salt``: ``none`` (default), ``repository`` (Salt's own), or a
        folder on this host with packages or wheels.
        ``packages``: folder on this host with ``qemu-guest-agent`` and
        what it needs, for a guest without a network.
        ``firmware``, ``domain_type``, ``timeout``, ``pool``,
        ``networks``, ``cpus``, ``memory``, ``disks``, ``description``,
        ``provider``, ``url``: see docs/configuration.md.

    Returns its source, digest and disks. A failure leaves nothing.

    CLI Example::

        salt kvm01 kvm_clone.base_from /srv/debian12.qcow2 debian12
    """
    entrypoints.switches(test=test)
    given = {**keys, "profile": profile}
    configured = progress.catalogue(__opts__, __pillar__)
    return this_host.base_from(configured, __opts__["id"], source, name, given, test).as_dict()


@functools.partial(entrypoints.module_function, guarded=True)
def promote(name, base, url=None):
    """
    Make a base of a clone of this host; the clone itself is destroyed.

    The base is a full copy of the clone, with its disks flattened. It
    is started once without a network, cleaned over its guest agent
    (machine-id, host keys, Salt's id and keys, cloud-init's state), and
    protected. A failure before it is finished leaves the clone as it
    was, and nothing of the base.

    name
        The clone. It is shut off, has a guest agent, and nothing is
        based on it.
    base
        Name of the base.

    Returns the base's host, source and disks.

    CLI Example: ``salt kvm01 kvm_clone.promote web1 debian12-web``
    """
    return this_host.promote(__opts__["id"], url, check(name), check(base))


@functools.partial(entrypoints.module_function, guarded=True)
def warm(base_domain, url=None):
    """
    Warm a base: boot a clone of it and save its memory for forks.

    The clone has no network. Forks are clones that are restored from
    that memory instead of booting (``clone_strategy: instant``).
    Whatever is in the memory is in every fork: see docs/forks.md. What
    an earlier ``warm`` saved is removed once no fork is based on it.

    base_domain
        The base. It is shut off and has a guest agent.

    Returns the generation, the file and its size. A failure leaves
    nothing.

    CLI Example: ``salt kvm01 kvm_clone.warm debian12``
    """
    return this_host.warm(__opts__["id"], url, str(base_domain)).as_dict()


@functools.partial(entrypoints.module_function, guarded=True)
def unwarm(base_domain, url=None):
    """
    Remove what ``warm`` saved; refuse that while a fork is based on it.

    base_domain
        The base.

    Returns the files that were removed, and what stays.

    CLI Example: ``salt kvm01 kvm_clone.unwarm debian12``
    """
    return this_host.local_host(__opts__["id"], url).unwarm(str(base_domain)).as_dict()
