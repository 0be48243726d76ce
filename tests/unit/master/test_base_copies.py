"""Which host has which base; and a push that ends whole, or says why not and tidies up."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from saltext.kvmclone.config.catalogue import build
from saltext.kvmclone.errors import (
    ConfigError,
    CopyFailed,
    CreateInProgress,
    HostUnreachable,
    KvmCloneError,
    NotFound,
    PlanRefused,
)
from saltext.kvmclone.master import base_copies
from saltext.kvmclone.master.all_hosts import AllHosts
from saltext.kvmclone.model.base_content import BaseState
from saltext.kvmclone.model.base_copy import BaseOffer, CopyKey
from saltext.kvmclone.model.host_reports import Daemon
from tests.support.catalogues import profile, provider

GOLD, RUST = "d" * 64, "e" * 64
KEY = CopyKey("ssh-ed25519 A", ("10.0.0.2",))


class Host:
    """A host with these bases; ``breaks`` is the operation that fails there."""

    def __init__(self, name: str, *bases: BaseState, **breaks: BaseException) -> None:
        self.name = name
        self.bases = {base.name: base for base in bases}
        self.breaks = breaks
        self.did: list[str] = []

    def _do(self, what: str) -> None:
        self.did.append(what)
        if what in self.breaks:
            raise self.breaks[what]

    def daemon(self) -> Daemon:
        return Daemon("h", self.name, "QEMU", "system", "", frozenset(self.name), frozenset())

    def base_states(self, names: list[str]) -> list[BaseState]:
        self._do("base_states")
        return [base for base in self.bases.values() if base.marked or base.name in names]

    def hash_base(self, name: str) -> BaseState:
        self._do("hash_base")
        base = self.bases[name]
        self.bases[name] = BaseState(name, base.digest or GOLD, 7, marked=True)
        return self.bases[name]

    def expect_base(self, name: str) -> BaseState:
        self._do("expect_base")
        return self.hash_base(name) if name in self.bases else BaseState(name)

    def offer_base(self, name: str, copy: str) -> BaseOffer:
        self._do("offer_base")
        return BaseOffer(copy, name, self.bases[name].digest, ())

    def prepare_copy(self, offer: BaseOffer) -> CopyKey:
        self._do("prepare_copy")
        return KEY

    def admit_copy(self, name: str, copy: str, key: CopyKey) -> str:
        self._do("admit_copy")
        assert key == KEY
        return "/keys"

    def fetch_base(self, offer: BaseOffer) -> BaseState:
        self._do("fetch_base")
        self.bases[offer.base] = BaseState(offer.base, offer.digest, 5, marked=True)
        return self.bases[offer.base]

    def end_copy(self, copy: str) -> list[Any]:
        self._do("end_copy")
        return []


def fleet_of(*hosts: Host, url: str = "") -> Any:
    sections = [provider(host.name, {"driver": "libvirt", "host": host.name}) for host in hosts]
    sections += [profile("web", {"provider": hosts[0].name, "base_domain": "debian12"})]
    by_name = {host.name: host for host in hosts}
    if url:
        sections += [provider("far", {"driver": "libvirt", "url": url})]
        by_name[url] = Host(url)
    catalogue = build(sections)

    def connect(minion: str, url: str) -> Any:
        return by_name[minion or url]

    everywhere = AllHosts(catalogue, connect)
    return SimpleNamespace(
        catalogue=catalogue, everywhere=everywhere, host=connect, hosts=everywhere.hosts
    )


def states(answer: dict[str, Any], base: str = "debian12") -> dict[str, str]:
    return {host: cell["state"] for host, cell in answer["bases"][base].items()}


# --- what there is --------------------------------------------------------------------


def test_the_content_that_most_hosts_have_is_the_one() -> None:
    fleet = fleet_of(
        Host("kvm01", BaseState("debian12", RUST)),
        Host("kvm02", BaseState("debian12", GOLD)),
        Host("kvm03", BaseState("debian12", GOLD, 9)),
        Host("kvm04", BaseState("debian12")),
        Host("kvm05", BaseState("debian12", copying=True)),
        Host("kvm06"),
    )
    answer = base_copies.bases(fleet)
    assert states(answer) == {
        "kvm01": "other", "kvm02": "same", "kvm03": "same", "kvm04": "unknown",
        "kvm05": "copying", "kvm06": "missing",
    }  # fmt: skip
    assert answer["bases"]["debian12"]["kvm03"] == {"state": "same", "digest": GOLD, "bytes": 9}
    assert answer["retcode"] == 0


def test_of_two_contents_the_first_hosts_is_the_one() -> None:
    hosts = [Host("kvm02", BaseState("debian12", GOLD)), Host("kvm01", BaseState("debian12", RUST))]
    assert states(base_copies.bases(fleet_of(*hosts))) == {"kvm01": "same", "kvm02": "other"}


def test_a_base_with_a_record_on_one_host_is_looked_for_on_all() -> None:
    first = Host("kvm01", BaseState("rocky9", GOLD, marked=True))
    answer = base_copies.bases(fleet_of(first, Host("kvm02", BaseState("rocky9"))))
    assert states(answer, "rocky9") == {"kvm01": "same", "kvm02": "unknown"}
    assert states(answer) == {"kvm01": "missing", "kvm02": "missing"}


def test_what_is_not_known_is_read_if_asked() -> None:
    busy = PlanRefused("It runs.", "Stop it")
    first, second = Host("kvm01", BaseState("debian12")), Host("kvm02", BaseState("debian12"))
    second.breaks = {"hash_base": busy}
    answer = base_copies.bases(fleet_of(first, second), "debian12", hash=True)
    assert states(answer) == {"kvm01": "same", "kvm02": "unknown"}
    assert answer["bases"]["debian12"]["kvm02"]["error"]["message"] == "It runs."
    assert answer["retcode"] == 1


def test_a_host_that_does_not_answer_is_named() -> None:
    silent = Host("kvm02", base_states=HostUnreachable("It is down."))
    answer = base_copies.bases(fleet_of(Host("kvm01", BaseState("debian12", GOLD)), silent))
    assert states(answer) == {"kvm01": "same"}
    assert (list(answer["unreachable"]), answer["retcode"]) == (["kvm02"], 1)


# --- push -----------------------------------------------------------------------------


def test_a_push_ends_whole_and_takes_its_key_back() -> None:
    source, target = Host("kvm01", BaseState("debian12", GOLD)), Host("kvm02")
    answer = base_copies.push(fleet_of(source, target), "debian12", ["kvm02"])
    assert (states(answer), answer["retcode"]) == ({"kvm01": "same", "kvm02": "same"}, 0)
    assert source.did == ["base_states", "hash_base", "offer_base", "admit_copy", "end_copy"]
    assert target.did == ["base_states", "expect_base", "prepare_copy", "fetch_base"]


def test_a_host_that_has_it_is_left_as_it_is() -> None:
    source, target = (Host(name, BaseState("debian12", GOLD)) for name in ("kvm01", "kvm02"))
    answer = base_copies.push(fleet_of(source, target), "debian12", ["kvm02"])
    assert (states(answer)["kvm02"], answer["retcode"]) == ("same", 0)
    assert "offer_base" not in source.did


def test_a_host_with_another_content_keeps_it() -> None:
    source = Host("kvm01", BaseState("debian12", GOLD))
    target = Host("kvm02", BaseState("debian12", RUST))
    answer = base_copies.push(fleet_of(source, target), "debian12", ["kvm02"], "kvm01")
    cell = answer["bases"]["debian12"]["kvm02"]
    assert (cell["state"], cell["digest"], cell["error"]["type"]) == ("other", RUST, "BaseDiffers")
    assert "offer_base" not in source.did


@pytest.mark.parametrize("where", ["offer_base", "prepare_copy", "admit_copy", "fetch_base"])
def test_a_failure_is_one_hosts_and_everything_is_taken_back(where: str) -> None:
    error = CopyFailed("It broke.", "Mend it")
    source, bad = Host("kvm01", BaseState("debian12", GOLD)), Host("kvm02")
    good = Host("kvm03")
    (source if where in ("offer_base", "admit_copy") else bad).breaks[where] = error
    answer = base_copies.push(fleet_of(source, bad, good), "debian12", ["kvm02", "kvm03"])
    cell = answer["bases"]["debian12"]["kvm02"]
    assert (cell["state"], cell["error"]["type"], answer["retcode"]) == ("missing", "CopyFailed", 1)
    assert ("'kvm01'" in cell["error"]["message"]) == (where in ("offer_base", "admit_copy"))
    assert source.did.count("end_copy") == 2
    assert ("end_copy" in bad.did) == (where != "offer_base")
    if where not in ("offer_base", "admit_copy"):
        assert answer["bases"]["debian12"]["kvm03"]["state"] == "same"


def test_a_base_that_somebody_is_making_is_said_to_be_copied() -> None:
    busy = Host("kvm02", expect_base=CreateInProgress("Somebody is at it."))
    source = Host("kvm01", BaseState("debian12", GOLD))
    answer = base_copies.push(fleet_of(source, busy), "debian12", ["kvm02"])
    assert states(answer)["kvm02"] == "copying"
    assert answer["retcode"] == 1


@pytest.mark.parametrize("changed", [{"base": "other"}, {"copy": "f" * 16}])
def test_a_source_that_offers_something_else_is_refused(changed: dict[str, str]) -> None:
    class Liar(Host):
        def offer_base(self, name: str, copy: str) -> BaseOffer:
            return replace(super().offer_base(name, copy), **changed)

    source, target = Liar("kvm01", BaseState("debian12", GOLD)), Host("kvm02")
    answer = base_copies.push(fleet_of(source, target), "debian12", ["kvm02"])
    assert answer["bases"]["debian12"]["kvm02"]["error"]["type"] == "CopyFailed"
    assert "prepare_copy" not in target.did


def test_an_end_that_fails_hides_no_success(caplog: pytest.LogCaptureFixture) -> None:
    source = Host("kvm01", BaseState("debian12", GOLD), end_copy=HostUnreachable("gone"))
    answer = base_copies.push(fleet_of(source, Host("kvm02")), "debian12", ["kvm02"])
    assert answer["retcode"] == 0
    assert "salt-run kvmclone.gc" in caplog.text


@pytest.mark.parametrize(
    ("targets", "source", "error", "word"),
    [
        (["kvm09"], "", ConfigError, "There is no host 'kvm09'"),
        (["kvm02"], "kvm09", ConfigError, "There is no host 'kvm09'"),
        (["kvm01"], "kvm01", ConfigError, "cannot be a target"),
        (["qemu+ssh://far/system"], "", ConfigError, "by its url alone"),
        (["kvm01", "kvm03"], "", NotFound, "No other host"),
    ],
)
def test_hosts_that_cannot_be_meant_are_refused(
    targets: list[str], source: str, error: type[KvmCloneError], word: str
) -> None:
    hosts = Host("kvm01", BaseState("debian12", GOLD)), Host("kvm02"), Host("kvm03")
    fleet = fleet_of(*hosts, url="qemu+ssh://far/system")
    with pytest.raises(error, match=word):
        base_copies.push(fleet, "debian12", targets, source)
    assert not any("offer_base" in host.did for host in hosts)


def test_of_several_sources_one_is_chosen_only_if_they_are_the_same() -> None:
    for other, fails in ((GOLD, False), (RUST, True), ("", True)):
        first, second = Host("kvm01", BaseState("debian12", GOLD)), Host("kvm02")
        second.bases["debian12"] = BaseState("debian12", other)
        fleet = fleet_of(first, second, Host("kvm03"))
        if fails:
            with pytest.raises(ConfigError, match="kvm01, kvm02"):
                base_copies.push(fleet, "debian12", ["kvm03"])
        else:
            assert base_copies.push(fleet, "debian12", ["kvm03"])["retcode"] == 0
        assert base_copies.push(fleet, "debian12", ["kvm03"], "kvm01")["retcode"] == 0


def test_a_silent_host_may_be_the_one_that_has_it() -> None:
    silent = Host("kvm01", base_states=HostUnreachable("It is down."))
    with pytest.raises(HostUnreachable, match="kvm01"):
        base_copies.push(fleet_of(silent, Host("kvm02")), "debian12", ["kvm02"])
