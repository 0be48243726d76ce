"""Hosts as whoever reads a hint has them, and records that a test changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.common import LIBVIRT_URI
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.hints import AT_HOST
from tests.support.refusals import Change


@pytest.fixture
def host(request: pytest.FixtureRequest) -> LocalHost:
    """Most hints are read on the host alone here; see :data:`both`."""
    ours = getattr(request, "param", AT_HOST)
    return LocalHost(LIBVIRT_URI, label="kvm01", ours=ours)


@pytest.fixture
def change(opened: Host) -> Change:
    """Changes the record of a clone."""

    def save(name: str, **changes: object) -> None:
        handle = opened.domain(name)
        record = handle.record()
        assert record is not None
        handle.save_record(replace(record, **changes))  # type: ignore[arg-type]

    return save
