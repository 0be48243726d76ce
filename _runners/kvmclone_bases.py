"""
Make bases
==========

The part of the runner ``kvmclone`` that makes and warms bases.

:depends: lxml; libvirt-python only where a provider has no ``host:``
"""

from __future__ import annotations

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import entrypoints

try:
    from saltext.kvmclone.master import bases, fleet, warming
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
def base_from(source, name, profile=None, **keys):
    """
    Make a base from a vendor's cloud image: download and check it, boot
    it once to install ``qemu-guest-agent``, clean it, protect it.

    source
        URL (``https://``; ``http://`` with ``sha256``) of a qcow2 or
        raw image, or its path on the KVM host.
    profile
        Take host, pool, network, cpus, memory and disk size from it.
    keys
        ``host`` or ``provider``: required where there are several.
        ``sha256``: digest that the image must have (SHA-256 or 512), or
        the https URL of the vendor's checksum file.
        ``salt``: ``none`` (default), ``repository`` (Salt's own), or a
        folder on the KVM host with packages or wheels.
        ``packages``: folder there with ``qemu-guest-agent`` and what it
        needs, for a guest without a network.
        ``firmware``, ``domain_type``, ``timeout``, ``pool``,
        ``networks``, ``cpus``, ``memory``, ``disks``, ``description``,
        ``url``: see docs/configuration.md.

    Returns ``{"bases": {NAME: …}, "retcode"}``. A failure leaves
    nothing.

    CLI Example::

        salt-run kvmclone.base_from /srv/debian12.qcow2 debian12
    """
    given = {**keys, "profile": profile}
    return bases.base_from(_fleet(), source, name, given)


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
    return bases.promote(_fleet(), name, base)


@entrypoints.runner_function
def warm(*bases, host=None):
    """
    Warm bases: boot a clone of each and save its memory for forks.

    The clone has no network. Forks are clones that are restored from
    that memory instead of booting (``clone_strategy: instant``).
    Whatever is in the memory is in every fork: see docs/forks.md. What
    an earlier ``warm`` saved is removed once no fork is based on it.

    bases
        Names of the bases. They are shut off and have a guest agent.
    host
        Minion id of the KVM host, where several have the base.

    Returns ``{"bases": {BASE: …}, "retcode"}``. A failure leaves
    nothing.

    CLI Example: ``salt-run kvmclone.warm debian12``
    """
    return warming.warm(_fleet(), bases, str(host or ""))


@entrypoints.runner_function
def unwarm(*bases, host=None):
    """
    Remove what ``warm`` saved; refuse that while a fork is based on it.

    bases
        Names of the bases.
    host
        Minion id of the KVM host, where several have the base.

    Returns ``{"bases": {BASE: {"removed", "kept"}}, "retcode"}``.

    CLI Example: ``salt-run kvmclone.unwarm debian12``
    """
    return warming.unwarm(_fleet(), bases, str(host or ""))
