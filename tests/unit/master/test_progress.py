"""What a person at the terminal, and the log, are told beside the answer."""

from __future__ import annotations

import sys

import pytest

from saltext.kvmclone.config.catalogue import Problem
from saltext.kvmclone.master import progress

PROBLEMS = [Problem("FILE:3", "a", "cpu", "is wrong"), Problem("FILE:4", "a", "memry", "is wrong")]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_each_problem_is_logged_once_and_a_terminal_has_one_line(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    is_terminal: bool,
) -> None:
    monkeypatch.setattr(progress, "_said", set())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    for _ in range(2):
        progress.configuration(PROBLEMS)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "FILE:3: section 'a': key 'cpu': is wrong" in caplog.text
    out, err = capsys.readouterr()
    assert out == "", "the answer is a script's to read"
    assert err.count("\n") == int(is_terminal)
    assert ("2 problems in the configuration" in err) is is_terminal
