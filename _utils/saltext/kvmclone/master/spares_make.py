"""
Find out which spares the profiles want, and make one: for the stock, or for somebody at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import Any

from saltext.kvmclone.config.catalogue import KEYS, Catalogue, KeyLocation
from saltext.kvmclone.errors import ConfigError, KvmCloneError
from saltext.kvmclone.hosts.outcome import Outcome
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.master.spares_stock import Wish
from saltext.kvmclone.model import spares
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.request import Request, Secrets
from saltext.kvmclone.model.spares import Claim

#: What a profile is resolved for where it does not matter what the clone is called.
_ANY_NAME = "spare"


def numbers(catalogue: Catalogue) -> dict[str, int | None]:
    """Return how many spares each profile with ``spares:`` wants; None where it has problems."""
    found: dict[str, int | None] = {}
    for name in catalogue.profiles:
        try:
            written = catalogue.written(name).get("spares")
        except KvmCloneError:  # `profiles` and `doctor` say what is wrong with it
            found[name] = None
        else:
            if written is not None:
                found[name] = KEYS["spares"].kind.parse(written)
    return found


def wishes(fleet: Fleet, profiles: Sequence[str]) -> tuple[dict[str, Wish], set[str]]:
    """
    Return what each profile wants, and the profiles of which that is not known.

    :param profiles: Profiles that have spares already, besides those that want some.
    :return: Profiles without ``spares:`` are in neither.
    """
    catalogue = fleet.catalogue
    wanted: dict[str, Wish] = {}
    unread = {name for name in profiles if name not in catalogue.profiles and _may_be(fleet, name)}
    for name, number in numbers(catalogue).items():
        try:
            request, secrets = of_profile(fleet, name)
        except KvmCloneError:
            unread.add(name)
        else:
            wanted[name] = Wish(number or 0, secrets.profile_digest_of(request))
    return wanted, unread


def _may_be(fleet: Fleet, name: str) -> bool:
    """Return whether there may be a profile that cannot be read."""
    problems = fleet.catalogue.problems
    return bool(problems.of(KeyLocation.PROFILE, name) or problems.of_files(KeyLocation.PROFILE))


def of_profile(fleet: Fleet, profile: str) -> tuple[Request, Secrets]:
    """
    Return the request for a clone of a profile that has no name yet, and its secrets.

    :raises KvmCloneError: What :meth:`.catalogue.Catalogue.resolve` raises.
    """
    return fleet.catalogue.resolve(profile, _ANY_NAME)


def new_name(request: Request) -> str:
    """
    Return a name for a new spare.

    :param request: Any request of its profile.
    :raises InvalidName: The pattern of the profile gives none.
    """
    pattern = request.stock.pattern(request.profile)
    return spares.name_of(pattern, token_hex(spares.ID_DIGITS // 2))


def make(
    fleet: Fleet, profile: str, name: str, claim: Claim = Claim(), keys: Mapping[str, Any] = {}
) -> Outcome:
    """
    Make one spare.

    :param name: What it is called; see :func:`new_name`.
    :param claim: Who has it from the beginning; nobody for one that goes into the stock.
    :param keys: ``ttl`` and ``tags`` of the claim, which win over the profile's.
    """
    try:
        request, secrets = of_profile(fleet, profile)
    except KvmCloneError as error:
        return Outcome(name, "", None, error)
    return fleet.create_spare(profile, name, keys, secrets.profile_digest_of(request), claim)


def require_minion(request: Request) -> None:
    """
    Refuse a profile whose clones become no minions, so that none of them can be verified.

    :raises ConfigError: It is such a profile.
    """
    if not request.deploy.enrols:
        raise ConfigError(
            f"The clones of '{request.profile}' become no minions (deploy: False or bootstrap: "
            "none), so nothing can tell whether one works, and none is claimed.",
            f"Make one: {Commands().clone('create', request.profile, 'NAME')}",
        )
