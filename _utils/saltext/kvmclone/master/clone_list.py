"""Choose and sort the clones of a list, by what was typed after ``list``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone.display.clones import COLUMNS, column_names, sort_key
from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.hypervisor.constants import STATES
from saltext.kvmclone.model.clone import Clone


@dataclass(frozen=True)
class Selection:
    """
    Which clones of all hosts are listed, and in what order.

    :param host: What the host is called in the list, or the label of its provider; as all of these,
        empty for any.
    :param state: libvirt's, in the words of docs/answers.md.
    :param sort: A column; empty for the order of the hosts.
    :param spare: It is a spare in stock, or none; None for any.
    :param claimed: Somebody has claimed it, or nobody has; None for any.
    """

    host: str = ""
    base: str = ""
    profile: str = ""
    tag: str = ""
    state: str = ""
    sort: str = ""
    spare: bool | None = None
    claimed: bool | None = None

    def takes(self, label: str, clone: Clone) -> bool:
        """
        Return True if a clone is one of those.

        :param label: The label of its host.
        """
        return (
            self.host in ("", label, clone.host)
            and self.base in ("", clone.base)
            and self.profile in ("", clone.profile)
            and self.state in ("", clone.state)
            and (not self.tag or self.tag in clone.tags)
            and self.spare in (None, clone.in_stock)
            and self.claimed in (None, bool(clone.claim.at))
        )

    def require_host(self, known: Iterable[str]) -> None:
        """
        Refuse a host that is none of these.

        :raises ConfigError: It is not, so the list would be empty for the wrong reason.
        """
        if self.host:
            _require("host", self.host, known)

    def in_order(self, clones: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return CLONEs in order.

        :param clones: By what they are called in the answer.
        """
        if not self.sort:
            return dict(clones)
        return dict(sorted(clones.items(), key=sort_key(self.sort)))


def selection(columns: Any, sort: Any, only: Mapping[str, Any]) -> Selection:
    """
    Return what was typed after ``list``, checked.

    :param columns: The columns to show, which only the terminal needs; None for the usual ones.
    :param sort: The column to sort by; None for the order of the hosts.
    :param only: ``host``, ``base``, ``profile``, ``tag``, ``state``, ``spare``, ``claimed``; None
        for any.
    :raises ConfigError: There is no such column or state, or one is neither True nor False.
    """
    sorted_by = column_names(sort)
    if len(sorted_by) > 1:
        raise ConfigError(
            f"A list is sorted by one column, not by {', '.join(sorted_by)}.",
            "Name one of them.",
        )
    for column in (*column_names(columns), *sorted_by):
        _require("column", column, COLUMNS)
    spare, claimed = _switch(only, "spare"), _switch(only, "claimed")
    given = {key: value for key, value in only.items() if value is not None}
    texts = {key: str(given[key]) for key in given if key not in ("spare", "claimed")}
    if "state" in texts:
        _require("state", texts["state"], STATES.values())
    return Selection(**texts, sort=next(iter(sorted_by), ""), spare=spare, claimed=claimed)


def _switch(only: Mapping[str, Any], key: str) -> bool | None:
    value = only.get(key)
    if value is not None and not isinstance(value, bool):
        raise ConfigError(f"{key}={value} is neither True nor False.", f"Write {key}=True.")
    return value


def _require(what: str, word: str, known: Iterable[str]) -> None:
    names = list(dict.fromkeys(known))
    if word not in names:
        near = difflib.get_close_matches(word, names, 1)
        meant = f"Did you mean '{near[0]}'? " if near else ""
        raise ConfigError(f"There is no {what} '{word}'.", f"{meant}There are: {', '.join(names)}")
