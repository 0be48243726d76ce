"""Hold what one look at all hosts found, as the page shows it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saltext.kvmclone.model.clone import Clone

#: What reading an answer raises that has not the form that it should have: a host may say anything.
ODD_ANSWER = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class Picture:
    """
    All that the page shows. The shapes are those of docs/answers.md.

    :param master: What the master is called.
    :param made: When it was looked, seconds since the epoch.
    :param path: The file that the page becomes.
    :param clones: Every clone by its name, or ``NAME (HOST)`` where two hosts have one.
    :param hosts: HOST by label.
    :param bases: The state of each base by host, by the name of the base.
    :param tree: Bases with the clones made from them, by name.
    :param findings: What the doctor found, with ``host``.
    :param unseen: The error of whatever did not answer or could not be read, by its label.
    :param reached: Labels of the hosts that have a minion, which copy bases.
    """

    master: str
    made: float
    path: str
    clones: Mapping[str, Clone] = field(default_factory=dict)
    hosts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bases: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    tree: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    findings: Sequence[Mapping[str, Any]] = ()
    unseen: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reached: frozenset[str] = frozenset()
