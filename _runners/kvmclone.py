"""
Clone KVM machines and make them minions
========================================

Clone by profile, enrol the clone, and say ``ready`` only after its
``test.version`` answered.

Every answer carries ``retcode``; on a failure it is 1, ``salt-run``
exits non-zero, and the name that failed carries ``error: {type,
message, hint}``.

The files ``kvmclone_*.py`` beside this one have the rest of it, under
the same name ``kvmclone``.

:depends: lxml; libvirt-python only where a provider has no ``host:``
"""

from __future__ import annotations

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import entrypoints

try:
    from saltext.kvmclone.master import (
        clone_list,
        fleet,
        fleet_doctor,
        fleet_report,
        host_list,
        profile_list,
    )
    from saltext.kvmclone.model.names import check
    from saltext.kvmclone.reactor import intake

    MISSING = ""
except ImportError as error:
    MISSING = entrypoints.missing(error)

__virtualname__ = "kvmclone"
__virtual_aliases__ = ("kvm_clone",)  # which people type as well; Salt would answer exit code 0

__func_alias__ = {"list_": "list", "map_": "map"}


def _fleet():
    return fleet.Fleet(__opts__, intake.expect_highstate)


@entrypoints.runner_function
def create(profile, *names, name=None, **overrides):
    """
    Clone machines by profile and enrol them as minions.

    profile
        Name of the profile.
    names
        One name or several; each becomes a domain and a minion id.
        ``'web[01-20]'`` is twenty. As keywords: ``name=web1`` or
        ``names=[web1, web2]``.
    overrides
        Any profile key (``clone_strategy=full``, ``cpus=2`` …). Secrets
        are refused here.

    Answers ``{"clones": {NAME: CLONE}, "retcode"}``.

    CLI Example: ``salt-run kvmclone.create centos7 my-centos7-clone``
    """
    wanted = entrypoints.names_given(names, overrides.pop("names", None), name)
    return entrypoints.clones(_fleet().create(profile, wanted, overrides))


@entrypoints.runner_function
def map_(file):
    """
    Make the machines of a salt-cloud map that do not exist yet, and
    enrol them. Nothing is made while anything in the map is wrong.

    file
        A path; a bare name lies in ``cloud.maps.d``. Below each profile
        a list of names, or of ``NAME: {KEY: VALUE}`` with keys that
        override the profile's. ``web[01-20]`` is twenty names.

    CLI Example: ``salt-run kvmclone.map web.map``
    """
    return entrypoints.clones(_fleet().map(file))


@entrypoints.runner_function
def plan(profile, name, *, xml=False, **overrides):
    """
    Show exactly what ``create`` would do; nothing is written.

    xml
        A terminal shows the clone's definition as well.

    Answers ``{"plans": {NAME: PLAN}, "retcode"}``; ``retcode`` is 1
    where the plan has conflicts.

    CLI Example: ``salt-run kvmclone.plan centos7 my-centos7-clone``
    """
    entrypoints.switches(xml=xml)
    answer = _fleet().plan(profile, name, overrides)
    failed = "error" in answer or bool(answer["conflicts"])
    return {"plans": {str(name): answer}, "retcode": int(failed)}


@entrypoints.runner_function
def resume(*names, name=None):
    """
    Go on with creates that failed and were kept (``on_failure:
    keep|stop``), or that were interrupted, where they stopped. The
    profile is read again, so correct it first.

    CLI Example: ``salt-run kvmclone.resume my-centos7-clone``
    """
    return entrypoints.each_clone(names, name, _fleet().resume)


@entrypoints.runner_function
def show(*names, name=None):
    """
    Return clones as they are now.

    CLI Example: ``salt-run kvmclone.show my-centos7-clone``
    """
    return entrypoints.each_clone(names, name, _fleet().show)


@entrypoints.runner_function
def list_(
    *,
    columns=None,
    sort=None,
    host=None,
    base=None,
    profile=None,
    tag=None,
    state=None,
    spare=None,
    claimed=None,
):
    """
    Return every clone of every configured host. A host that does not
    answer is named under ``unreachable`` and makes ``retcode`` 1, as is
    a provider that cannot be read; the others are listed all the same.
    A name that two hosts have stands there again as ``NAME (HOST)``.

    columns
        What a terminal shows: some of ``name``, ``host``, ``state``,
        ``stage``, ``address``, ``base``, ``age``, ``ttl``,
        ``claimed``, ``!``, ``profile``, ``strategy``, ``minion``,
        ``version``, ``tags``, ``uuid``.
    sort
        One of these.
    host, base, profile, tag, state
        Only such clones.
    spare
        Only the spares in stock; ``False`` leaves these out.
    claimed
        Only those that were spares and that somebody has claimed;
        ``False`` leaves these out.

    CLI Example::

        salt-run kvmclone.list state=running sort=age
        salt-run kvmclone.list --out=json
    """
    only = {"host": host, "base": base, "profile": profile, "tag": tag, "state": state}
    only |= {"spare": spare, "claimed": claimed}
    return _fleet().listing(clone_list.selection(columns, sort, only))


@entrypoints.runner_function
def hosts(profile=None):
    """
    List every configured host: ``reachable``, and if so its
    ``libvirt``, ``cpus``, ``memory``, ``pools`` (bytes), how many
    ``clones`` it has and how many of these are ``spares`` in stock,
    what is ``promised`` to them and to guests that run, and
    ``maintenance``; otherwise the ``error``, and ``retcode``
    1. One daemon under several names is one host; ``also`` has the
    others.

    profile
        Of each host also whether the next clone of this profile would
        go there (``chosen``), and the ``reason``.

    CLI Example::

        salt-run kvmclone.hosts
        salt-run kvmclone.hosts web
    """
    return host_list.listing(_fleet(), profile or "")


@entrypoints.runner_function
def gc(name=None, apply=False, force=False):
    """
    List what interrupted creates and destroys left on the configured
    hosts, and keys of minions that never came to be; with ``apply``,
    remove it.

    Only what is on record, and only where the process that made it is
    gone. Rows of the kind ``kept`` say what stays, and why. While a
    host cannot be asked, or a provider cannot be read, nothing is
    removed.

    name
        Only this clone.
    force
        With ``name``: also where that process ran on another machine,
        so that nobody here can tell whether it still runs.

    Answers ``{"leftovers": [{"name", "kind", "path", "reason",
    "removed"}], "retcode"}``.

    CLI Example::

        salt-run kvmclone.gc
        salt-run kvmclone.gc apply=True
    """
    entrypoints.switches(apply=apply, force=force)
    only = check(name) if name is not None else ""
    return _fleet().gc(only, apply, force)


@entrypoints.runner_function
def tree():
    """
    Show the bases of every configured host with the clones made from
    them: disks, backing files, sizes, and whether a base changed since.
    A terminal shows it drawn.

    Answers ``{"bases": {BASE: {"clones", "disks", "drift"}},
    "retcode"}``.

    CLI Example::

        salt-run kvmclone.tree
        salt-run kvmclone.tree --out=json
    """
    return _fleet().tree()


@entrypoints.runner_function
def doctor():
    """
    List what is wrong on the master and the configured hosts, worst
    first, each with the next command to type, and which version of
    what works where. It exits with 2 where data is in danger, with 3
    where a host could not be looked at, with 1 where anything else is
    wrong, and otherwise with 0.

    CLI Example: ``salt-run kvmclone.doctor``
    """
    return fleet_doctor.examine(_fleet(), intake.findings(__opts__))


@entrypoints.runner_function
def report(file):
    """
    Write what there is and what is wrong as one HTML page: problems
    with their commands, hosts, bases, clones, lineage, times. It needs
    no other file and no network.

    file
        Its path, in a folder that is there. A file that is there is
        overwritten only if it is such a page. The user of the master
        alone may read it.

    Answers ``{"report": PATH, "retcode"}``; ``retcode`` is 1 where
    something did not answer, which the page names, too.

    CLI Example: ``salt-run kvmclone.report /srv/fleet.html``
    """
    return fleet_report.write(_fleet(), file, intake.findings(__opts__))


@entrypoints.runner_function
def profiles():
    """
    Return the profiles and providers of this master, checked, without
    their secrets. Under ``problems`` all that is wrong, with file and
    line; then ``retcode`` is 1. A section with problems is refused
    where it is used, and whatever does not use it works.

    CLI Example: ``salt-run kvmclone.profiles``
    """
    return profile_list.listing(__opts__, _fleet().catalogue)
