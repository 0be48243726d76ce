"""What tests of several files of this folder share."""

from __future__ import annotations

import pytest

from saltext.kvmclone.hosts import rollback


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback, "ROLLBACK_RETRY_POLL_S", 0.01)
    monkeypatch.setattr(rollback, "ROLLBACK_RETRY_TIMEOUT_S", 0.2)
