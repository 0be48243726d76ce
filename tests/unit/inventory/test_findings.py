"""Monitoring goes by the exit code of a doctor."""

from __future__ import annotations

import pytest

from saltext.kvmclone.inventory.findings import DANGER, NOTE, PROBLEM, exit_code


@pytest.mark.parametrize(
    ("levels", "unseen", "code"),
    [
        ((), False, 0),
        ((NOTE,), False, 0),
        ((NOTE, PROBLEM), False, 1),
        ((PROBLEM, DANGER, NOTE), False, 2),
        ((DANGER,), True, 2),
        ((PROBLEM,), True, 3),
        ((), True, 3),
    ],
)
def test_the_worst_that_is_known_decides(levels: tuple[str, ...], unseen: bool, code: int) -> None:
    assert exit_code(levels, unseen) == code
