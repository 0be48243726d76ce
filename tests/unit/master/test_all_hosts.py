"""All hosts at once: one daemon is shown once, two machines of one name are both shown."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from saltext.kvmclone.config.catalogue import build
from saltext.kvmclone.errors import ConfigError, HostUnreachable, MissingPackage, NotFound
from saltext.kvmclone.master.all_hosts import AllHosts
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.host_reports import Daemon
from tests.support.catalogues import profile, provider


class Host:
    """A KVM host with these clones; two with one daemon's word are two names of one."""

    def __init__(self, name: str, *clones: Clone, machines: str = "", **told: Any) -> None:
        self.clones = clones
        domains = frozenset(machines or [clone.uuid for clone in clones])
        self.told = Daemon("h", name, "QEMU", "system", "", domains, frozenset())
        self.told = replace(self.told, **told)

    def daemon(self) -> Daemon:
        return self.told

    def list_clones(self) -> list[Clone]:
        return list(self.clones)

    def show(self, name: str) -> Clone:
        for clone in self.clones:
            if clone.name == name:
                return clone
        raise NotFound(name)

    def tree(self) -> dict[str, Any]:
        return {"bases": {clone.base: {} for clone in self.clones}}

    def capacity(self) -> dict[str, Any]:
        return {"cpus": 2}

    def doctor(self) -> list[dict[str, Any]]:
        texts = {"kind": "failed", "level": "problem", "name": "", "message": "", "hint": ""}
        return [dict(texts) for _clone in self.clones]


def clone(name: str, uuid: str, host: str = "", of: str = "") -> Clone:
    return Clone(name, uuid, host, "base", of, "quick", "running", "addressed")


MINION = {"driver": "libvirt", "host": "kvm01", "url": "qemu:///system"}
DIRECT = {"driver": "libvirt", "url": "qemu+ssh://kvm01/system"}
OTHER = {"driver": "libvirt", "host": "kvm02"}
BAD = {"provider": "minion", "base_domain": "base"}


def everything(hosts: dict[tuple[str, str], Any], **providers: Any) -> AllHosts:
    sections = [provider(name.replace("_", "-"), keys) for name, keys in providers.items()]
    sections += [
        profile(f"on-{section.name}", {"provider": section.name, "base_domain": "base"})
        for section in sections
    ]
    return AllHosts(build(sections), lambda minion, url: hosts[minion, url])


@pytest.fixture
def twice() -> AllHosts:
    """One daemon, through the minion on its host and driven from the master."""
    seen = {
        label: [clone("web1", "u1", label), clone("web2", "u2", label, "on-direct")]
        for label in ("kvm01", "node")
    }
    return everything(
        {
            ("kvm01", "qemu:///system"): Host("node", *seen["kvm01"]),
            ("", "qemu+ssh://kvm01/system"): Host("node", *seen["node"]),
        },
        minion=MINION,
        direct=DIRECT,
    )


def test_each_clone_is_listed_once_as_its_own_provider_shows_it(twice: AllHosts) -> None:
    clones = twice.listing()["clones"]
    assert {name: told["host"] for name, told in clones.items()} == {
        "web1": "kvm01",
        "web2": "node",
    }


def test_hosts_tree_and_doctor_show_the_daemon_once_and_name_it(twice: AllHosts) -> None:
    hosts = twice.capacities()["hosts"]
    assert hosts["kvm01"]["also"] == ["qemu+ssh://kvm01/system"]
    assert len(hosts) == 1
    assert {base: one["host"] for base, one in twice.tree()["bases"].items()} == {"base": "kvm01"}
    told = twice.doctor()[0]
    assert [item["kind"] for item in told] == ["failed", "failed", "daemon-twice"]
    assert "'direct', 'minion'" in told[-1]["message"]


def test_a_machine_that_two_names_show_is_not_ambiguous(twice: AllHosts) -> None:
    host, found = twice.find("web1")
    assert found.host == "kvm01", "no profile says more, so it is the first"
    assert twice.find("web2")[1].host == "node", "an action goes by its own provider"
    assert isinstance(host, Host)


def test_a_copied_machine_on_another_host_is_ambiguous_although_its_uuid_is_the_same() -> None:
    copied = everything(
        {
            ("kvm01", "qemu:///system"): Host("kvm01", clone("web1", "u1"), machines="xy"),
            ("kvm02", "qemu:///system"): Host("kvm02", clone("web1", "u1"), machines="xy"),
        },
        minion=MINION,
        other=OTHER,
    )
    with pytest.raises(ConfigError, match="on several hosts: kvm01, kvm02") as refused:
        copied.find("web1")
    assert "salt kvm01 kvm_clone.show web1" in refused.value.hint
    assert set(copied.listing()["clones"]) == {"web1", "web1 (kvm02)"}
    assert set(copied.capacities()["hosts"]) == {"kvm01", "kvm02"}
    told = copied.doctor()[0][-1]
    assert told["kind"] == "host-uuid-twice"
    assert told["hint"] == "salt kvm02 cmd.run 'virsh -c qemu:///system capabilities'"


def test_a_host_that_this_machine_lacks_a_package_for_keeps_no_other_from_work() -> None:
    class Lacking(Host):
        def show(self, name: str) -> Clone:
            raise MissingPackage("needs libvirt-python")

    some = everything(
        {
            ("kvm02", "qemu:///system"): Host("kvm02", clone("web1", "u1")),
            ("", "qemu+ssh://kvm01/system"): Lacking("kvm01"),
        },
        other=OTHER,
        direct=DIRECT,
    )
    assert some.find("web1")[1].uuid == "u1"
    with pytest.raises(HostUnreachable, match="needs libvirt-python"):
        some.find("web2")


def test_two_machines_of_one_name_are_both_listed() -> None:
    both = everything(
        {
            ("kvm01", "qemu:///system"): Host("kvm01", clone("web1", "u1"), uuid="h1"),
            ("kvm02", "qemu:///system"): Host("kvm02", clone("web1", "u2"), uuid="h2"),
        },
        minion=MINION,
        other=OTHER,
    )
    assert set(both.listing()["clones"]) == {"web1", "web1 (kvm02)"}


def test_two_daemons_behind_one_minion_are_both_asked() -> None:
    session = {**MINION, "url": "qemu:///session"}
    both = everything(
        {
            ("kvm01", "qemu:///system"): Host("kvm01", clone("web1", "u1")),
            ("kvm01", "qemu:///session"): Host("kvm01", clone("web2", "u2"), mode="session"),
        },
        minion=MINION,
        session=session,
    )
    assert set(both.listing()["clones"]) == {"web1", "web2"}
    assert set(both.capacities()["hosts"]) == {"kvm01", "kvm01 qemu:///session"}


def test_a_clone_that_was_made_between_the_two_looks_is_listed_once() -> None:
    web1, web2 = clone("web1", "u1"), clone("web2", "u2")
    first = Host("node", web1)
    first.told = replace(first.told, domains=frozenset({"u1", "u2"}))
    found = everything(
        {
            ("kvm01", "qemu:///system"): first,
            ("", "qemu+ssh://kvm01/system"): Host("node", web1, web2),
        },
        minion=MINION,
        direct=DIRECT,
    )
    assert list(found.listing()["clones"]) == ["web1", "web2"]


# --- what cannot be read --------------------------------------------------------------


def test_a_provider_with_a_slip_is_named_and_the_others_are_shown() -> None:
    slip = {**OTHER, "pol": "fast"}
    hosts = {("kvm01", "qemu:///system"): Host("kvm01", clone("web1", "u1"))}
    found = everything(hosts, minion=MINION, kvm_b=slip)
    told = found.listing()
    assert set(told["clones"]) == {"web1"}
    assert told["unreachable"]["kvm-b"]["type"] == "ConfigError"
    assert "key 'pol'" in told["unreachable"]["kvm-b"]["message"]
    assert told["retcode"] == 1
    assert found.find("web1")[1].uuid == "u1"
    with pytest.raises(ConfigError, match=r"'web9' is on no host that could be asked.*'pol'"):
        found.find("web9")
    assert found.capacities()["hosts"]["kvm-b"]["reachable"] is False


def test_a_profile_with_a_slip_hides_no_host() -> None:
    sections = [provider("minion", MINION), profile("bad", {**BAD, "cpu": 2})]
    host = Host("kvm01", clone("web1", "u1"))
    found = AllHosts(build(sections), lambda _minion, _url: host)  # type: ignore[arg-type,return-value]
    assert "unreachable" not in found.listing()
    with pytest.raises(NotFound):
        found.find("web9")
    (finding,) = [item for item in found.doctor()[0] if item["kind"] == "configuration"]
    assert (finding["name"], finding["host"], finding["level"]) == ("bad", "", "problem")


def test_a_host_that_went_away_is_none_that_has_nothing() -> None:
    class Down(Host):
        def show(self, name: str) -> Clone:
            raise HostUnreachable("down")

    hosts = {
        ("kvm01", "qemu:///system"): Host("kvm01"),
        ("kvm02", "qemu:///system"): Down("kvm02"),
    }
    with pytest.raises(HostUnreachable, match="no answer from kvm02"):
        everything(hosts, minion=MINION, other=OTHER).find("web1")


# --- profiles that may go to several hosts --------------------------------------------


def fleet(hosts: dict[str, Host], *sections: Any, **means: Any) -> AllHosts:
    """Hosts by minion id; what an expression means is given, too."""

    def meant(expression: str) -> list[str]:
        found = means.get(expression.rstrip("*"), [])
        if not found:
            raise ConfigError(f"'{expression}' means no minion")
        return list(found)

    return AllHosts(build(sections), lambda minion, _url: hosts[minion], meant)  # type: ignore[arg-type,return-value]


THREE = {
    f"kvm0{n}": Host(f"kvm0{n}", clone(f"web{n}", f"u{n}", f"kvm0{n}", "many"), uuid=f"h{n}")
    for n in (1, 2, 3)
}
LISTED = provider("listed", {"driver": "libvirt", "hosts": ["kvm01", "kvm02"]})
MEANT = provider("meant", {"driver": "libvirt", "hosts": "kvm*"})
MANY = profile("many", {"provider": "listed", "base_domain": "base"})


def test_every_host_that_a_clone_may_have_been_placed_on_is_looked_at() -> None:
    found = fleet(THREE, LISTED, MANY)
    assert set(found.listing()["clones"]) == {"web1", "web2"}
    assert found.find("web2")[1].host == "kvm02"
    meant = fleet(THREE, MEANT, kvm=["kvm01", "kvm02", "kvm03"])
    assert set(meant.listing()["clones"]) == {"web1", "web2", "web3"}
    own = profile("own", {"provider": "listed", "base_domain": "base", "hosts": ["kvm03"]})
    assert fleet(THREE, LISTED, own).find("web3")[1].host == "kvm03"


def test_an_expression_that_means_nobody_hides_hosts_so_nothing_counts_as_gone() -> None:
    found = fleet(THREE, LISTED, MEANT)
    told = found.listing()
    assert set(told["clones"]) == {"web1", "web2"}
    assert told["unreachable"]["provider meant"]["message"] == "'kvm*' means no minion"
    assert told["retcode"] == 1
    with pytest.raises(HostUnreachable, match="means no minion"):
        found.find("web9")
    with pytest.raises(HostUnreachable, match="means no minion"):
        fleet(THREE, MEANT).find("web1")


def test_a_host_that_an_expression_no_longer_means_is_looked_at_while_it_may_have_clones() -> None:
    found = fleet(THREE, MEANT, kvm=["kvm01"])
    found._ways.homes = lambda: [("kvm03", "qemu:///system")]
    assert set(found.listing()["clones"]) == {"web1", "web3"}


def test_a_name_on_two_hosts_is_a_finding_and_no_action_guesses() -> None:
    both = {name: Host(name, clone("web1", name, name, "many"), uuid=name) for name in THREE}
    found = fleet(both, LISTED, MANY)
    (finding,) = [one for one in found.doctor()[0] if one["kind"] == "name-twice"]
    assert (finding["name"], finding["level"]) == ("web1", "problem")
    assert "'kvm01' and 'kvm02'" in finding["message"]
    assert finding["hint"] == "salt kvm01 kvm_clone.show web1"
    with pytest.raises(ConfigError, match="exists on several hosts"):
        found.find("web1")


def test_hosts_are_asked_at_the_same_time_and_keep_their_order() -> None:
    start = threading.Barrier(3, timeout=10)

    def work(host: Any) -> str:
        start.wait()
        return str(host.told.name)

    found = fleet(THREE, MEANT, kvm=["kvm01", "kvm02", "kvm03"])
    told, failed = found.look(work)
    assert (list(told.values()), failed) == (["kvm01", "kvm02", "kvm03"], {})


def test_a_host_that_was_silent_is_not_asked_again() -> None:
    found = fleet(THREE, MEANT, kvm=["kvm01", "kvm02"])
    told, failed = found.look(lambda host: host.capacity(), silent={"kvm01": "down"})
    assert (list(told), failed) == (["kvm02"], {})
