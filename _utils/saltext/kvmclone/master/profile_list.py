"""
List the providers and profiles of a master, for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.master import spares_make, spares_notes, spares_overview


def listing(opts: Mapping[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    """
    Return what the runner says of the providers and profiles of this master.

    Its warnings have that profiles want spares and nothing refills them.

    :return: See ``profiles`` in docs/answers.md.
    """
    found = catalogue.describe()
    if any(spares_make.numbers(catalogue).values()):
        text = spares_overview.why_not_refilled(spares_notes.read(opts))
        found["warnings"] += [text] if text else []
    return {**found, "retcode": int(bool(found["problems"]))}
