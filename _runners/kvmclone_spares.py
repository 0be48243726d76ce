"""
Take clones that are finished already
=====================================

The part of the runner ``kvmclone`` that is about spares: clones that a
profile with ``spares:`` keeps at ``ready``, to be claimed. See
``docs/spares.md``.

:depends: lxml; libvirt-python only where a provider has no ``host:``
"""

from __future__ import annotations

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import entrypoints

try:
    from saltext.kvmclone.master import fleet, spares_claim, spares_overview
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
def claim(profile, *, count=1, ttl=None, tag=None, wait=True):
    """
    Claim spares: clones of a profile that are finished already.

    Each is taken out of the profile's stock, and asked for
    ``test.version`` once more before this answers.

    count
        How many machines, at most 100. Those that are not in stock are
        made, which takes as long as ``create``.
    ttl
        How long they are wanted, for example ``8h``. The worker
        (``work_off``) destroys them at its end. By default the
        profile's ``ttl``; one of the two is needed.
    tag
        A word, or a list of words, recorded with each.
    wait
        ``False`` makes none: where the stock has too few, nothing is
        claimed, and the error is ``NoSpare``.

    Answers ``{"clones": {NAME: CLONE}, "retcode"}``; each CLONE has
    ``claimed: {by, at}``. Where fewer than ``count`` were claimed,
    ``error`` says why.

    CLI Example::

        salt-run kvmclone.claim ci-runner ttl=2h
        salt-run kvmclone.claim ci-runner count=3 wait=False
    """
    entrypoints.switches(wait=wait)
    wanted = spares_claim.read(profile, count, ttl, tag, wait)
    claimed = spares_claim.claim(_fleet(), wanted, intake.refill)
    return claimed.completed(entrypoints.clones(claimed.outcomes))


@entrypoints.runner_function
def release(*names, name=None, yes=False):
    """
    Destroy machines that were claimed; none goes back into the stock.

    A machine that was never claimed is refused: ``destroy`` is for
    those.

    names
        Names and ranges.
    yes
        Answer the question before more than ten machines.

    CLI Example: ``salt-run kvmclone.release ci-4f0a2b``
    """
    entrypoints.switches(yes=yes)
    given = entrypoints.names_given(names, name=name)
    chosen, outcomes = spares_claim.release(_fleet(), given, yes)
    return chosen.completed(entrypoints.clones(outcomes))


@entrypoints.runner_function
def spares(profile=None):
    """
    Return the stock of each profile, and who has the claimed machines.

    profile
        Return only the stock of this profile.

    Answers ``{"spares": {PROFILE: {"wanted", "stock", "making",
    "claimed", "failed", "unusable"}}, "refilled", "retcode"}``.

    CLI Example::

        salt-run kvmclone.spares
        salt-run kvmclone.spares ci-runner --out=json
    """
    return spares_overview.overview(_fleet(), profile or "")
