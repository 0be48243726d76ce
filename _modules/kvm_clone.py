"""
Clone KVM machines on this host
===============================

The execution module on a KVM host. A create ends at ``addressed`` here;
enrolling is the runner's (``salt-run kvmclone.create``).
The files ``kvm_clone_*.py`` beside this one have the rest of it, under
the same name ``kvm_clone``.

:depends: libvirt-python, lxml; paramiko >= 3.2 to reach guests over ssh
"""

from __future__ import annotations

import functools

import saltext.kvmclone

saltext.kvmclone.refresh()

from saltext.kvmclone import entrypoints, interrupts
from saltext.kvmclone.model.hints import AT_HOST, Commands
from saltext.kvmclone.model.names import check
from saltext.kvmclone.model.request import DEFAULT_URL

try:
    from saltext.kvmclone.config import meant, validate
    from saltext.kvmclone.hosts import provision, this_host
    from saltext.kvmclone.hypervisor.connection import available
    from saltext.kvmclone.master import enrolment, progress

    MISSING = "" if available() else entrypoints.missing_package("libvirt-python")
except ImportError as error:
    MISSING = entrypoints.missing(error)

__virtualname__ = "kvm_clone"


def __virtual__():
    # Also where libvirt is missing: each function then says what it lacks.
    return __virtualname__


def _request(name, profile, keys, verb=""):
    """Return the request, and its secrets, of arguments, pillar and this host's cloud files."""
    if profile:
        keys = {**keys, "profile": profile}
    configured = progress.catalogue(__opts__, __pillar__)
    if verb:
        meant.require_on_host(configured, verb, name, keys)
    return configured.resolve_here(name, keys, __opts__["id"])


def _warned(answer, *remarked):
    """Return the answer, with a warning where other parts of the configuration are wrong."""
    configured = progress.catalogue(__opts__, __pillar__)
    remarks = configured.remarks(*remarked) if remarked else ()
    elsewhere = configured.problems.elsewhere("salt-call kvm_clone.doctor")
    return {**answer, "warnings": [*answer["warnings"], *remarks, *elsewhere]}


def _host(url=None):
    return this_host.local_host(__opts__["id"], url)


@entrypoints.module_function
def plan(name, profile=None, *, xml=False, **keys):
    """
    Show exactly what ``create`` would do; nothing is written.

    Takes what ``create`` takes; answers with PLAN, see docs/answers.md.

    xml
        A terminal shows the clone's definition as well.

    CLI Example: ``salt kvm01 kvm_clone.plan web1 base_domain=debian12``
    """
    entrypoints.switches(xml=xml)
    request, _secrets = _request(name, profile, keys, "plan")
    return _warned(_host(request.url).plan(request), profile, keys)


@functools.partial(entrypoints.module_function, guarded=True)
def create(name, profile=None, start=True, **keys):
    """
    Clone a machine on this host.

    profile
        Name of a profile in this host's cloud files or pillar.
    start
        False leaves the clone off, at ``cloned``.
    keys
        Any profile key; overrides the profile's.

    Answers with CLONE. A failure leaves nothing behind, unless
    ``on_failure`` says otherwise.

    CLI Example::

        salt kvm01 kvm_clone.create web1 profile=centos7 start=False
        salt kvm01 kvm_clone.create web1 base_domain=debian12
    """
    entrypoints.switches(start=start)
    request, secrets = _request(name, profile, keys, "create")
    outcome = provision.create(_host(request.url), request, secrets, start=start)
    return _warned(entrypoints.clone(outcome))


@entrypoints.module_function
def adjust(name, profile=None, *, test=False, **keys):
    """
    Change an existing clone to what its profile and the given keys ask
    for: cpus, memory, disk sizes (never smaller), description, tags,
    autostart, and ``ttl``, counted from its making or claim. What an
    earlier change left for its next start is said every time as well.

    profile
        Name of a profile in this host's cloud files or pillar. Without
        one, and without ``base_domain``, only the given keys are asked
        for.
    test
        Only look. Answers ``{"changes": {KEY: {old, new}}, "refused":
        […], "notes": […], "pending": {KEY: {old, new}}}``; where
        anything is refused, nothing is changed.

    CLI Example::

        salt kvm01 kvm_clone.adjust web1 memory=2GiB test=True
    """
    entrypoints.switches(test=test)
    configured = progress.catalogue(__opts__, __pillar__)
    return this_host.adjust(configured, __opts__["id"], name, profile, keys, test).as_dict()


@entrypoints.module_function
def bootstrap(name, profile=None, url=None, **keys):
    """
    Put a minion into a clone that runs, without the master's help: its
    key pair is made here, and waits on the master to be accepted.
    ``salt-run kvmclone.create`` does all of it.

    profile
        Name of a profile in this host's cloud files or pillar; default:
        the clone's own.
    keys
        Any profile key; ``minion: {master: …}`` must be among them or
        in the profile.

    CLI Example::

        salt kvm01 kvm_clone.bootstrap web1 minion='{master: salt}'
    """
    configured = progress.catalogue(__opts__, __pillar__)
    clone = _host(url).show(check(name))
    request, put = enrolment.on_this_host(__opts__, configured, clone, profile or "", keys)
    return _host(url).bootstrap_alone(request, put).as_dict()


@functools.partial(entrypoints.module_function, guarded=True)
def resume(name, url=None):
    """
    Go on with a create that failed and was kept (``on_failure:
    keep|stop``), or that was interrupted, where it stopped. The profile
    is read again, so correct it first.

    CLI Example: ``salt kvm01 kvm_clone.resume web1``
    """

    def resolve(item):
        return _request(name, item.profile, item.overrides)

    return entrypoints.clone(provision.resume(_host(url), check(name), resolve))


@functools.partial(entrypoints.module_function, guarded=True)
def destroy(name, force=False, url=None, *, test=False):
    """
    Destroy a clone, with its NVRAM and only those volumes that its
    record lists.

    force
        Remove a domain that is not one of our clones too: its
        definition, none of its files. Of a clone: also where some of
        its files are out of reach, or where snapshots of its own stand
        on its disks; both then stay.
    test
        Only say whether it would be refused, and what would stay (as
        ``warnings``).

    CLI Example: ``salt kvm01 kvm_clone.destroy web1``
    """
    entrypoints.switches(force=force, test=test)
    where = Commands(url or DEFAULT_URL, AT_HOST).where()
    with interrupts.work(str(name), "the destroy", deferred=False, where=where):
        return _host(url).destroy(check(name), force, dry=test).as_dict()


@entrypoints.module_function
def start(name, url=None):
    """
    Start a clone; one that runs already stays as it is.

    CLI Example: ``salt kvm01 kvm_clone.start web1``
    """
    return _host(url).power(check(name), "start").as_dict()


@entrypoints.module_function
def stop(name, url=None):
    """
    Shut a clone down; after a minute, switch it off.

    CLI Example: ``salt kvm01 kvm_clone.stop web1``
    """
    return _host(url).power(check(name), "stop").as_dict()


@entrypoints.module_function
def reboot(name, url=None):
    """
    Reboot a clone, or start one that is off. What waits for the next
    start (``kvm_clone.pending_changes``) a reboot does not bring; the
    answer's ``warnings`` say so.

    CLI Example: ``salt kvm01 kvm_clone.reboot web1``
    """
    return _host(url).power(check(name), "reboot").as_dict()


@entrypoints.module_function
def show(name, url=None):
    """
    Return one clone as it is now (CLONE).

    CLI Example: ``salt kvm01 kvm_clone.show web1``
    """
    return _host(url).show(check(name)).as_dict()


@entrypoints.module_function
def list_clones(url=None):
    """
    Return every clone on this host (a list of CLONE); foreign domains
    are not listed.

    CLI Example: ``salt kvm01 kvm_clone.list_clones``
    """
    return [clone.as_dict() for clone in _host(url).list_clones()]


@entrypoints.module_function
def addresses(name, url=None):
    """
    Return the addresses that a running clone has now, best first.

    CLI Example: ``salt kvm01 kvm_clone.addresses web1``
    """
    return _host(url).show(check(name)).as_dict()["addresses"]


@entrypoints.module_function
def pending_changes(name, url=None):
    """
    Return what waits for the next start of a running clone: cpus and
    memory that were changed since it was started, as ``{"changes":
    {KEY: {old, new}}, "note": SENTENCE}``. A reboot does not bring it.

    CLI Example: ``salt kvm01 kvm_clone.pending_changes web1``
    """
    return _host(url).pending_changes(check(name))


@entrypoints.module_function
def exists(name, url=None):
    """
    Return whether a domain of that name exists, a clone of ours or not.

    CLI Example: ``salt kvm01 kvm_clone.exists web1``
    """
    return _host(url).exists(check(name))


@entrypoints.module_function
def wait_for_address(name, timeout=600, ip_source=None, url=None):
    """
    Wait until a running clone has an address, and answer with it.

    timeout
        Hard deadline in seconds.
    ip_source
        ``ip-learning``, ``qemu-agent``, ``arp``, ``reserve`` or
        ``auto``; default: as it was created.

    CLI Example::

        salt kvm01 kvm_clone.wait_for_address web1 timeout=60
    """
    seconds = validate.argument("timeout", timeout, key="wait_for_ip_timeout")
    source = validate.argument("ip_source", ip_source) if ip_source else ""
    return _host(url).address_of(check(name), seconds, source)
