"""What every layer shares."""

from __future__ import annotations

import logging

import pytest


def pytest_unconfigure(config: pytest.Config) -> None:
    """
    Salt keeps early log messages and writes them when the interpreter ends, to the stderr
    that pytest has closed by then; the complaint about that would be the last thing printed.
    """
    logging.raiseExceptions = False
