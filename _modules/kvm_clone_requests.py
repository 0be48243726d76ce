"""
Ask the master for machines
===========================

The part of the execution module ``kvm_clone`` with which a minion, any minion, asks the master's
reactor for a machine, and gives one back; see ``reactor/README.md``.
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
def ask(name, profile, **keys):
    """
    Ask the master for a machine. The request waits here until the master fetches it; what
    its policy does not allow is refused. On any minion.

    keys
        ``cpus``, ``memory`` and ``ttl``, as far as the policy allows them.

    Answers with the token of the request; see ``kvm_clone.asked`` for what came of it.

    CLI Example: ``salt-call kvm_clone.ask ci01-build7 ci-runner ttl=2h``
    """
    token = request_spool.RequestSpool(__opts__).ask("request", check(name), profile, keys)
    _ring("kvm_clone/request", {"name": name})
    return token


@entrypoints.module_function
def release(name):
    """
    Give a machine back: one that this minion asked for, or itself. It is destroyed.

    CLI Example: ``salt-call kvm_clone.release ci01-build7``
    """
    token = request_spool.RequestSpool(__opts__).ask("release", check(name))
    _ring("kvm_clone/release", {"name": name})
    return token


@entrypoints.module_function
def asked():
    """
    Return what this minion asked for, and what the master said to it.

    CLI Example: ``salt-call kvm_clone.asked``
    """
    return request_spool.RequestSpool(__opts__).all()


@entrypoints.module_function
def pending(challenge=None):
    """
    Return what this minion asks for and the master has not answered. The master calls it when a
    bell rang.

    challenge
        Given by the master, so that nobody else can answer in this minion's name.

    CLI Example: ``salt ci01 kvm_clone.pending``
    """
    waiting = request_spool.RequestSpool(__opts__).pending()
    return signed_answers.answer(__opts__, "kvm_clone.pending", challenge, waiting)


@entrypoints.module_function
def told(answers):
    """
    Note what the master said to requests of this minion. The master calls it.

    CLI Example: ``salt ci01 kvm_clone.told '{}'``
    """
    return request_spool.RequestSpool(__opts__).told(answers)
