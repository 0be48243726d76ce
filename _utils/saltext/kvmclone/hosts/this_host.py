"""
Do for a KVM host's own minion what takes the host and its own configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.config import base_keys, meant
from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.hosts import make_base, warm_base
from saltext.kvmclone.hosts.interfaces import commands_of
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.inventory import findings, host_findings
from saltext.kvmclone.lifecycle.adjust import Adjustment
from saltext.kvmclone.model.hints import AT_HOST
from saltext.kvmclone.model.made_base import MadeBase
from saltext.kvmclone.model.names import check
from saltext.kvmclone.model.request import DEFAULT_URL
from saltext.kvmclone.model.warmed_base import WarmedBase
from saltext.kvmclone.system import installation


def local_host(minion_id: str, url: str | None = None) -> LocalHost:
    """
    Return the host on which this minion runs.

    :param url: libvirt URI; None for the usual one.
    """
    return LocalHost(url or DEFAULT_URL, minion_id, AT_HOST)


def adjust(
    configured: Catalogue,
    minion_id: str,
    name: Any,
    profile: str | None,
    keys: Mapping[str, Any],
    dry: bool,
) -> Adjustment:
    """
    Make a clone of this host what is asked for; see :meth:`.local.LocalHost.adjust`.

    :param keys: Any profile keys. Without a profile, and without ``base_domain``, what is not among
        them stays as it is.
    """
    if profile:
        keys = {**keys, "profile": profile}
        meant.require_on_host(configured, "adjust", name, keys)
    elif "base_domain" not in keys:
        keys = {**local_host(minion_id, keys.get("url")).show(check(name)).origin, **keys}
    request, _secrets = configured.resolve_here(name, keys, minion_id)
    return local_host(minion_id, request.url).adjust(request, dry)


def base_from(
    configured: Catalogue,
    minion_id: str,
    source: Any,
    name: Any,
    given: Mapping[str, Any],
    dry: bool,
) -> MadeBase:
    """
    Make a base on this host; see :func:`.make_base.make`.

    :param given: Keys as :func:`.base_keys.request` takes them.
    :param dry: Only look; see :meth:`.local_bases.LocalBases.expected_base`.
    """
    request, origin = base_keys.request(configured, source, name, given, minion_id)
    host = local_host(minion_id, request.url)
    return host.expected_base(request, origin) if dry else make_base.make(host, request, origin)


def promote(minion_id: str, url: str | None, name: str, base: str) -> dict[str, Any]:
    """Make a base of a clone of this host; see :func:`.make_base.promote`."""
    return make_base.promote(local_host(minion_id, url), name, base)


def warm(minion_id: str, url: str | None, base: str) -> WarmedBase:
    """Save the memory of a base of this host; see :func:`.warm_base.warm`."""
    return warm_base.warm(local_host(minion_id, url), base)


def doctor(configured: Catalogue, minion_id: str, url: str | None) -> list[dict[str, Any]]:
    """Return what is wrong on this host, worst first, then what is with its configuration."""
    host = local_host(minion_id, url)
    own = findings.of_configuration(configured.problems, "salt-call kvm_clone.doctor")
    here = installation.look(copies=False)
    own += host_findings.of_installation(here, minion_id, commands_of(host))
    return [*host.doctor(), *(finding.as_dict() for finding in own)]
