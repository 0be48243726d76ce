"""
Clone KVM machines and make them minions
========================================

The master's runner: it clones by profile, enrols the clone as a minion and says ``ready``
only after ``test.version`` answered from that machine. A door: every function is one call
into ``saltext.kvmclone``.

Every answer carries ``retcode``; on a failure it is 1, ``salt-run`` exits non-zero, and
the name that failed carries ``error: {type, message, hint}``.

:depends: lxml; libvirt-python only where a provider has no ``host:``
"""

from __future__ import annotations

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import doors
from saltext.kvmclone.errors import ConfigError

try:
    from saltext.kvmclone import master

    MISSING = ""
except ImportError as error:
    MISSING = doors.missing(error)

__virtualname__ = "kvmclone"

__func_alias__ = {"list_": "list"}


@doors.runner_function
def create(profile, *names, name=None, **overrides):
    """
    Clone machines by profile and enrol them as minions.

    profile
        Name of the profile.
    names
        One name or several; each becomes a domain and a minion id. As keywords:
        ``name=web1`` or ``names=[web1, web2]``.
    overrides
        Any profile key (``clone_strategy=full``, ``cpus=2`` …). Secrets are refused here.

    Answers ``{"clones": {NAME: CLONE}, "retcode"}``.

    CLI Example:

    .. code-block:: bash

        salt-run kvmclone.create centos7 my-centos7-clone
    """
    wanted = [*names, *(overrides.pop("names", None) or []), *([name] if name else [])]
    return doors.clones(master.Master(__opts__).create(profile, wanted, overrides))


@doors.runner_function
def plan(profile, name, **overrides):
    """
    Show exactly what ``create`` would do; nothing is written.

    Answers ``{"plans": {NAME: PLAN}, "retcode"}``; ``retcode`` is 1 where the plan has
    conflicts.

    CLI Example:

    .. code-block:: bash

        salt-run kvmclone.plan centos7 my-centos7-clone
    """
    answer = master.Master(__opts__).plan(profile, name, overrides)
    failed = "error" in answer or bool(answer["conflicts"])
    return {"plans": {str(name): answer}, "retcode": int(failed)}


@doors.runner_function
def destroy(*names):
    """
    Destroy clones: the domain, its NVRAM, the volumes on its record, and its minion key.

    A domain that is not one of our clones is refused; on its host,
    ``kvm_clone.destroy NAME force=True`` removes its definition and keeps its disks.

    CLI Example:

    .. code-block:: bash

        salt-run kvmclone.destroy my-centos7-clone
    """
    side = master.Master(__opts__)
    return doors.clones(side.destroy(name) for name in _some(names))


@doors.runner_function
def start(*names):
    """
    Start clones; one that runs already stays as it is.

    CLI Example:

    .. code-block:: bash

        salt-run kvmclone.start my-centos7-clone
    """
    side = master.Master(__opts__)
    return doors.clones(side.power(name, "start") for name in _some(names))


@doors.runner_function
def stop(*names):
    """
    Shut clones down; after a minute they are switched off.

    CLI Example:

    .. code-block:: bash

        salt-run kvmclone.stop my-centos7-clone
    """
    side = master.Master(__opts__)
    return doors.clones(side.power(name, "stop") for name in _some(names))


@doors.runner_function
def reboot(*names):
    """
    Reboot clones; one that is off is started.

    CLI Example:

    .. code-block:: bash

        salt-run kvmclone.reboot my-centos7-clone
    """
    side = master.Master(__opts__)
    return doors.clones(side.power(name, "reboot") for name in _some(names))


@doors.runner_function
def show(*names):
    """
    Clones as they are now.

    CLI Example:

    .. code-block:: bash

        salt-run kvmclone.show my-centos7-clone
    """
    side = master.Master(__opts__)
    return doors.clones(side.show(name) for name in _some(names))


@doors.runner_function
def list_():
    """
    Every clone of every configured host. A host that does not answer is named under
    ``unreachable`` and makes ``retcode`` 1; the others are listed all the same.

    CLI Example:

    .. code-block:: bash

        salt-run kvmclone.list
        salt-run kvmclone.list --out=json
    """
    return master.Master(__opts__).listing()


@doors.runner_function
def profiles():
    """
    The profiles and providers of this master, checked, without their secrets.

    CLI Example:

    .. code-block:: bash

        salt-run kvmclone.profiles
    """
    return {**master.Master(__opts__).catalogue.describe(), "retcode": 0}


def _some(names):
    """The names given; none at all is a mistake worth a word."""
    if not names:
        raise ConfigError("No name was given.", "See what there is: salt-run kvmclone.list")
    return names
