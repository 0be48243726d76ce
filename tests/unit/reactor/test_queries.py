"""What all KVM hosts know of some clones together."""

from __future__ import annotations

from typing import cast

import pytest

from saltext.kvmclone.errors import ConfigError, HostUnreachable
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.model.host_reports import CloneReport, HostReport
from saltext.kvmclone.reactor import queries

UUID = "6f1c9a52-6f7e-4a53-9d43-0d1b8f1c1d11"
CLONE = CloneReport("web1", UUID, "ready", "0123", "web1.example.com", "aa:bb", expired=True)


class Telling:
    """A host that answers so."""

    def __init__(self, answer: HostReport | HostUnreachable) -> None:
        self.answer = answer

    def report_domains(self, _names: list[str], _ids: list[str]) -> HostReport:
        if isinstance(self.answer, HostUnreachable):
            raise self.answer
        return self.answer


def host(answer: HostReport | HostUnreachable) -> KvmHost:
    return cast(KvmHost, Telling(answer))


def test_all_hosts_together_know_what_each_of_them_does() -> None:
    one, other = (
        host(HostReport(("web1",), (CLONE,))),
        host(HostReport(("db1",), (CLONE,), ("db2",))),
    )
    found = queries.everywhere([("one", one), ("other", other)])
    assert found == HostReport(("web1", "db1"), (CLONE,), ("db2",))


def test_while_one_host_does_not_answer_or_there_is_none_nobody_can_tell() -> None:
    hosts = [("one", host(HostReport())), ("other", host(HostUnreachable("down")))]
    with pytest.raises(HostUnreachable):
        queries.everywhere(hosts)
    with pytest.raises(ConfigError):
        queries.everywhere([])
