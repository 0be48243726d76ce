"""
Look up salt-cloud's providers, and decide which provider lists a clone.

Each clone is listed by one provider: a hard map (-H) destroys whatever a provider lists and the
map does not name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.config.section_entry import DRIVER
from saltext.kvmclone.config.sections import WAYS_TO_A_HOST
from saltext.kvmclone.errors import ConfigError, ForeignDomain, KvmCloneError, NotFound
from saltext.kvmclone.hosts import daemons
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.master.ways import Way, way_of
from saltext.kvmclone.model.clone import Clone


def configured_provider(opts: Mapping[str, Any], active: str) -> Any:
    """
    Return the active provider as it is configured, or False: then salt-cloud ignores the driver.

    A provider that only lends its keys to others, and names no host, does not count.

    :param active: ``ALIAS:libvirt``, or the driver's name for the first provider there is.
    """
    alias = active.partition(":")[0]
    for name, entry in (opts.get("providers") or {}).items():
        keys = entry.get(DRIVER) or {}
        if alias in (name, DRIVER) and any(keys.get(way) for way in WAYS_TO_A_HOST):
            return keys
    return False


class CloudProviders:
    """
    The providers of one call of salt-cloud's core.

    :param opts: salt-cloud's configuration.
    :param fleet: The fleet of the master that salt-cloud works for.
    """

    def __init__(self, opts: Mapping[str, Any], fleet: Fleet) -> None:
        self.opts = opts
        self.fleet = fleet
        self._compared: dict[tuple[str, str], bool] = {}

    def lists(self, alias: str, clone: Clone) -> bool:
        """
        Return True if this provider is the one that lists the clone.

        Each clone is listed by one provider, however many name its daemon: that of its profile,
        or the first by name where that is not known or has no such clone.

        :param alias: Name of the provider.
        """
        own = self.of_profile(clone.profile)
        if own == alias:
            return True
        if not own:
            known = self.opts.get("providers") or {}
            before = [name for name in sorted(known) if DRIVER in known[name] and name < alias]
            return not any(self.are_one_daemon(name, alias) for name in before)
        try:
            if self.way(own) == self.way(alias):
                return False
            # Two spellings of one daemon, or a profile that has moved since.
            if self.fleet.host(*self.way(own)).show(clone.name).uuid != clone.uuid:
                return True
            return not self.are_one_daemon(own, alias)
        except (NotFound, ForeignDomain):
            return True
        except KvmCloneError:
            return False

    def are_one_daemon(self, one: str, other: str) -> bool:
        """Return True if two providers name one daemon, in whatever spelling."""
        pair = (one, other)
        if pair not in self._compared:
            self._compared[pair] = self._compare(one, other)
        return self._compared[pair]

    def _compare(self, one: str, other: str) -> bool:
        try:
            ways = [self.way(alias) for alias in (one, other)]
        except ConfigError:  # nothing is listed of it
            return False
        if ways[0] == ways[1]:
            return True
        hosts = [(str(way), self.fleet.host(*way)) for way in ways]
        return len(daemons.group(hosts).groups) == 1

    def of_profile(self, profile: str) -> str:
        """
        Return the provider of a profile; empty where it is not known.

        Also of a profile with problems: its machines are not another provider's.
        """
        own = self.fleet.catalogue.problems.provider_of.get(profile, "")
        there = own in self.fleet.catalogue.providers or DRIVER in self._of_the_core(own)
        return own if there else ""

    def _of_the_core(self, alias: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = (self.opts.get("providers") or {}).get(alias, {})
        return found

    def keys(self, alias: str) -> dict[str, Any]:
        """
        Return the keys of a provider.

        The core's come first: its providers may come from pillar or from a call, and are then in
        no file.

        :raises ConfigError: There is no such provider, or something is wrong with it: the core
            ignores that.
        """
        self.fleet.catalogue.problems.require_provider(alias)
        core = self._of_the_core(alias).get(DRIVER)
        keys = core or self.fleet.catalogue.providers.get(alias)
        if not keys:
            raise ConfigError(
                f"There is no provider '{alias}' of the driver '{DRIVER}'.",
                "List them: salt-cloud --list-providers",
            )
        return dict(keys)

    def way(self, alias: str) -> Way:
        """
        Return how a provider's daemon is reached: its minion id and its url.

        :raises ConfigError: It has several, of which salt-cloud knows nothing.
        """
        keys = self.keys(alias)
        if keys.get("hosts"):
            raise ConfigError(
                f"The provider '{alias}' has several hosts, and to salt-cloud a provider is one.",
                "Use the runner: salt-run kvmclone.list   salt-run kvmclone.create PROFILE NAME",
            )
        return way_of(keys)
