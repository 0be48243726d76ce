"""
Look after a KVM host
=====================

The part of the execution module ``kvm_clone`` that is about a KVM host
as a whole: what is wrong or left over there, what it tells the mine and
the schedule, and how it serves the master.

:depends: libvirt-python, lxml
"""

from __future__ import annotations

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import entrypoints
from saltext.kvmclone.model.names import check
from saltext.kvmclone.model.request import DEFAULT_URL
from saltext.kvmclone.system import signed_answers

try:
    from saltext.kvmclone.hosts import beacon, remote_server, this_host
    from saltext.kvmclone.hosts.gc import collect
    from saltext.kvmclone.hypervisor.connection import available
    from saltext.kvmclone.master import progress

    MISSING = "" if available() else entrypoints.missing_package("libvirt-python")
except ImportError as error:
    MISSING = entrypoints.missing(error)

__virtualname__ = "kvm_clone"


def __virtual__():
    # Also where libvirt is missing: each function then says what it lacks.
    return __virtualname__


def _host(url=None):
    return this_host.local_host(__opts__["id"], url)


@entrypoints.module_function
def gc(name=None, apply=False, force=False, url=None):
    """
    List what interrupted creates and destroys left on this host; with
    ``apply``, remove it.

    Only what is on record, and only where the process that made it is
    gone. Rows of the kind ``kept`` say what stays, and why.

    name
        Only this clone.
    force
        With ``name``: also where that process ran on another machine.

    CLI Example::

        salt kvm01 kvm_clone.gc
        salt kvm01 kvm_clone.gc apply=True
    """
    entrypoints.switches(apply=apply, force=force)
    only = check(name) if name is not None else ""
    return [item.as_dict() for item in collect(_host(url), only, apply, force)]


@entrypoints.module_function
def tree(url=None):
    """
    Return the bases on this host, the clones that stand on them, their
    disks and what changed.

    CLI Example: ``salt kvm01 kvm_clone.tree``
    """
    return _host(url).tree()


@entrypoints.module_function
def doctor(url=None):
    """
    Return what is wrong on this host, worst first, each with the next
    command to type. A healthy host answers with an empty list.

    CLI Example: ``salt kvm01 kvm_clone.doctor``
    """
    return this_host.doctor(progress.catalogue(__opts__, __pillar__), __opts__["id"], url)


@entrypoints.module_function
def adopt(name, base_domain=None, url=None):
    """
    Make a clone of Salt's old libvirt driver ("Cloned from BASE") one
    of ours. Only disks that are its own beyond doubt will be deleted
    with it.

    base_domain
        Its base, where the description does not say so.

    CLI Example: ``salt kvm01 kvm_clone.adopt oldclone``
    """
    return _host(url).adopt(check(name), base_domain or "").as_dict()


@entrypoints.module_function
def unprotect(base_domain, url=None):
    """
    Make the disks of a base writable again that ``protect: true`` made
    read-only; refused while quick clones are based on them.

    CLI Example: ``salt kvm01 kvm_clone.unprotect debian12``
    """
    return _host(url).unprotect(base_domain)


# --- for the mine and the schedule


@entrypoints.module_function
def published(url=DEFAULT_URL):
    """
    Return what placement and other states need of this host: clones
    with their addresses, free memory, pools. For ``mine_functions``.

    CLI Example: ``salt kvm01 kvm_clone.published``
    """
    return _host(url).published()


@entrypoints.module_function
def published_addresses(profile=None, tag=None, url=DEFAULT_URL):
    """
    Return the addresses of the clones that run here, by name. For
    ``mine_functions``.

    profile
        Only clones of this profile.
    tag
        Only clones with this tag.

    CLI Example: ``salt kvm01 kvm_clone.published_addresses tag=web``
    """
    return _host(url).published_addresses(profile or "", tag or "")


@entrypoints.module_function
def ring_expired(url=DEFAULT_URL):
    """
    Ring ``kvm_clone/expired`` where the ``ttl`` of a clone here has
    passed; the master then looks for itself. For the ``schedule:``.

    CLI Example: ``salt kvm01 kvm_clone.ring_expired``
    """
    over = _host(url).expired()
    if over:
        __salt__["event.send"]("kvm_clone/expired", {"clones": over})
    return over


# --- for kvm_clone itself: its beacon, and the master


@entrypoints.module_function
def news(url=DEFAULT_URL, ignore_shutdown=False):
    """
    Serve kvm_clone, not people: return what is new to its beacon.

    That is which clones stopped since it last asked, and whose base
    changed.

    ignore_shutdown
        A guest that was shut down in the ordinary way is no news.

    CLI Example: ``salt kvm01 kvm_clone.news``
    """
    return beacon.news(__opts__, url, ignore_shutdown)


@entrypoints.module_function
def remote(operation, arguments, url=DEFAULT_URL, challenge=None):
    """
    Serve kvm_clone, not people: do one operation for the master, or
    several side by side.

    Errors are answered as data, to ``salt-run kvmclone.…``.

    CLI Example: ``salt kvm01 kvm_clone.remote list_clones '{}'``
    """

    fire = __salt__["event.fire_master"]
    answer, failed = remote_server.answer(__opts__, operation, arguments, url, challenge, fire)
    if failed:
        __context__["retcode"] = 1
    return answer


@entrypoints.module_function
def working(jid, challenge=None):
    """
    Serve kvm_clone, not people: return whether a job still runs.

    The master asks this while it waits for the answer of that job.

    CLI Example: ``salt kvm01 kvm_clone.working 20261125101112131415``
    """
    works = remote_server.working(__opts__, str(jid))
    return signed_answers.answer(__opts__, "kvm_clone.working", challenge, works)
