"""What every layer shares."""

from __future__ import annotations

import logging

import hypothesis
import pytest

# A loaded machine is slow, and that is no fault of an example.
hypothesis.settings.register_profile("kvmclone", deadline=None)
hypothesis.settings.load_profile("kvmclone")


def pytest_unconfigure(config: pytest.Config) -> None:
    """
    Salt keeps early log messages and writes them when the interpreter ends, to the stderr
    that pytest has closed by then; the complaint about that would be the last thing printed.
    """
    logging.raiseExceptions = False
