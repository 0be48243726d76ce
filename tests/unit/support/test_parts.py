"""``make test`` runs its tests in parts: every test in exactly one of them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.common import CHECKOUT


def words(targets: Sequence[str]) -> list[Path]:
    """Return the files and folders that these targets of the Makefile give to pytest."""
    command = ["make", "--dry-run", "--no-print-directory", "-C", CHECKOUT, *targets]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [Path(word) for word in re.findall(r"\btests/\S+", done.stdout)]


def targets(prefix: str, of: str) -> list[str]:
    """Return the targets that the recipe of another one starts."""
    text = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    (listed,) = re.findall(of, text, re.MULTILINE)
    return [prefix + word for word in listed.split()]


@pytest.mark.parametrize(
    ("prefix", "of", "layers"),
    [
        ("part-", r"^PARTS := (.*)$", ("unit", "functional", "integration", "e2e")),
        ("fast-", r"addprefix fast-,([^)]*)", ("unit", "functional")),
    ],
)
def test_every_test_is_in_exactly_one_part(prefix: str, of: str, layers: tuple[str, ...]) -> None:
    given = words(targets(prefix, of))
    files = [
        path.relative_to(CHECKOUT)
        for layer in layers
        for path in (CHECKOUT / "tests" / layer).rglob("test_*.py")
    ]
    assert len(files) > 50
    for file in files:
        assert sum(file == word or word in file.parents for word in given) == 1, file
