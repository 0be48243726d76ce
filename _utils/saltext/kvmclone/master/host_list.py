"""List the hosts with what they have and have promised, and why a profile takes which of them."""

from __future__ import annotations

import dataclasses
from typing import Any

from saltext.kvmclone.errors import BaseDiffers
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model.request import Request

#: The name of a clone that is never made.
_ANY = "any"


def listing(fleet: Fleet, profile: str = "") -> dict[str, Any]:
    """
    Return every host; with a profile also whether its next clone would go there, and why.

    :param profile: Empty for none.
    :raises ConfigError: The profile, or the limits of the hosts, are wrong.
    """
    settings = fleet.placing.settings
    verdicts = _verdicts(fleet, profile) if profile else {}
    answer = fleet.everywhere.capacities()
    for label, host in answer["hosts"].items():
        minion = fleet.everywhere.ways.get(label, ("", ""))[0]
        if host["reachable"]:
            host["maintenance"] = bool(minion) and settings.limits(minion).maintenance
        if profile:
            other = {"chosen": False, "reason": f"not among the hosts of '{profile}'"}
            host.update(verdicts.get(minion or label, other))
    return answer


def _verdicts(fleet: Fleet, profile: str) -> dict[str, dict[str, Any]]:
    """Return whether each host of a profile would be chosen, and why."""
    request, _secrets, _host = fleet.resolve(profile, _ANY, {})
    if not request.placement.is_wanted:
        named = request.host or request.url
        return {named: {"chosen": True, "reason": f"'{profile}' names it"}}
    # Nobody's name, so that it is on no host already.
    request = dataclasses.replace(request, name="")
    try:
        decision = fleet.placing.consider(request)
    except BaseDiffers as error:
        return _all_alike(fleet, request, error)
    return decision.reasons(decision.chosen)


def _all_alike(fleet: Fleet, request: Request, error: BaseDiffers) -> dict[str, dict[str, Any]]:
    """Return one reason for every host of a request."""
    verdict = {"chosen": False, "reason": error.message}
    return {host: dict(verdict) for host in fleet.placing.offers.hosts_of(request)}
