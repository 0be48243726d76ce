"""
Start, stop, reboot and destroy clones
======================================

The part of the runner ``kvmclone`` that acts on clones that are there,
one or many.

Names may be ranges (``'web[01-20]'``). Instead of names, a selection:
``tag=``, ``host=``, ``profile=``, ``base=``; all that are given must
fit. Before more than ten machines are acted on, a question is asked
at the terminal; ``yes=True`` answers it, and where nobody can be asked
nothing is done without.

Returns ``{"clones": {NAME: CLONE}, "retcode"}``, and ``unreachable``
where a host did not say which clones a selection fits.

:depends: lxml; libvirt-python only where a provider has no ``host:``
"""

from __future__ import annotations

import functools

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import entrypoints

try:
    from saltext.kvmclone.master import fleet, many
    from saltext.kvmclone.reactor import intake

    MISSING = ""
except ImportError as error:
    MISSING = entrypoints.missing(error)

__virtualname__ = "kvmclone"

__virtual_aliases__ = ("kvm_clone",)  # see kvmclone.py


def __virtual__():
    # Also where a package is missing: each function then says what it lacks.
    return __virtualname__


def _each(verb, names, name, only, yes, work):
    """Answer with what became of each machine, once it is certain that all are meant."""
    entrypoints.switches(yes=yes)
    known = fleet.Fleet(__opts__, intake.expect_highstate)
    given = entrypoints.names_given(names, name=name)
    chosen, outcomes = many.carry_out(known, verb, given, only, yes, work)
    return chosen.completed(entrypoints.clones(outcomes))


@entrypoints.runner_function
def start(*names, name=None, tag=None, host=None, profile=None, base=None, yes=False):
    """
    Start clones; one that runs already stays as it is.

    names
        Names and ranges; or instead of them:
    tag, host, profile, base
        All such clones.
    yes
        Answer the question before more than ten machines.

    CLI Example::

        salt-run kvmclone.start my-centos7-clone
        salt-run kvmclone.start 'web[01-20]' yes=True
    """
    only = {"tag": tag, "host": host, "profile": profile, "base": base}
    return _each(
        "start", names, name, only, yes, functools.partial(fleet.Fleet.power, action="start")
    )


@entrypoints.runner_function
def stop(*names, name=None, tag=None, host=None, profile=None, base=None, yes=False):
    """
    Shut clones down; after a minute they are switched off.

    names
        Names and ranges; or instead of them:
    tag, host, profile, base
        All such clones.
    yes
        Answer the question before more than ten machines.

    CLI Example::

        salt-run kvmclone.stop my-centos7-clone
        salt-run kvmclone.stop tag=web host=kvm01
    """
    only = {"tag": tag, "host": host, "profile": profile, "base": base}
    return _each(
        "stop", names, name, only, yes, functools.partial(fleet.Fleet.power, action="stop")
    )


@entrypoints.runner_function
def reboot(*names, name=None, tag=None, host=None, profile=None, base=None, yes=False):
    """
    Reboot clones; one that is off is started.

    names
        Names and ranges; or instead of them:
    tag, host, profile, base
        All such clones.
    yes
        Answer the question before more than ten machines.

    CLI Example: ``salt-run kvmclone.reboot my-centos7-clone``
    """
    only = {"tag": tag, "host": host, "profile": profile, "base": base}
    return _each(
        "reboot", names, name, only, yes, functools.partial(fleet.Fleet.power, action="reboot")
    )


@entrypoints.runner_function
def destroy(
    *names, name=None, force=False, tag=None, host=None, profile=None, base=None, yes=False
):
    """
    Destroy clones: the domain, its NVRAM, the volumes on its record,
    and its minion key.

    A key that an earlier clone of that name left behind is removed as
    well, if it is one that we accepted.

    names
        Names and ranges; or instead of them:
    tag, host, profile, base
        All such clones.
    force
        Remove the key also where a host does not answer that may have
        the clone. It does not answer the question.
    yes
        Answer the question before more than ten machines.

    A domain that is not one of our clones is refused; on its host,
    ``kvm_clone.destroy NAME force=True`` removes its definition and
    keeps its disks.

    CLI Example::

        salt-run kvmclone.destroy my-centos7-clone
        salt-run kvmclone.destroy 'web[01-20]'
    """
    entrypoints.switches(force=force)
    only = {"tag": tag, "host": host, "profile": profile, "base": base}
    return _each(
        "destroy", names, name, only, yes, functools.partial(fleet.Fleet.destroy, force=force)
    )
