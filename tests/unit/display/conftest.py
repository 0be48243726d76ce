"""What the tests of the terminal share."""

from __future__ import annotations

import pytest

from saltext.kvmclone.display import screen


@pytest.fixture(autouse=True)
def _nothing_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is a command of its own."""
    monkeypatch.setattr(screen, "_notes", {})
