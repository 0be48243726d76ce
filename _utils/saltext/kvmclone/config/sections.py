"""
Check sections against each other: duplicates, ``extends``, providers, required keys.

Pure. Everything is looked at before anything is refused, so that the user sees all
problems of all files in one answer. Sections of other drivers are passed over.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saltext.kvmclone.config import stock_keys
from saltext.kvmclone.config.problems import SectionId
from saltext.kvmclone.config.schema import KEYS, KeyLocation, KeySupport
from saltext.kvmclone.config.section_entry import (
    DRIVER,
    Entry,
    driver_extended,
    entry_of,
    is_misspelt,
    lookup,
    merged,
)
from saltext.kvmclone.config.validate import (
    MISSING,
    Keys,
    Problem,
    Section,
    advice_on,
    advice_together,
    fault_of,
    faults_together,
    merge,
)

#: Keys of a provider that name its host. One of them is required; the message names the first.
WAYS_TO_A_HOST = ("url", "host", "hosts")

# How a libvirt URI begins: a provider with one that names no driver was meant to be ours.
_LIBVIRT_URI = re.compile(r"(qemu|test|xen|lxc|vz|ch|bhyve|vbox|esx)(\+\w+)?://")


@dataclass(frozen=True)
class Profile:
    """
    A checked profile.

    :param name: Its name.
    :param provider: Name of its provider, without the driver.
    :param keys: Its keys, with those of the profiles that it extends.
    :param place: Where it was read.
    """

    name: str
    provider: str
    keys: Keys = field(repr=False)  # may hold a password
    place: str


@dataclass
class Assembled:
    """
    The result of checking a set of sections, also of those with problems.

    :param providers: Our providers by name, with what they extend.
    :param profiles: Our profiles by name, with what they extend.
    :param others: Profiles of other drivers, by name, with that driver.
    :param problems: All that is wrong.
    :param extends: The sections that each section extends.
    :param provider_of: The provider of each of our profiles, as far as it names one.
    :param warnings: One sentence for each key that is ignored.
    """

    providers: dict[str, Keys] = field(default_factory=dict, repr=False)
    profiles: dict[str, Profile] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    extends: dict[SectionId, set[SectionId]] = field(default_factory=dict)
    provider_of: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def assemble(
    sections: Sequence[Section],
    cloud_file: Mapping[str, Any],
    cloud_place: str,
    cloud_places: Mapping[Any, str] | None = None,
) -> Assembled:
    """
    Check all sections and bring them together.

    :param sections: In the order in which they were read.
    :param cloud_file: Contents of the cloud file; only keys known here are looked at.
    :param cloud_place: What to call it.
    :param cloud_places: Where each of its keys stands, if that is known.
    """
    return _Assembly(sections, cloud_file, cloud_place, cloud_places or {}).run()


class _Assembly:
    """One run over one set of sections."""

    def __init__(
        self,
        sections: Sequence[Section],
        cloud_file: Mapping[str, Any],
        cloud_place: str,
        cloud_places: Mapping[Any, str],
    ) -> None:
        self.result = Assembled()
        self.cloud_file = cloud_file
        self.cloud_place = cloud_place
        self.cloud_places = cloud_places
        self._doubles: list[tuple[Section, Section]] = []
        self.sections = self._unique(sections)
        self.providers = self._provider_entries()
        self.profiles = self._profile_entries()
        self._parents = self._extended()
        self._checked: set[int] = set()

    def run(self) -> Assembled:
        for name, value in self.cloud_file.items():
            if fault := self._cloud_file_fault(name, value):
                place = self.cloud_places.get(name, self.cloud_place)
                self._problem(place, "", name, fault, KeyLocation.GLOBAL)
        for entries in self.providers.values():
            for entry in entries.values():
                self._provider(entry)
        for entry in self.profiles.values():
            self._profile(entry)
        for first, second in self._doubles:
            if self._is_ours(first) or self._is_ours(second):
                text = f"is defined differently in {first.place}; expected one definition"
                self._problem(second.place, second.name, "", text, second.kind)
        return self.result

    def _problem(self, place: str, section: str, key: str, text: str, kind: KeyLocation) -> None:
        self.result.problems.append(Problem(place, section, key, text, kind))

    @staticmethod
    def _cloud_file_fault(name: Any, value: Any) -> str:
        # Salt mixes the whole master configuration with this file, and other drivers
        # have their keys in it: only what we would use is looked at.
        key = KEYS.get(name) if isinstance(name, str) else None
        if (
            key is None
            or KeyLocation.GLOBAL not in key.places
            or key.fate is not KeySupport.HONOURED
        ):
            return ""
        return fault_of(name, value, KeyLocation.GLOBAL)

    # --- the sections by name ---------------------------------------------------------

    def _unique(self, sections: Sequence[Section]) -> list[Section]:
        first: dict[tuple[KeyLocation, str], Section] = {}
        for section in sections:
            if not isinstance(section.name, str):
                if section.kind is KeyLocation.PROFILE or self._is_ours(section):
                    text = f"its name {section.name!r} is not text (quote it)"
                    self._problem(section.place, str(section.name), "", text, section.kind)
                continue
            known = first.setdefault((section.kind, section.name), section)
            if known is not section and known.keys != section.keys:
                self._doubles.append((known, section))
        return list(first.values())

    def _is_ours(self, section: Section) -> bool:
        """Return whether a section is, or may be, of our driver."""
        entries = section.keys if isinstance(section.keys, list) else [section.keys]
        for keys in entries:
            if not isinstance(keys, Mapping):
                return True
            if section.kind is KeyLocation.PROVIDER:
                driver = keys.get("driver") or driver_extended(keys)
            else:
                driver = self._provider_named(str(keys.get("provider")))[1]
            if driver in (DRIVER, "", None):
                return True
        return False

    def _provider_entries(self) -> dict[str, dict[str, Entry]]:
        found: dict[str, dict[str, Entry]] = {}
        for section in self.sections:
            if section.kind is not KeyLocation.PROVIDER:
                continue
            contents = section.keys if isinstance(section.keys, list) else [section.keys]
            entries = found.setdefault(section.name, {})
            for number, keys in enumerate(contents):
                if not isinstance(keys, Mapping):
                    self._not_a_mapping(section)
                    continue
                driver = keys.get("driver") or driver_extended(keys) or ""
                if not isinstance(driver, str):
                    text = f"{driver!r} is not a driver's name; expected one word, such as {DRIVER}"
                    self.result.problems.append(
                        entry_of(section, keys, number).problem("driver", text)
                    )
                    continue
                if driver in entries:
                    text = f"has two entries for the driver {driver!r}; expected one"
                    self._problem(section.place, section.name, "", text, section.kind)
                entries[driver] = entry_of(section, keys, number)
        return found

    def _profile_entries(self) -> dict[str, Entry]:
        found = {}
        for section in self.sections:
            if section.kind is not KeyLocation.PROFILE:
                continue
            if isinstance(section.keys, Mapping):
                found[section.name] = entry_of(section, section.keys)
            else:
                self._not_a_mapping(section)
        return found

    def _extended(self) -> set[tuple[KeyLocation, str]]:
        """Return the sections that others extend; such a one may lack what they have."""
        profiles = {str(entry.keys.get("extends")) for entry in self.profiles.values()}
        providers = {
            str(entry.keys.get("extends")).partition(":")[0]
            for entries in self.providers.values()
            for entry in entries.values()
        }
        return {(KeyLocation.PROFILE, name) for name in profiles} | {
            (KeyLocation.PROVIDER, name) for name in providers
        }

    def _not_a_mapping(self, section: Section) -> None:
        text = f"holds {type(section.keys).__name__}; expected a mapping (KEY: VALUE lines)"
        if section.keys is None:
            text = "is empty; expected a mapping (KEY: VALUE lines, indented)"
        self._problem(section.place, section.name, "", text, section.kind)

    # --- providers --------------------------------------------------------------------

    def _provider(self, entry: Entry) -> None:
        written = entry.keys.get("driver") or driver_extended(entry.keys) or DRIVER
        if written != DRIVER and not is_misspelt({"driver": written}):
            return
        chain, complete = self._chain(entry, self._provider_extended)
        driver = lookup(chain, "driver")
        if driver != DRIVER:
            if not complete:
                self._check_all_keys(chain)
            elif fault := self._driver_fault(entry, driver):
                self.result.problems.append(entry.problem("driver", fault))
                self._check_all_keys(chain)
            return
        self._check_all_keys(chain)
        keys = merged(chain)
        if complete and not any(keys.get(way) for way in WAYS_TO_A_HOST):
            if (KeyLocation.PROVIDER, entry.name) in self._parents and not self._is_used(
                entry.name
            ):
                return
            self.result.problems.append(entry.problem("url", MISSING["url"], lacking=True))
        self.result.problems += [
            entry.problem(name, fault)
            for name, fault in faults_together(keys).items()
            if name != "placement"  # a profile may have what it lacks
        ]
        self.result.providers[entry.name] = keys

    def _driver_fault(self, entry: Entry, driver: Any) -> str:
        """Say what is wrong with the driver of a provider that was meant to be ours."""
        if driver is not None:
            meant = is_misspelt({"driver": driver})
            return f"there is no driver {driver!r}; did you mean {DRIVER!r}?" if meant else ""
        if (KeyLocation.PROVIDER, entry.name) in self._parents:
            return ""
        looks_ours = DRIVER in map(str, entry.keys.values()) or _LIBVIRT_URI.match(
            str(entry.keys.get("url"))
        )
        only_ours = all(name in KEYS for name in entry.keys)
        return MISSING["driver"] if looks_ours or only_ours else ""

    def _provider_extended(self, extends: str) -> Entry | None:
        name, _, driver = extends.partition(":")
        entries = self.providers.get(name, {})
        if driver:
            return entries.get(driver)
        return next(iter(entries.values())) if len(entries) == 1 else None

    # --- profiles ---------------------------------------------------------------------

    def _profile(self, entry: Entry) -> None:
        chain, complete = self._chain(entry, self.profiles.get)
        alias, fault = "", ""
        named = next((link for link in chain if link.keys.get("provider") is not None), None)
        if named is not None:
            written = named.keys["provider"]
            alias, driver = self._provider_named(str(written))
            if driver is None:
                fault = self._no_provider(written, alias)
                self.result.problems.append(
                    dataclasses.replace(named.problem("provider", fault), section=entry.name)
                )
            elif driver != DRIVER and not is_misspelt({"driver": driver}):
                self.result.others[entry.name] = driver
                return
            self.result.provider_of[entry.name] = alias
        elif complete:
            self.result.problems.append(
                entry.problem("provider", MISSING["provider"], lacking=True)
            )
        # Also where it has no provider: all of its problems are reported at once.
        self._check_all_keys(chain)
        keys = merged(chain)
        all_keys = merge(merge(self.cloud_file, self.result.providers.get(alias, {})), keys)
        is_parent = (KeyLocation.PROFILE, entry.name) in self._parents
        if complete and not all_keys.get("base_domain") and not is_parent:
            text = MISSING["base_domain"]
            self.result.problems.append(entry.problem("base_domain", text, lacking=True))
        if not complete or not alias or fault:
            return
        if not is_parent:
            there = self.result.problems
            faults = faults_together(all_keys) | stock_keys.faults(all_keys, entry.name)
            there += [entry.problem(name, fault) for name, fault in faults.items()]
        for name, advice in advice_together(all_keys, keys).items():
            self.result.warnings.append(str(entry.problem(name, advice)))
        self.result.profiles[entry.name] = Profile(entry.name, alias, keys, entry.place)

    def _provider_named(self, provider: str) -> tuple[str, str | None]:
        """Return the provider's own name and its driver, None where there is no such provider."""
        alias, _, driver = provider.partition(":")
        drivers = [
            str(found)
            for entry in self.providers.get(alias, {}).values()
            if (
                found := lookup(
                    self._chain(entry, self._provider_extended, quiet=True)[0], "driver"
                )
            )
        ]
        if driver:
            return alias, driver if driver in drivers else None
        # Without a driver salt-cloud takes the first one under the name.
        return alias, drivers[0] if drivers else None

    def _no_provider(self, provider: Any, alias: str) -> str:
        if alias in self.providers:
            return f"the provider {provider!r} has no driver; expected driver: {DRIVER} in it"
        known = sorted(self.result.providers)
        expected = f"one of {', '.join(known)}" if known else f"a provider with driver: {DRIVER}"
        for near in difflib.get_close_matches(alias, known, n=1):
            return f"there is no provider {provider!r}; did you mean {near!r}?"
        return f"there is no provider {provider!r}; expected {expected}"

    def _is_used(self, provider: str) -> bool:
        """Return whether a profile names this provider."""
        named = (str(entry.keys.get("provider")) for entry in self.profiles.values())
        return any(name.partition(":")[0] == provider for name in named)

    # --- both -------------------------------------------------------------------------

    def _chain(
        self, entry: Entry, find: Callable[[str], Entry | None], quiet: bool = False
    ) -> tuple[list[Entry], bool]:
        """Return the entry, what it extends, and so on; False, with a problem, where that fails."""
        chain = [entry]
        while (extends := chain[-1].keys.get("extends")) is not None:
            link = chain[-1]
            extended = find(extends) if isinstance(extends, str) else None
            text = ""
            if extended is None:
                text = f"there is no section {extends!r} to extend"
            elif extended in chain:
                text = f"{extends!r} extends this section in turn"
            if extended is None or text:
                if not quiet:
                    self.result.problems.append(link.problem("extends", text))
                return chain, False
            above = (link.kind, link.name)
            self.result.extends.setdefault(above, set()).add((extended.kind, extended.name))
            chain.append(extended)
        return chain, True

    def _check_all_keys(self, chain: Sequence[Entry]) -> None:
        for link in chain:
            self._check_keys(link)

    def _check_keys(self, entry: Entry) -> None:
        if id(entry) in self._checked:
            return
        self._checked.add(id(entry))
        for name, value in entry.keys.items():
            if fault := fault_of(name, value, entry.kind):
                problem = entry.problem(str(name), fault)
                place = entry.key_places.get(name, entry.place)
                self.result.problems.append(dataclasses.replace(problem, place=place))
            elif advice := advice_on(name, value):
                self.result.warnings.append(str(entry.problem(str(name), advice)))
