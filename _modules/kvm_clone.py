"""
Clone KVM machines on this host
===============================

The execution module on a KVM host: every function is one call into ``saltext.kvmclone``.
A create ends at ``addressed`` here; enrolling is the runner's (``salt-run kvmclone.create``).

:depends: libvirt-python, lxml; paramiko >= 3.2 to reach guests over ssh
"""

from __future__ import annotations

import sys

import salt.utils.args
from salt.exceptions import CommandExecutionError

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import entrypoints, interrupts
from saltext.kvmclone.errors import Interrupted, KvmCloneError
from saltext.kvmclone.model.hints import AT_HOST, Commands
from saltext.kvmclone.model.names import check
from saltext.kvmclone.model.request import DEFAULT_URL
from saltext.kvmclone.reactor import request_spool
from saltext.kvmclone.system import signed_answers

try:
    from saltext.kvmclone.config import cloud_files, validate
    from saltext.kvmclone.hosts import beacon, provision, remote_server, reports
    from saltext.kvmclone.hosts import gc as collect
    from saltext.kvmclone.hosts.local import LocalHost
    from saltext.kvmclone.hypervisor.connection import available
    from saltext.kvmclone.inventory import findings
    from saltext.kvmclone.master import enrolment, progress

    MISSING = "" if available() else entrypoints.missing_package("libvirt-python")
except ImportError as error:
    MISSING = entrypoints.missing(error)

__virtualname__ = "kvm_clone"


def __virtual__():
    # Also where libvirt is missing: any minion may ask for machines. The rest says what it lacks.
    return __virtualname__


def _request(name, profile, keys):
    """The request that arguments, pillar and this host's cloud files describe."""
    keys = salt.utils.args.clean_kwargs(**keys)
    if profile:
        keys["profile"] = profile
    return _catalogue().resolve_here(name, keys, __opts__["id"])


def _catalogue():
    """What is configured for this host; of what is wrong with parts of it a warning is given."""
    found = cloud_files.read(__opts__, __pillar__)
    progress.configuration(found.problems.found)
    return found


def _warned(answer):
    """The answer, with a warning where other parts of the configuration are wrong."""
    elsewhere = _catalogue().problems.elsewhere("salt-call kvm_clone.doctor")
    return {**answer, "warnings": [*answer["warnings"], *elsewhere]}


def _host(url=None):
    return LocalHost(url or DEFAULT_URL, __opts__["id"], AT_HOST)


def _guarded(work, name, what, url=None):
    """
    The same for work that a Ctrl-C or SIGTERM must not end in the middle, see interrupts; ``what``
    is its name in a sentence, and empty where it sees to that itself.
    """

    def guarded():
        try:
            with interrupts.guard(interrupts.AT_HOST):
                if not what:
                    return work()
                where = Commands(url or DEFAULT_URL, AT_HOST).where()
                with interrupts.work(str(name), what, deferred=False, where=where):
                    return work()
        except interrupts.Interrupt:
            raise Interrupted(
                f"What was asked for '{name}' was interrupted; it may be half done.",
                "Repeat the command.",
            ) from None

    return _answered(guarded)


def _answered(work):
    """One library call on a KVM host; its refusal or failure becomes the failure of the job."""
    if MISSING:
        raise CommandExecutionError(MISSING)
    return _anywhere(work)


def _anywhere(work):
    """The same on any minion."""
    try:
        return work()
    except Interrupted as error:
        if __opts__.get("__cli") == "salt-call":
            # Salt itself would make it exit code 1.
            sys.stderr.write(f"{error}\n")
            sys.exit(interrupts.EXIT_CODE)
        raise CommandExecutionError(str(error)) from error
    except KvmCloneError as error:
        raise CommandExecutionError(str(error)) from error


def plan(name, profile=None, **keys):
    """
    Show exactly what ``create`` would do; nothing is written.

    Takes what ``create`` takes. Answers with PLAN: the fate of each disk, the changes, and
    every conflict.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.plan web1 base_domain=debian12 clone_strategy=quick
    """

    def work():
        request, _secrets = _request(name, profile, keys)
        return _warned(_host(request.url).plan(request))

    return _answered(work)


def create(name, profile=None, start=True, **keys):
    """
    Clone a machine on this host.

    profile
        Name of a profile in this host's cloud files or pillar.
    start
        False leaves the clone off, at ``cloned``.
    keys
        Any profile key; overrides the profile's.

    Answers with CLONE. A failure leaves nothing behind, unless ``on_failure`` says otherwise.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.create web1 profile=centos7
        salt kvm01 kvm_clone.create web1 base_domain=debian12 clone_strategy=quick start=False
    """

    def work():
        entrypoints.switches(start=start)
        request, secrets = _request(name, profile, keys)
        outcome = provision.create(_host(request.url), request, secrets, start=start)
        if outcome.error is not None:
            raise outcome.error
        return _warned(outcome.as_dict())

    return _guarded(work, name, "")


def adjust(name, profile=None, test=False, **keys):
    """
    Make a clone that is there what its profile and the given keys ask for: cpus, memory,
    disk sizes (never smaller), description, tags, autostart, and ``ttl``, which counts from
    its making. What waits for its next start, of this or an earlier change, is said every time.

    profile
        Name of a profile in this host's cloud files or pillar. Without one, and without
        ``base_domain``, only the given keys are asked for.
    test
        Only look. Answers ``{"changes": {KEY: {old, new}}, "refused": […], "notes": […],
        "pending": {KEY: {old, new}}}``; where anything is refused, nothing is changed.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.adjust web1 memory=2GiB test=True
    """

    def work():
        entrypoints.switches(test=test)
        wished = keys
        if not profile and "base_domain" not in keys:
            wished = {**_host(keys.get("url")).show(check(name)).origin, **keys}
        request, _secrets = _request(name, profile, wished)
        return _host(request.url).adjust(request, dry=test).as_dict()

    return _answered(work)


def bootstrap(name, profile=None, url=None, **keys):
    """
    Put a minion into a clone that runs, without the master's help: its key pair is made here,
    and waits on the master to be accepted. ``salt-run kvmclone.create`` does all of it.

    profile
        Name of a profile in this host's cloud files or pillar; default: the clone's own.
    keys
        Any profile key; ``minion: {master: …}`` must be among them or in the profile.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.bootstrap web1 minion='{master: 192.168.16.1}'
    """

    def work():
        here = _host(url)
        given = salt.utils.args.clean_kwargs(**keys)
        request, enrolled = enrolment.on_this_host(
            __opts__,
            _catalogue(),
            here.show(check(name)),
            profile or "",
            given,
        )
        return here.bootstrap_alone(request, enrolled).as_dict()

    return _answered(work)


def resume(name, url=None):
    """
    Go on with a create that failed and was kept (``on_failure: keep|stop``), or that was
    interrupted, where it stopped. The profile is read again: mend it first.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.resume web1
    """

    def work():
        def resolve(item):
            return _request(name, item.profile, item.overrides)

        outcome = provision.resume(_host(url), check(name), resolve)
        if outcome.error is not None:
            raise outcome.error
        return outcome.as_dict()

    return _guarded(work, name, "")


def destroy(name, force=False, url=None, test=False):
    """
    Destroy a clone, with its NVRAM and only those volumes that its record lists.

    force
        Remove a domain that is not one of our clones too: its definition, none of its files. Of
        a clone: also where some of its files are out of reach, or where snapshots of its own
        stand on its disks; both then stay.
    test
        Only say whether it would be refused, and what would stay (as ``warnings``).

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.destroy web1
    """

    def work():
        entrypoints.switches(force=force, test=test)
        return _host(url).destroy(check(name), force, dry=test).as_dict()

    return _guarded(work, name, "the destroy", url)


def start(name, url=None):
    """
    Start a clone; one that runs already stays as it is.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.start web1
    """
    return _answered(lambda: _host(url).power(check(name), "start").as_dict())


def stop(name, url=None):
    """
    Shut a clone down; after a minute, switch it off.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.stop web1
    """
    return _answered(lambda: _host(url).power(check(name), "stop").as_dict())


def reboot(name, url=None):
    """
    Reboot a clone, or start one that is off. What waits for the next start
    (``kvm_clone.pending_changes``) a reboot does not bring; the answer's ``warnings`` say so.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.reboot web1
    """
    return _answered(lambda: _host(url).power(check(name), "reboot").as_dict())


def show(name, url=None):
    """
    One clone as it is now (CLONE).

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.show web1
    """
    return _answered(lambda: _host(url).show(check(name)).as_dict())


def list_clones(url=None):
    """
    Every clone on this host (a list of CLONE); foreign domains are not listed.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.list_clones
    """
    return _answered(lambda: [clone.as_dict() for clone in _host(url).list_clones()])


def addresses(name, url=None):
    """
    The addresses that a running clone has now, best first.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.addresses web1
    """
    return _answered(lambda: _host(url).show(check(name)).as_dict()["addresses"])


def pending_changes(name, url=None):
    """
    What waits for the next start of a running clone: cpus and memory that were changed since it was
    started, as ``{"changes": {KEY: {old, new}}, "note": SENTENCE}``. A reboot does not bring it.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.pending_changes web1
    """
    return _answered(lambda: _host(url).pending_changes(check(name)))


def exists(name, url=None):
    """
    Whether a domain of that name exists, a clone of ours or not.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.exists web1
    """
    return _answered(lambda: _host(url).exists(check(name)))


def wait_for_address(name, timeout=600, ip_source=None, url=None):
    """
    Wait until a running clone has an address, and answer with it.

    timeout
        Hard deadline in seconds.
    ip_source
        ``ip-learning``, ``qemu-agent``, ``arp``, ``reserve`` or ``auto``; default: as it was
        created.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.wait_for_address web1 timeout=60
    """

    def work():
        seconds = validate.argument("timeout", timeout, key="wait_for_ip_timeout")
        source = validate.argument("ip_source", ip_source) if ip_source else ""
        return _host(url).address_of(check(name), seconds, source)

    return _answered(work)


def gc(name=None, apply=False, force=False, url=None):
    """
    List what interrupted creates and destroys left on this host; with ``apply``, remove it.

    Only what is on record, and only where the process that made it is gone. Rows of the kind
    ``kept`` say what stays, and why.

    name
        Only this clone.
    force
        With ``name``: also where that process ran on another machine.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.gc
        salt kvm01 kvm_clone.gc apply=True
    """

    def work():
        entrypoints.switches(apply=apply, force=force)
        only = check(name) if name is not None else ""
        return [item.as_dict() for item in collect.collect(_host(url), only, apply, force)]

    return _answered(work)


def tree(url=None):
    """
    The bases on this host, the clones that stand on them, their disks and what changed.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.tree
    """
    return _answered(lambda: _host(url).tree())


def doctor(url=None):
    """
    What is not as it should be on this host, worst first, each with the next command to
    type. A healthy host answers with an empty list.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.doctor
    """

    def work():
        own = findings.of_configuration(_catalogue().problems, "salt-call kvm_clone.doctor")
        return [*_host(url).doctor(), *(finding.as_dict() for finding in own)]

    return _answered(work)


def adopt(name, base_domain=None, url=None):
    """
    Make a clone of Salt's old libvirt driver ("Cloned from BASE") one of ours. Only disks
    that are its own beyond doubt will be deleted with it.

    base_domain
        Its base, where the description does not say so.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.adopt oldclone
    """
    return _answered(lambda: _host(url).adopt(check(name), base_domain or "").as_dict())


def unprotect(base_domain, url=None):
    """
    Make the disks of a base writable again that ``protect: true`` made read-only; refused
    while quick clones are based on them.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.unprotect debian12
    """
    return _answered(lambda: _host(url).unprotect(base_domain))


def remote(operation, arguments, url=DEFAULT_URL, challenge=None):
    """
    Serve ``salt-run kvmclone.…`` on the master: one operation, its errors as data.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.remote list_clones '{}'
    """
    answer = _answered(lambda: remote_server.serve(__opts__, operation, arguments, url))
    if "error" in answer:
        __context__["retcode"] = 1
    return _answered(lambda: signed_answers.answer(__opts__, "kvm_clone.remote", challenge, answer))


def working(jid, challenge=None):
    """
    Whether this minion still works on a job; the master asks while it waits for an answer.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.working 20261125101112131415
    """
    return _answered(
        lambda: signed_answers.answer(
            __opts__, "kvm_clone.working", challenge, remote_server.working(__opts__, str(jid))
        )
    )


# --- asking the master's reactor, see reactor/README.md


def ask(name, profile, **keys):
    """
    Ask the master for a machine. The request waits here until the master fetches it; what
    its policy does not allow is refused. On any minion.

    keys
        ``cpus``, ``memory`` and ``ttl``, as far as the policy allows them.

    Answers with the token of the request; see ``kvm_clone.asked`` for what came of it.

    CLI Example:

    .. code-block:: bash

        salt-call kvm_clone.ask ci01-build7 ci-runner ttl=2h
    """

    def work():
        keys_given = salt.utils.args.clean_kwargs(**keys)
        return request_spool.RequestSpool(__opts__).ask("request", check(name), profile, keys_given)

    token = _anywhere(work)
    _ring("kvm_clone/request", {"name": name})
    return token


def release(name):
    """
    Give a machine back: one that this minion asked for, or itself. It is destroyed.

    CLI Example:

    .. code-block:: bash

        salt-call kvm_clone.release ci01-build7
    """
    token = _anywhere(lambda: request_spool.RequestSpool(__opts__).ask("release", check(name)))
    _ring("kvm_clone/release", {"name": name})
    return token


def _ring(tag, data):
    if not __salt__["event.send"](tag, data):
        raise CommandExecutionError(
            "The master did not hear it; the request waits here for a day. Ring again when the "
            f"master is back: salt-call event.send {tag}"
        )


def asked():
    """
    What this minion asked for, and what the master said to it.

    CLI Example:

    .. code-block:: bash

        salt-call kvm_clone.asked
    """
    return _anywhere(lambda: request_spool.RequestSpool(__opts__).all())


def pending(challenge=None):
    """
    What this minion asks for and the master has not answered. The master calls it when a bell
    rang.

    challenge
        Given by the master, so that nobody else can answer in this minion's name.

    CLI Example:

    .. code-block:: bash

        salt ci01 kvm_clone.pending
    """
    return _anywhere(
        lambda: signed_answers.answer(
            __opts__, "kvm_clone.pending", challenge, request_spool.RequestSpool(__opts__).pending()
        )
    )


def told(answers):
    """
    Note what the master said to requests of this minion. The master calls it.

    CLI Example:

    .. code-block:: bash

        salt ci01 kvm_clone.told '{}'
    """
    return _anywhere(lambda: request_spool.RequestSpool(__opts__).told(answers))


# --- for the mine, and for the schedule


def published(url=DEFAULT_URL):
    """
    What placement and other states need of this host: clones with their addresses, free
    memory, pools. For ``mine_functions``.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.published
    """
    return _answered(lambda: reports.published(url, __opts__["id"]))


def published_addresses(profile=None, tag=None, url=DEFAULT_URL):
    """
    The addresses of the clones that run here, by name. For ``mine_functions``.

    profile
        Only clones of this profile.
    tag
        Only clones with this tag.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.published_addresses tag=web
    """
    return _answered(lambda: reports.addresses(url, profile or "", tag or ""))


def ring_expired(url=DEFAULT_URL):
    """
    Ring ``kvm_clone/expired`` where the ``ttl`` of a clone here has passed; the master then
    looks for itself. For the ``schedule:``.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.ring_expired
    """
    over = _answered(lambda: reports.expired(url))
    if over:
        __salt__["event.send"]("kvm_clone/expired", {"clones": over})
    return over


def news(url=DEFAULT_URL, ignore_shutdown=False):
    """
    What happened to the clones here since this was last asked: which stopped, and whose base
    changed. For the beacon, which asks again and again.

    ignore_shutdown
        A guest that was shut down in the ordinary way is no news.

    CLI Example:

    .. code-block:: bash

        salt kvm01 kvm_clone.news
    """
    return _answered(lambda: beacon.news(__opts__, url, ignore_shutdown))
