"""Find the daemons that the configuration names, and how each of them is reached."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.config.sections import WAYS_TO_A_HOST
from saltext.kvmclone.config.validate import merge
from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.model.request import DEFAULT_URL

#: How a daemon is reached: the minion id of its host (empty for none), and its url.
Way = tuple[str, str]

#: Returns the minions that a Salt target expression means.
Means = Callable[[str], Iterable[str]]

_PROVIDER, _PROFILE = "provider ", "profile "


def no_minions(expression: str) -> Iterable[str]:
    """
    Refuse a target expression where there is no master.

    :raises ConfigError: Always.
    """
    raise ConfigError(f"Which minions 'hosts: {expression}' means is known on the master alone.")


def way_of(keys: Mapping[str, Any]) -> Way:
    """
    Return the minion id and the url that a provider names.

    :param keys: The provider's keys.
    """
    return str(keys.get("host") or ""), str(keys.get("url") or DEFAULT_URL)


class Ways:
    """
    The ways to the daemons of all providers and profiles that can be read.

    :param means: Returns the minions that a target expression means.
    :param homes: Returns the hosts that clones were placed on, whatever an expression means by now.
    """

    def __init__(
        self, catalogue: Catalogue, means: Means, homes: Callable[[], Iterable[Way]]
    ) -> None:
        self.catalogue = catalogue
        self.means = means
        self.homes = homes

    @functools.cached_property
    def labelled(self) -> dict[str, Way]:
        """
        Return how each daemon is reached, once, by its label: its minion id, or its url.

        Those behind a minion come first: a daemon that two providers name is then known by its
        minion.
        """
        found = {way for ways in self._named[0].values() for way in ways} | set(self.homes())
        ordered = sorted(found, key=lambda way: (not way[0], way[0], way[1] != DEFAULT_URL, way))
        ways: dict[str, Way] = {}
        for minion, url in ordered:
            label = minion or url
            # A minion may serve several daemons, such as qemu:///system and lxc:///system.
            ways[label if label not in ways else f"{minion} {url}"] = (minion, url)
        return ways

    @property
    def unknown(self) -> dict[str, ConfigError]:
        """Return why it is not known which hosts are meant, by ``provider NAME`` and the like."""
        return self._named[1]

    @functools.cached_property
    def _named(self) -> tuple[dict[str, tuple[Way, ...]], dict[str, ConfigError]]:
        """Return the daemons of each provider, and of each profile with hosts of its own."""
        found: dict[str, tuple[Way, ...]] = {}
        unknown: dict[str, ConfigError] = {}
        providers = self.catalogue.providers
        sections = {f"{_PROVIDER}{name}": keys for name, keys in providers.items()}
        for name, profile in self.catalogue.profiles.items():
            if any(profile.keys.get(key) for key in WAYS_TO_A_HOST):
                keys = merge(providers.get(profile.provider, {}), profile.keys)
                sections[f"{_PROFILE}{name}"] = keys
        for section, keys in sections.items():
            if not (hosts := keys.get("hosts")):
                found[section] = (way_of(keys),)
                continue
            try:
                ids = self.means(hosts) if isinstance(hosts, str) else hosts
                found[section] = tuple((minion, way_of(keys)[1]) for minion in ids)
            except ConfigError as error:
                unknown[section] = error
        return found, unknown

    def label_of(self, profile: str) -> str:
        """Return the label of a profile's one host; empty where there are several, or none."""
        labels = self.labels_of(profile)
        return labels[0] if len(labels) == 1 else ""

    def labels_of(self, profile: str) -> tuple[str, ...]:
        """Return the labels of the hosts that clones of a profile may be on, as far as known."""
        found, _unknown = self._named
        provider = self.catalogue.problems.provider_of.get(profile, "")
        ways = found.get(f"{_PROFILE}{profile}", found.get(f"{_PROVIDER}{provider}", ()))
        return tuple(label for label, way in self.labelled.items() if way in ways)

    def meant_by(self, expression: str) -> tuple[str, ...]:
        """
        Return the labels of those hosts that a Salt target expression means.

        :raises ConfigError: It means none of them.
        """
        ids = set(self.means(expression))
        if found := tuple(
            label for label, (minion, _url) in self.labelled.items() if minion in ids
        ):
            return found
        raise ConfigError(
            f"The target expression '{expression}' means no host of any provider.",
            "See which there are: salt-run kvmclone.hosts",
        )

    def providers_of(self, labels: Iterable[str]) -> list[str]:
        """Return the names of the providers, quoted, that name any of these daemons."""
        ways = {self.labelled[label] for label in labels}
        return sorted(
            f"'{section.removeprefix(_PROVIDER)}'"
            for section, found in self._named[0].items()
            if section.startswith(_PROVIDER) and ways & set(found)
        )
