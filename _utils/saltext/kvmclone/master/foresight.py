"""
Foresee, before anything is made, that a guest will not become a minion of this master.

What the profile says decides most of it. Where it matters whether the base has a minion, the disks
of the base are looked at; what cannot be seen there is not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone.master import master_address
from saltext.kvmclone.model.base_minion import BaseMinion, Foresight
from saltext.kvmclone.model.cloud_seed import OWN
from saltext.kvmclone.model.request import Request

#: How Salt's bootstrap script is told to overwrite what is there, and which master there is.
_OVERWRITES = re.compile(r"(^|\s)-[A-Za-z]*F")
_NAMES_MASTER = re.compile(r"(^|\s)-[A-Za-z]*A(\s|$)")

#: What names a minion's files or its master, in whatever else is done in the guest.
_ITS_FILES = re.compile(r"/etc/salt|minion\.pem|master", re.IGNORECASE)


@dataclass(frozen=True)
class Script:
    """
    The deploy script of a request.

    :param text: Rendered; empty for none.
    :param is_bootstrap: It is Salt's own.
    """

    text: str
    is_bootstrap: bool


def foresee(
    opts: Mapping[str, Any],
    request: Request,
    script: Callable[[], Script],
    look: Callable[[], BaseMinion],
) -> Foresight:
    """
    Return what stands against a guest's becoming a minion, as far as it is known now.

    :param opts: The master's configuration.
    :param script: Returns the deploy script; ``look`` what the disks of the base show. Both are
        called only where the profile leaves a doubt.
    """
    deploy = request.deploy
    if not deploy.enabled or deploy.bootstrap == "none" or deploy.make_master:
        return Foresight()
    named = deploy.bootstrap != "keys" and bool(deploy.script or deploy.command)
    kept = named and not request.reset_identity
    masterless = not deploy.minion.get("master")
    masterless = masterless and deploy.minion.get("master_type") not in ("disable", "func")
    if not (masterless or kept):
        return Foresight()
    base, found = look(), script()
    warnings, conflicts = [], []
    if masterless and not base.installed and not _may_name_a_master(request, found):
        warnings.append(_nobody_names_a_master(opts, base))
    if kept and base.keys and (warning := _keys_stay(request, found)):
        warnings.append(warning)
    if base.installed is False and request.seed != OWN:
        conflicts += _nothing_to_install(request, found)
    return Foresight(tuple(conflicts), tuple(warnings))


def _may_name_a_master(request: Request, script: Script) -> bool:
    """Return whether something else than ``minion:`` may tell the minion its master."""
    deploy = request.deploy
    told = [*deploy.preflight_cmds, *deploy.inline_script, *deploy.file_map.values()]
    told += [_arguments(request)] + ([] if script.is_bootstrap else [script.text])
    by_option = script.is_bootstrap and _NAMES_MASTER.search(_arguments(request))
    return bool(by_option or any(map(_ITS_FILES.search, told))) or request.seed == OWN


def _arguments(request: Request) -> str:
    return f"{request.deploy.command} {request.deploy.script_args}"


def _nobody_names_a_master(opts: Mapping[str, Any], base: BaseMinion) -> str:
    begins = (
        "The profile names no master, and the base has no minion: a new one looks"
        if base.installed is False
        else "The profile names no master. If the base has no minion that knows one (its disks do "
        "not show that), a new one looks"
    )
    ends = ""
    if master_address.address(opts) == master_address.UNKNOWN:
        ends = f", with an {master_address.UNKNOWN} of this master that its guests reach"
    return (
        f"{begins} for a master called 'salt'. Write into the profile "
        f"'{master_address.line(opts)}'{ends}."
    )


def _keys_stay(request: Request, script: Script) -> str:
    """Return the warning for a script that leaves the base's keys; empty where it may not."""
    stay = (
        "The base has the keys of a minion, and with 'reset_identity: false' the clone keeps them"
    )
    if any(map(_ITS_FILES.search, request.deploy.preflight_cmds)):
        return ""
    if script.is_bootstrap:
        if _OVERWRITES.search(_arguments(request)):
            return ""
        return (
            f"{stay}: Salt's bootstrap script does not overwrite them unless it is told to, and "
            "the minion would come as that of the base. Write 'script_args: -F', or take "
            "'reset_identity: false' out."
        )
    if "minion.pem" in script.text:
        return ""
    return (
        f"{stay}: the deploy script does not mention the 'minion.pem' that lies beside it, and the "
        "minion would come as that of the base. Have it put minion.pem and minion.pub into "
        "/etc/salt/pki/minion, or take 'reset_identity: false' out."
    )


def _nothing_to_install(request: Request, script: Script) -> list[str]:
    if request.deploy.bootstrap == "keys":
        return [
            "The base has no salt-minion, and 'bootstrap: keys' installs none. Install Salt in the "
            "base, or write 'bootstrap: auto' and 'script:'."
        ]
    if not script.text and not request.deploy.command:
        return [
            "The base has no salt-minion, and there is no script to install one. Install Salt in "
            "the base, or write 'script:' into the profile."
        ]
    return []
