"""
Strike secrets out of texts.

Needs no other package, since any minion may use it; for XML see :mod:`.redaction`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

#: The mark in place of a value that is not shown.
HIDDEN = "<hidden>"

#: Shorter values occur in messages by chance.
SHORTEST = 4


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """
    Return a text with :data:`HIDDEN` for every secret and for each line of one.

    They are found as they are, and as a shell, YAML, JSON or Python writes them.
    """
    held = list(secrets)
    parts = {
        form for value in held for part in (value, *value.splitlines()) for form in _written(part)
    }
    for part in sorted(parts, key=len, reverse=True):
        # The first and last line of a PEM block are not secret, and short words match by chance.
        if len(part) >= SHORTEST and not part.startswith("-----"):
            text = text.replace(part, HIDDEN)
    for word in {value.strip() for value in held}:
        if 2 <= len(word) < SHORTEST:
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", HIDDEN, text)
    return re.sub(rf"{HIDDEN}(\s*{HIDDEN})+", HIDDEN, text)


def _written(part: str) -> set[str]:
    """
    Return the forms in which a secret may appear in a text.

    Also without white space at its ends, which is lost when a text is cut into lines.
    """
    return {
        form
        for bare in (part, part.strip())
        for form in (
            bare,
            bare.replace("'", "'\"'\"'"),
            bare.replace("'", "'\\''"),
            bare.replace("'", "''"),
            json.dumps(bare)[1:-1],
            json.dumps(bare, ensure_ascii=False)[1:-1],
            repr(bare)[1:-1],
        )
    }
