"""Which host has which base, and whether it is the same."""

from __future__ import annotations

from saltext.kvmclone.errors import HostUnreachable, PlanRefused
from saltext.kvmclone.master import base_copies
from saltext.kvmclone.model.base_content import BaseState
from tests.support.base_hosts import GOLD, RUST, Host, hosts_of, states


def test_the_content_that_most_hosts_have_is_the_one() -> None:
    hosts = hosts_of(
        Host("kvm01", BaseState("debian12", RUST)),
        Host("kvm02", BaseState("debian12", GOLD)),
        Host("kvm03", BaseState("debian12", GOLD, 9)),
        Host("kvm04", BaseState("debian12")),
        Host("kvm05", BaseState("debian12", copying=True)),
        Host("kvm06"),
    )
    answer = base_copies.bases(hosts)
    assert states(answer) == {
        "kvm01": "other", "kvm02": "same", "kvm03": "same", "kvm04": "unknown",
        "kvm05": "copying", "kvm06": "missing",
    }  # fmt: skip
    assert answer["bases"]["debian12"]["kvm03"] == {"state": "same", "digest": GOLD, "bytes": 9}
    assert answer["retcode"] == 0


def test_of_two_contents_the_first_hosts_is_the_one() -> None:
    hosts = [Host("kvm02", BaseState("debian12", GOLD)), Host("kvm01", BaseState("debian12", RUST))]
    assert states(base_copies.bases(hosts_of(*hosts))) == {"kvm01": "same", "kvm02": "other"}


def test_a_base_with_a_record_on_one_host_is_looked_for_on_all() -> None:
    first = Host("kvm01", BaseState("rocky9", GOLD, marked=True))
    answer = base_copies.bases(hosts_of(first, Host("kvm02", BaseState("rocky9"))))
    assert states(answer, "rocky9") == {"kvm01": "same", "kvm02": "unknown"}
    assert states(answer) == {"kvm01": "missing", "kvm02": "missing"}


def test_what_is_not_known_is_read_if_asked() -> None:
    busy = PlanRefused("It runs.", "Stop it")
    first, second = Host("kvm01", BaseState("debian12")), Host("kvm02", BaseState("debian12"))
    second.breaks = {"hash_base": busy}
    answer = base_copies.bases(hosts_of(first, second), "debian12", hash=True)
    assert states(answer) == {"kvm01": "same", "kvm02": "unknown"}
    assert answer["bases"]["debian12"]["kvm02"]["error"]["message"] == "It runs."
    assert answer["retcode"] == 1


def test_a_host_that_does_not_answer_is_named() -> None:
    silent = Host("kvm02", base_states=HostUnreachable("It is down."))
    answer = base_copies.bases(hosts_of(Host("kvm01", BaseState("debian12", GOLD)), silent))
    assert states(answer) == {"kvm01": "same"}
    assert (list(answer["unreachable"]), answer["retcode"]) == (["kvm02"], 1)
