"""
Ask the master for machines
===========================

The part of the execution module ``kvm_clone`` with which a minion, any
minion, asks the master's reactor for a machine, and gives one back; see
``reactor/README.md``.
"""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import entrypoints
from saltext.kvmclone.model.names import check
from saltext.kvmclone.reactor import request_spool
from saltext.kvmclone.system import signed_answers

__virtualname__ = "kvm_clone"


def __virtual__():
    return __virtualname__


def _ring(tag, data):
    if not __salt__["event.send"](tag, data):
        raise CommandExecutionError(
            "The master did not receive it; the request is kept here for a day. Send it again "
            f"when the master is back: salt-call event.send {tag}"
        )


@entrypoints.module_function
def ask(name=None, profile=None, **keys):
    """
    Ask the master for a machine, on any minion.

    The request waits here until the master fetches it. What its policy
    does not allow is refused.

    name
        Name of the machine. Without it a spare of the profile is
        claimed, or made where none is in stock; the master names it.
    profile
        Name of the profile.
    keys
        ``cpus``, ``memory`` and ``ttl``, as far as the policy allows
        them: ``ttl=2h``. Of a spare only ``ttl``.

    Answers with the token of the request. What comes of it:
    ``salt-call kvm_clone.asked``

    CLI Example::

        salt-call kvm_clone.ask ci01-build7 ci-runner
        salt-call kvm_clone.ask profile=ci-runner ttl=2h
    """
    token = request_spool.RequestSpool(__opts__).request(name, profile, keys)
    _ring("kvm_clone/request", {"name": name})
    return token


@entrypoints.module_function
def release(name):
    """
    Give a machine back, which the master then destroys.

    name
        A machine that this minion asked for, or its own name.

    Answers with the token of the request. What comes of it:
    ``salt-call kvm_clone.asked``

    CLI Example: ``salt-call kvm_clone.release ci01-build7``
    """
    token = request_spool.RequestSpool(__opts__).ask("release", check(name))
    _ring("kvm_clone/release", {"name": name})
    return token


@entrypoints.module_function
def asked():
    """
    Return what this minion asked for, and what the master said to it.

    A verdict is ``queued``, ``made``, ``failed`` or ``refused``; it
    becomes ``gone`` when the machine is no longer there.

    CLI Example: ``salt-call kvm_clone.asked``
    """
    return request_spool.RequestSpool(__opts__).all()


# --- for kvm_clone itself: the master


@entrypoints.module_function
def pending(challenge=None):
    """
    Serve kvm_clone, not people: return what waits for the master.

    challenge
        Given by the master, so that nobody else can answer in this
        minion's name.

    CLI Example: ``salt ci01 kvm_clone.pending``
    """
    waiting = request_spool.RequestSpool(__opts__).pending()
    return signed_answers.answer(__opts__, "kvm_clone.pending", challenge, waiting)


@entrypoints.module_function
def told(answers):
    """
    Serve kvm_clone, not people: note the master's answers.

    They are to requests of this minion; ``kvm_clone.asked`` shows them.

    CLI Example: ``salt ci01 kvm_clone.told '{}'``
    """
    return request_spool.RequestSpool(__opts__).told(answers)
