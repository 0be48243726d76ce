"""Hosts are held against their master, and against each other; where they agree nothing is said."""

from __future__ import annotations

import pytest

from saltext.kvmclone.inventory import host_findings
from saltext.kvmclone.inventory.findings import Finding
from saltext.kvmclone.master import fleet_findings
from saltext.kvmclone.master.fleet_findings import HostSeen
from saltext.kvmclone.model.base_content import BaseState
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.host_reports import HostCondition, Installation
from saltext.kvmclone.model.placement import HostLimits, HostOffer, Need

MASTER = Installation("0.2.0", "d1", "/master", python="3.11", clock=1000.0)
GIB = 2**30


def seen(promised: Need = Need(), before: float = 999.0, after: float = 1001.0,
         **changes: object) -> HostSeen:  # fmt: skip
    """A host that is as the master is, but for what is given."""
    keys = {"version": "0.2.0", "digest": "d1", "path": "/host", "clock": 1000.0, **changes}
    told = HostCondition(Installation(**keys), HostOffer(64 * GIB, 8, promised))  # type: ignore[arg-type]
    return HostSeen(Commands(minion="kvm01"), told, before=before, after=after)


def of_host(**changes: object) -> list[Finding]:
    return list(fleet_findings.of_host(seen(**changes), MASTER))  # type: ignore[arg-type]


def test_a_host_like_its_master_has_nothing() -> None:
    assert of_host() == []
    assert list(fleet_findings.of_copies(seen())) == []
    assert list(fleet_findings.of_promises(seen(Need(64 * GIB, 128)), HostLimits())) == []
    assert list(host_findings.of_installation(MASTER, "", Commands())) == []


def test_a_stale_sync_is_told_by_the_files_and_not_by_the_version() -> None:
    (finding,) = of_host(digest="d0")
    assert (finding.kind, finding.name, finding.level) == ("library-differs", "kvm01", "problem")
    assert "'/host'" in finding.message
    assert "'/master'" in finding.message
    assert finding.hint == "salt kvm01 saltutil.sync_all"
    assert of_host(digest="") == [], "a sync was at work at that moment"


def test_a_master_that_does_not_work_with_what_it_syncs_is_synced_first() -> None:
    assert list(fleet_findings.of_sync(MASTER, "")) == []
    (finding,) = fleet_findings.of_sync(MASTER, "/srv/salt/_utils/saltext/kvmclone")
    assert (finding.kind, finding.level) == ("sync-stale", "problem")
    assert finding.hint == "salt-run saltutil.sync_all"


@pytest.mark.parametrize(
    ("clock", "word"),
    [
        (1005.9, ""),  # asked at 999 and answered at 1001: it may be 4.9 s ahead
        (1006.9, "6 seconds ahead of"),
        (993.2, "6 seconds behind"),
        (994.5, ""),
    ],
)
def test_clocks_differ_where_the_way_there_and_back_cannot_explain_it(
    clock: float, word: str
) -> None:
    found = of_host(clock=clock, before=999.0, after=1001.0)
    assert [one.kind for one in found] == ["clock-differs"] * bool(word)
    assert all(word in one.message for one in found)


def test_a_slow_answer_is_no_skew() -> None:
    assert of_host(clock=1030.0, before=1000.0, after=1060.0) == []


def test_another_library_beside_the_modules_and_what_an_upgrade_lost_are_named() -> None:
    told = of_host(other="/ext/utils/saltext/kvmclone", lost=("libvirt-python", "paramiko"))
    assert [one.kind for one in told] == ["library-twice", "package-lost"]
    assert "'/ext/utils/saltext/kvmclone'" in told[0].message
    assert told[1].hint == "salt kvm01 cmd.run 'salt-pip install libvirt-python paramiko'"
    own = Installation("0.2.0", "d1", "/master", lost=("lxml",))
    (finding,) = host_findings.of_installation(own, "", Commands())
    assert finding.message.startswith("On this master an upgrade of Salt")
    assert finding.hint == "salt-pip install lxml"


@pytest.mark.parametrize(
    ("promised", "limits", "said"),
    [
        (Need(61 * GIB, 1), HostLimits(reserve_memory=4 * GIB), "and may promise 60 GiB"),
        (Need(70 * GIB, 1), HostLimits(memory_ratio=1.5), ""),
        (Need(1, 17), HostLimits(cpu_ratio=2), "17 CPUs, and may promise 16"),
        (Need(65 * GIB, 200), HostLimits(), "64 GiB; 200 CPUs"),
    ],
)  # fmt: skip
def test_a_host_is_over_its_promise_by_its_own_limits(
    promised: Need, limits: HostLimits, said: str
) -> None:
    found = list(fleet_findings.of_promises(seen(promised), limits))
    assert [one.kind for one in found] == ["over-promised"] * bool(said)
    assert all(said in one.message for one in found)
    assert all(one.hint == "salt-run kvmclone.list host=kvm01" for one in found)


def test_what_a_push_lacks_is_a_note() -> None:
    told = list(fleet_findings.of_copies(seen(lacking=("rsync", "qemu-utils"), shut="it is shut")))
    assert [(one.kind, one.level) for one in told] == [("no-push", "note")] * 2
    assert told[0].hint == "salt kvm01 pkg.install rsync,qemu-utils"
    assert "it is shut" in told[1].message


def base(digest: str = "", **keys: bool) -> BaseState:
    return BaseState("base", digest, **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("states", "kinds"),
    [
        ({"kvm01": base("a"), "kvm02": base("a"), "kvm03": None}, []),
        ({"kvm01": base("a"), "kvm02": base("b")}, ["bases-differ"]),
        ({"kvm01": base("a"), "kvm02": base("b"), "kvm03": base()}, ["bases-differ"]),
        ({"kvm01": base("a"), "kvm02": base()}, ["base-unread"]),
        ({"kvm01": base("a"), "kvm02": base(copying=True)}, []),
        ({"kvm01": base(), "kvm02": base()}, ["base-unread"]),
        ({"kvm01": None, "kvm02": base()}, []),
        ({"kvm01": None, "kvm02": None}, []),
    ],
)
def test_bases_of_one_profile_are_compared(
    states: dict[str, BaseState | None], kinds: list[str]
) -> None:
    told = list(fleet_findings.of_base("base", states))
    assert [one.kind for one in told] == kinds
    assert all("'kvm02'" in one.message for one in told)


def test_a_key_without_a_machine_is_one_that_no_clone_has() -> None:
    clones = [{"web1": "web1.example.com", "renamed": "web2"}, {"web3": ""}]
    hosts = [
        HostSeen(Commands(), HostCondition(MASTER, HostOffer(0, 0), clones=one)) for one in clones
    ]
    noted = {
        "web1.example.com": "web1",
        "web2": "web2",
        "web3.example.com": "web3",  # its create has not come so far
        "web4": "web4",  # its record cannot be read
        "web5.example.com": "web5",
    }
    assert fleet_findings.without_machine(noted, hosts, ["web4"]) == ["web5.example.com"]
    finding = fleet_findings.of_key("web5.example.com", "web5")
    assert (finding.kind, finding.level) == ("key-without-machine", "problem")
    assert finding.hint == "salt-run kvmclone.destroy web5"
