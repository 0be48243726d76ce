"""A host's word about its clones: taken in a form that is known, or not at all."""

from __future__ import annotations

from typing import Any, cast

import pytest

from saltext.kvmclone.errors import HostUnreachable
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.reactor import queries
from saltext.kvmclone.reactor.queries import CloneReport, HostReport

UUID = "6f1c9a52-6f7e-4a53-9d43-0d1b8f1c1d11"

CLONE = {
    "name": "web1",
    "uuid": UUID,
    "stage": "ready",
    "complete": True,
    "request": "0123",
    "expired": True,
    "minion": "web1.example.com",
    "fingerprint": "aa:bb",
}


class Telling:
    """A host that answers so."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def witness(self, _names: list[str], _ids: list[str]) -> Any:
        return self.answer


def host(answer: Any) -> KvmHost:
    return cast(KvmHost, Telling(answer))


def test_what_a_host_knows_arrives_whole() -> None:
    found = queries.witness(host({"domains": ["web1"], "clones": [CLONE]}))
    known = CloneReport("web1", UUID, "ready", "0123", "web1.example.com", "aa:bb", expired=True)
    assert found == HostReport(("web1",), (known,))


def test_all_hosts_together_know_what_each_of_them_does() -> None:
    one = host({"domains": ["web1"], "clones": [CLONE]})
    other = host({"domains": ["db1"], "clones": []})
    found = queries.everywhere([("one", one), ("other", other)])
    assert found.domains == ("web1", "db1")
    assert [clone.name for clone in found.clones] == ["web1"]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {"domains": []},
        {"domains": [], "clones": ["web1"]},
        {"domains": [], "clones": [{**CLONE, "minion": None}]},
        {"domains": [], "clones": [{**CLONE, "uuid": "../../etc/passwd"}]},
    ],
)
def test_another_form_is_no_answer(answer: Any) -> None:
    with pytest.raises(HostUnreachable):
        queries.witness(host(answer))
