"""Find the minions that a Salt target expression means, as Salt's master does itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import salt.utils.minions

from saltext.kvmclone.errors import ConfigError


def minions(opts: Mapping[str, Any], expression: str) -> tuple[str, ...]:
    """
    Return the ids of the minions that a target expression means, sorted.

    No minion is asked: Salt goes by accepted keys, and for grains and pillar by what it noted when
    a minion reported last.

    :param opts: The master's configuration.
    :param expression: In Salt's compound form; a glob is one, too.
    :raises ConfigError: None is meant.
    """
    # Not greedy: a minion whose grains are not known is not meant by one of them.
    found = _matcher(opts).check_minions(expression, "compound", greedy=False)["minions"]
    if not found:
        raise ConfigError(
            f"The target expression '{expression}' means no minion that this master knows.",
            f"Look: salt-key -L   Does it answer? salt -C '{expression}' test.ping",
        )
    return tuple(sorted(map(str, found)))


def accepted(opts: Mapping[str, Any], ids: Iterable[str]) -> frozenset[str]:
    """
    Return those of some minion ids that this master has an accepted key for.

    :param opts: The master's configuration.
    """
    wanted = list(ids)
    if not wanted:
        return frozenset()
    return frozenset(map(str, _matcher(opts).check_minions(wanted, "list")["minions"]))


def _matcher(opts: Mapping[str, Any]) -> Any:
    return salt.utils.minions.CkMinions(dict(opts))
