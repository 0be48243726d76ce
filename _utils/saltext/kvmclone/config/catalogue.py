"""
Check all providers and profiles at once, and resolve a profile into a request.

Pure: it is handed sections that somebody else has read (``cloud_files.py``) and gives a
:class:`Catalogue`, from which a profile is resolved into a
:class:`~saltext.kvmclone.model.request.Request`. Which keys there are, and what becomes of each,
stands in :data:`KEYS`.

A value is looked up in the arguments, then the profile, then its provider, then the cloud
file; mappings from several of these are merged key by key, everything else is replaced.
That is what salt-cloud does for a machine (``salt.cloud.Cloud.vm_config``), and also how
it merges a section with the one it ``extends``.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from saltext.kvmclone.config import cloud_machine, resolve, schema
from saltext.kvmclone.config.problems import Problems
from saltext.kvmclone.config.schema import KeyLocation, KeySupport
from saltext.kvmclone.config.section_entry import DRIVER
from saltext.kvmclone.config.sections import Profile, assemble
from saltext.kvmclone.config.usage import arguments
from saltext.kvmclone.config.validate import (
    MISSING,
    Keys,
    Problem,
    Section,
    advice_on,
    advice_on_domain,
    advice_together,
    checked_arguments,
    error_for,
    faults_together,
    merge,
    nearby,
    shown,
    visible,
)
from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.names import check, is_minion_id
from saltext.kvmclone.model.placement import Placement
from saltext.kvmclone.model.request import Request, Secrets

__all__ = [
    "KEYS",
    "Catalogue",
    "KeyLocation",
    "Problem",
    "Profile",
    "Section",
    "build",
]

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Every known key by its name: the list of what is honoured, ignored and refused.
KEYS = schema.KEYS


def _read_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Catalogue:
    """
    All providers and profiles of the libvirt driver, and what is wrong with some of them.

    :param providers: Keys of each provider, with those of the providers that it extends. Only
        those without problems.
    :param profiles: The profiles by name; likewise.
    :param cloud_file: Keys for everything, from the cloud file itself.
    :param others: Profiles of other drivers, by name, with that driver.
    :param warnings: One sentence for each key that is ignored.
    :param problems: All that is wrong, and which sections it concerns.
    :param read_file: Gives the text of a file; raises ``OSError``.
    :param fetch: Gives what an ``sdb://`` URI stands for; raises :class:`ConfigError`.
    """

    providers: Mapping[str, Keys] = field(default_factory=dict, repr=False)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    cloud_file: Keys = field(default_factory=dict, repr=False)
    others: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    problems: Problems = Problems()
    read_file: Callable[[str], str] = _read_text
    fetch: Callable[[str], Any] = resolve.no_sdb

    def describe(self) -> dict[str, Any]:
        """
        Return providers and profiles as plain data for people, without anything secret.

        :return: ``{"profiles": {NAME: {"provider", "place", KEY…}}, "providers": {NAME: {KEY…}},
            "warnings": […], "problems": […]}``; sections with problems are among the latter only.
        """
        return {
            "profiles": {
                name: {**visible(profile.keys), "provider": profile.provider}
                | {"place": profile.place}
                for name, profile in sorted(self.profiles.items())
            },
            "providers": {name: visible(keys) for name, keys in sorted(self.providers.items())},
            "warnings": list(self.warnings),
            "problems": list(dict.fromkeys(map(str, self.problems.found))),
        }

    def resolve(
        self, profile_name: str, name: str, overrides: Mapping[str, Any] | None = None
    ) -> tuple[Request, Secrets]:
        """
        Return the request for the clone that a profile describes, and its secrets.

        :param profile_name: Name of the profile.
        :param name: Name of the clone.
        :param overrides: Profile keys given as arguments; they win over the profile.
            Names that begin with ``__`` are Salt's own and are passed over.
        :raises InvalidName: The clone cannot have this name.
        :raises SecretInArgument: A secret was given as an argument.
        :raises ConfigError: Unknown profile, wrong argument, unreadable key file.
        """
        check(name)
        arguments = checked_arguments(overrides or {})
        self.problems.require_profile(str(profile_name))
        profile = self._profile(profile_name)
        provider = str(arguments.pop("provider", None) or profile.provider).partition(":")[0]
        written = merge(self._provider(provider), profile.keys)
        own, beside = (merge(keys, arguments) for keys in (profile.keys, written))
        _advise(profile.place, profile.name, written, beside, own)
        keys = merge(self.cloud_file, written)
        request, secrets = self._request(
            name, merge(keys, arguments), profile.name, provider, profile.place
        )
        # A secret among them was refused above.
        return dataclasses.replace(request, overrides=dict(overrides or {})), secrets

    def written(self, profile_name: str = "", provider: str = "") -> Keys:
        """
        Return the keys of a profile with those of its provider, or of a provider alone.

        :param profile_name: Empty for none.
        :param provider: Empty for the profile's own, or for none.
        :raises ConfigError: One of them is unknown, or something is wrong with it.
        """
        self.problems.require_cloud_file()
        profile = None
        if profile_name:
            self.problems.require_profile(profile_name)
            profile = self._profile(profile_name)
        name = (provider or (profile.provider if profile else "")).partition(":")[0]
        below = merge(self.cloud_file, self._provider(name)) if name else dict(self.cloud_file)
        return merge(below, profile.keys) if profile else below

    def remarks(self, profile_name: str | None, given: Mapping[str, Any]) -> tuple[str, ...]:
        """
        Return what a plan has to say of a configuration that is right, and does not do what it
        seems to.

        :param profile_name: Name of a profile that can be resolved; empty for none.
        :param given: Keys given as arguments; they win over the profile.
        """
        profile = self.profiles.get(str(profile_name))
        named = given.get("provider") or (profile.provider if profile else "")
        below = merge(self.cloud_file, self.providers.get(str(named).partition(":")[0], {}))
        keys = merge(merge(below, profile.keys if profile else {}), given)
        return tuple(f"'{key}' {advice}." for key, advice in advice_on_domain(keys).items())

    def resolve_here(
        self, name: str, keys: Mapping[str, Any], minion_id: str
    ) -> tuple[Request, Secrets]:
        """
        Return the request and secrets of a clone of this KVM host; see :meth:`resolve_inline`.

        :param minion_id: The host's minion id.
        :raises ConfigError: ``host`` names another one.
        """
        request, secrets = self.resolve_inline(name, keys)
        wish = request.placement
        if wish.is_wanted and minion_id not in wish.hosts:
            raise ConfigError(
                f"'{name}' belongs to one of several KVM hosts ('hosts:'), and '{minion_id}' is "
                "none of those that stand there by their names.",
                f"The master chooses one: salt-run kvmclone.create {request.profile or 'PROFILE'} "
                f"{name}   Or name this one: host={minion_id}",
            )
        # It was named by whoever asks it.
        request = dataclasses.replace(request, placement=Placement())
        if request.host not in ("", minion_id):
            raise ConfigError(
                f"'{name}' belongs to the KVM host '{request.host}' ('host:'); this is "
                f"'{minion_id}'.",
                "Take 'host' out of the provider, or do it there. Look first: "
                + Commands(minion=request.host).on_host("plan", name, *arguments(keys)),
            )
        return request, secrets

    def resolve_inline(self, name: str, keys: Mapping[str, Any]) -> tuple[Request, Secrets]:
        """
        Return the request for the clone that arguments describe, and its secrets.

        :param name: Name of the clone.
        :param keys: Profile keys; ``profile`` names the profile that they override,
            ``provider`` a provider. Without either the daemon is ``qemu:///system``.
        :raises InvalidName: The clone cannot have this name; further errors as in :meth:`resolve`.
        """
        remaining = dict(keys)
        profile = remaining.pop("profile", None)
        if profile:
            return self.resolve(profile, name, remaining)
        check(name)
        arguments = checked_arguments(remaining)
        provider = str(arguments.pop("provider", None) or "").partition(":")[0]
        self.problems.require_cloud_file()
        below = merge(self.cloud_file, self._provider(provider)) if provider else self.cloud_file
        request, secrets = self._request(name, merge(below, arguments), "", provider, "arguments")
        return dataclasses.replace(request, overrides=remaining), secrets

    def resolve_machine(
        self, machine: Mapping[str, Any], settings: Container[str] = ()
    ) -> tuple[Request, Secrets]:
        """
        Return the request for the clone that salt-cloud's core asks a driver for, and its secrets.

        :param machine: What the core hands over (``vm_``): provider, profile and map merged in
            its own way, the cloud file only for a single machine, and with much that is the
            core's own business. They come from files, not from a command line, so secrets are
            in order here.
        :param settings: Names of salt-cloud's own settings, which may stand among them.
        :raises ConfigError: A map says something that a profile may not, or something is wrong
            with the profile or provider: the core may have read on where we did not.
        """
        name = check(machine.get("name"))
        profile = str(machine.get("profile") or "")
        if profile:
            self.problems.require_profile(profile)
        self.problems.require_provider(str(machine.get("provider") or "").partition(":")[0])
        if faults := cloud_machine.faults(machine, settings, profile or name):
            raise error_for(faults)
        known = self.profiles.get(profile)
        own = cloud_machine.own_keys(machine, settings, known.keys if known else {})
        _advise("salt-cloud", profile or name, own, machine, own)
        keys = cloud_machine.known_keys(machine)
        provider = str(machine.get("provider") or "").partition(":")[0]
        request, secrets = self._request(
            name, merge(self.cloud_file, keys), profile, provider, "salt-cloud"
        )
        below = merge(self.cloud_file, self.providers.get(provider, {}))
        written = merge(below, known.keys) if known else below
        if known:
            there = {**written, "provider": known.provider}
            departures = cloud_machine.departures({**keys, "provider": provider}, there)
            request = dataclasses.replace(request, overrides=departures)
        # The core has replaced sdb:// references already; what they stood for is as secret as what
        # would have been fetched here.
        stored = (*secrets.stored, *resolve.behind(written, keys))
        return request, dataclasses.replace(secrets, stored=tuple(dict.fromkeys(stored)))

    def _profile(self, name: str) -> Profile:
        if name in self.profiles:
            return self.profiles[name]
        if name in self.others:
            raise ConfigError(
                f"The profile {name!r} belongs to the driver {self.others[name]!r}.",
                f"Use salt-cloud for it, or name a profile with a {DRIVER} provider.",
            )
        raise self._unknown("profile", name, KeyLocation.PROFILE, self.profiles)

    def _provider(self, name: str) -> Keys:
        self.problems.require_provider(name)
        if name not in self.providers:
            raise self._unknown("provider", name, KeyLocation.PROVIDER, self.providers)
        return self.providers[name]

    def _unknown(
        self, sort: str, name: str, kind: KeyLocation, known: Iterable[str]
    ) -> ConfigError:
        text = f"There is no {sort} {name!r}."
        if unread := self.problems.of_files(kind):
            text += " It may be in a file that cannot be read: " + "; ".join(map(str, unread))
        return ConfigError(text, nearby(sort, name, known))

    def _request(
        self, name: str, keys: Keys, profile: str, provider: str, place: str
    ) -> tuple[Request, Secrets]:
        section = profile or name
        if not keys.get("base_domain"):
            raise error_for([Problem(place, section, "base_domain", MISSING["base_domain"])])
        if together := faults_together(keys):
            raise error_for(Problem(place, section, key, text) for key, text in together.items())
        taken = resolve.SecretTracker(self.fetch)
        typed, faults = resolve.typed(keys, KEYS, taken)
        if faults:
            raise error_for(
                Problem(place, section, key, f"{shown(KEYS[key], value)} is not {expected}")
                for key, value, expected in faults
            )
        try:
            request, secrets = resolve.request_and_secrets(
                name, typed, profile, provider, self.read_file
            )
        except (OSError, ValueError) as exc:
            # Not the error itself: it holds the path, which may be a key without its first line.
            why = exc.strerror if isinstance(exc, OSError) else "it is not text"
            text = f"cannot be read: {why}{_if_a_path(keys.get('private_key'))}"
            raise error_for([Problem(place, section, "private_key", text)]) from None
        if not is_minion_id(request.minion_id):
            text = f"makes the minion id {request.minion_id[:300]!r}, which Salt does not allow"
            raise error_for([Problem(place, section, "append_domain", text)])
        return request, dataclasses.replace(secrets, stored=taken.texts)


def _if_a_path(written: Any) -> str:
    """Return the login key's path for a message; empty where it may be the key itself."""
    is_path = isinstance(written, str) and len(written) < 128 and written[:1] in ("/", "~", ".")
    is_path = is_path and len(written.splitlines()) == 1
    return f": '{written}'" if is_path or resolve.is_reference(written) else ""


def build(
    sections: Sequence[Section],
    cloud_file: Mapping[str, Any] | None = None,
    *,
    cloud_place: str = "/etc/salt/cloud",
    cloud_places: Mapping[Any, str] | None = None,
    problems: Sequence[Problem] = (),
    read_file: Callable[[str], str] = _read_text,
    fetch: Callable[[str], Any] = resolve.no_sdb,
) -> Catalogue:
    """
    Return the catalogue of everything that was configured.

    :param sections: All providers and profiles, from all places, in any order.
    :param cloud_file: Contents of /etc/salt/cloud, of which only known keys are used.
    :param cloud_place: The path to call it by.
    :param cloud_places: Where each of its keys stands, if that is known.
    :param problems: What already went wrong while the sections were read.
    :param read_file: Gives the text of a login key's file; raises ``OSError``.
    :param fetch: Gives what an ``sdb://`` URI stands for; raises :class:`ConfigError`.
    """
    contents = dict(cloud_file or {})
    assembled = assemble(sections, contents, cloud_place, cloud_places)
    found = Problems((*problems, *assembled.problems), assembled.extends, assembled.provider_of)
    usable = {
        name: value
        for name, value in contents.items()
        if name in KEYS
        and KeyLocation.GLOBAL in KEYS[name].places
        and KEYS[name].fate is KeySupport.HONOURED
    }
    return Catalogue(
        _sound(assembled.providers, KeyLocation.PROVIDER, found),
        _sound(assembled.profiles, KeyLocation.PROFILE, found),
        usable,
        assembled.others,
        tuple(assembled.warnings),
        found,
        read_file,
        fetch,
    )


def _sound(sections: Mapping[str, T], kind: KeyLocation, problems: Problems) -> dict[str, T]:
    return {name: section for name, section in sections.items() if not problems.of(kind, name)}


def _advise(
    place: str, section: str, keys: Keys, everything: Mapping[str, Any], own: Mapping[str, Any]
) -> None:
    """
    Log a warning, with the reason, for each key that is ignored.

    :param everything: All keys of the machine; ``own`` those that no provider says.
    """
    found = {key: advice for key, value in keys.items() if (advice := advice_on(key, value))}
    for key, advice in (found | advice_together(everything, own)).items():
        log.warning("%s", Problem(place, section, key, advice))
