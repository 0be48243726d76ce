"""
Find the host that has a base.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from saltext.kvmclone.errors import ConfigError, HostUnreachable, NotFound
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.master.all_hosts import AllHosts
from saltext.kvmclone.model.base_content import BaseState


def state_of(host: KvmHost, base: str) -> BaseState | None:
    """Return what a host has of a base; None where it has no machine of that name."""
    return next((one for one in host.base_states([base]) if one.name == base), None)


def host_of(
    everywhere: AllHosts,
    base: str,
    state: Callable[[KvmHost], BaseState | None],
    command: Callable[[str], str],
    besides: Collection[str] = (),
    alike: bool = False,
) -> str:
    """
    Return the label of the host that has a base.

    :param state: Returns what a host has of it; None for nothing.
    :param command: Returns what to type where the host of that label is meant.
    :param besides: Labels of hosts that are not meant.
    :param alike: Take one of several, where their contents are known to be the same.
    :raises ConfigError: Several have it.
    :raises HostUnreachable: None that answers has it, and one does not answer.
    :raises NotFound: None has it.
    """
    told, failed = everywhere.look(state)
    there = everywhere.once(told).items()
    having = {label: one for label, one in there if one is not None and label not in besides}
    contents = {one.digest or label for label, one in having.items()}
    if len(having) == 1 or (alike and len(contents) == 1):
        return min(having)
    if having:
        unlike = ", and it is not known that their contents are the same" if alike else ""
        raise ConfigError(
            f"Several hosts have a base '{base}'{unlike}: {', '.join(sorted(having))}.",
            f"Name the one that is meant: {command(min(having))}",
        )
    if failed:
        raise HostUnreachable(
            f"No host that answers has a base '{base}'; no answer from {', '.join(failed)}.",
            "Repeat this when the host is back.",
        )
    raise NotFound(
        f"No {'other ' if besides else ''}host has a base '{base}'.",
        "See what there is: salt-run kvmclone.bases",
    )
