"""
Make machines that minions ask for
==================================

The part of the runner ``kvmclone`` that is about requests by event; see
``reactor/README.md``.

:depends: lxml
"""

from __future__ import annotations

import functools

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import entrypoints

try:
    from saltext.kvmclone.reactor import intake, worker
    from saltext.kvmclone.reactor.request_store import RequestStore

    MISSING = ""
except ImportError as error:
    MISSING = entrypoints.missing(error)

__virtualname__ = "kvmclone"

__virtual_aliases__ = ("kvm_clone",)  # see kvmclone.py


def __virtual__():
    # Also where a package is missing: each function then says what it lacks.
    return __virtualname__


@entrypoints.runner_function
def asked():
    """
    Return what minions asked for by event, and what came of it.

    Each is ``queued``, ``making``, ``made``, ``failed``, ``refused`` or
    ``gone``.

    CLI Example: ``salt-run kvmclone.asked``
    """
    return RequestStore(__opts__).asked()


@functools.partial(entrypoints.runner_function, guarded=False)  # the next worker goes on with it
def work_off():
    """
    Make what minions asked for by event, and refill the stock of
    spares, until nothing is left.

    An event and a claim start this by themselves. Called by hand, or by
    the master's ``schedule:``, it goes on after the master's machine
    went down, finds machines that were destroyed without an event, and
    replaces spares that are of no use any more.

    Answers ``{"done": NUMBER}``, or ``{"busy": true}`` where another
    process is at it. Where the policy for events is wrong, ``error``
    says so, with ``retcode`` 1, and requests wait.

    CLI Example: ``salt-run kvmclone.work_off``
    """
    return worker.work_off(__opts__)


# --- for kvm_clone itself: the reactor


@entrypoints.runner_function
def answer_doorbell(bell, who):
    """
    Serve kvm_clone, not people: note that a minion sent an event.

    The reactor calls this. Nothing of the event is obeyed; the minion
    is asked what it wants, which is checked against ``kvm_clone:
    reactor:`` in the master's configuration. A refusal is logged, and
    told as the event ``salt/kvm_clone/refused``.

    bell
        ``request``, ``release``, ``expired``, ``start`` or
        ``destroyed``.
    who
        The minion that is said to have sent it; for ``destroyed`` the
        clone's name.

    CLI Example: ``salt-run kvmclone.answer_doorbell request ci01``
    """
    return intake.answer(__opts__, bell, who)
