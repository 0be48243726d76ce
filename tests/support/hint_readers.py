"""Fixtures of tests about hints, which are read on the master and on the KVM host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.common import LIBVIRT_URI
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.hints import AT_HOST, AT_MASTER, Commands


@pytest.fixture(params=[AT_MASTER, AT_HOST])
def host(request: pytest.FixtureRequest) -> LocalHost:
    """Each is read on the master, which reaches the host through its minion, and on the host."""
    return LocalHost(LIBVIRT_URI, label="kvm01", ours=request.param)


@pytest.fixture
def connected(host: LocalHost) -> Iterator[Host]:
    with Host(host.url, commands=Commands(host.url, host.ours, host.label)) as opened:
        yield opened
