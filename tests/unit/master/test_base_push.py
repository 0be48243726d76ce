"""A push ends whole, or says why not and tidies up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from saltext.kvmclone.errors import (
    ConfigError,
    CopyFailed,
    CreateInProgress,
    HostUnreachable,
    KvmCloneError,
    NotFound,
)
from saltext.kvmclone.master import base_push, progress
from saltext.kvmclone.master.all_hosts import AllHosts
from saltext.kvmclone.master.base_push import BaseCopier
from saltext.kvmclone.model.base_content import BaseState
from saltext.kvmclone.model.base_copy import BaseOffer, CopyKey, Relay
from tests.support.base_hosts import ADDRESS, GOLD, KEY, RUST, Host, hosts_of, states

NO_RELAY: Any = None
RELAY = Relay("root", 22, ("10.0.0.9",), ("ssh-ed25519 A",))


def pushed(everywhere: AllHosts, *words: Any) -> dict[str, Any]:
    return BaseCopier(everywhere, NO_RELAY).push(*words)


def test_a_push_ends_whole_and_takes_its_key_back() -> None:
    source, target = Host("kvm01", BaseState("debian12", GOLD)), Host("kvm02")
    answer = pushed(hosts_of(source, target), "debian12", ["kvm02"])
    assert (states(answer), answer["retcode"]) == ({"kvm01": "same", "kvm02": "same"}, 0)
    assert source.did == ["base_states", "hash_base", "offer_base", "admit_copy", "end_copy"]
    assert target.did == ["base_states", "expect_base", "prepare_copy", "fetch_base"]
    assert source.key == KEY


def test_hosts_may_be_named_by_a_target_expression_which_may_mean_the_source_too() -> None:
    everywhere = hosts_of(Host("kvm01", BaseState("debian12", GOLD)), Host("kvm02"), Host("kvm03"))
    answer = pushed(everywhere, "debian12", ["kvm*", "kvm02"])
    assert states(answer) == {"kvm01": "same", "kvm02": "same", "kvm03": "same"}
    with pytest.raises(ConfigError, match="'xen\\*' means no host of any provider"):
        pushed(everywhere, "debian12", ["xen*"])


def test_an_expression_that_means_hosts_of_two_contents_asks_for_the_source() -> None:
    first, other = Host("kvm01", BaseState("debian12", GOLD)), Host("kvm02")
    other.bases["debian12"] = BaseState("debian12", RUST)
    with pytest.raises(ConfigError, match="not known that their contents are the same"):
        pushed(hosts_of(first, other), "debian12", ["kvm*"])
    answer = pushed(hosts_of(first, other), "debian12", ["kvm*"], "kvm01")
    assert states(answer) == {"kvm01": "same", "kvm02": "other"}


def test_a_host_that_has_it_is_left_as_it_is() -> None:
    source, target = (Host(name, BaseState("debian12", GOLD)) for name in ("kvm01", "kvm02"))
    answer = pushed(hosts_of(source, target), "debian12", ["kvm02"])
    assert (states(answer)["kvm02"], answer["retcode"]) == ("same", 0)
    assert "offer_base" not in source.did


def test_a_host_with_another_content_keeps_it() -> None:
    source = Host("kvm01", BaseState("debian12", GOLD))
    target = Host("kvm02", BaseState("debian12", RUST))
    answer = pushed(hosts_of(source, target), "debian12", ["kvm02"], "kvm01")
    cell = answer["bases"]["debian12"]["kvm02"]
    assert (cell["state"], cell["digest"], cell["error"]["type"]) == ("other", RUST, "BaseDiffers")
    assert "offer_base" not in source.did


@pytest.mark.parametrize("where", ["offer_base", "prepare_copy", "admit_copy", "fetch_base"])
def test_a_failure_is_one_hosts_and_everything_is_taken_back(where: str) -> None:
    error = CopyFailed("It broke.", "Mend it")
    source, bad = Host("kvm01", BaseState("debian12", GOLD)), Host("kvm02")
    good = Host("kvm03")
    (source if where in ("offer_base", "admit_copy") else bad).breaks[where] = error
    answer = pushed(hosts_of(source, bad, good), "debian12", ["kvm02", "kvm03"])
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
    answer = pushed(hosts_of(source, busy), "debian12", ["kvm02"])
    assert states(answer)["kvm02"] == "copying"
    assert answer["retcode"] == 1


@pytest.mark.parametrize("changed", [{"base": "other"}, {"copy": "f" * 16}])
def test_a_source_that_offers_something_else_is_refused(changed: dict[str, str]) -> None:
    class Liar(Host):
        def offer_base(self, name: str, copy: str) -> BaseOffer:
            return replace(super().offer_base(name, copy), **changed)

    source, target = Liar("kvm01", BaseState("debian12", GOLD)), Host("kvm02")
    answer = pushed(hosts_of(source, target), "debian12", ["kvm02"])
    assert answer["bases"]["debian12"]["kvm02"]["error"]["type"] == "CopyFailed"
    assert "prepare_copy" not in target.did


def test_an_end_that_fails_hides_no_success(caplog: pytest.LogCaptureFixture) -> None:
    source = Host("kvm01", BaseState("debian12", GOLD), end_copy=HostUnreachable("gone"))
    answer = pushed(hosts_of(source, Host("kvm02")), "debian12", ["kvm02"])
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
    everywhere = hosts_of(*hosts, url="qemu+ssh://far/system")
    with pytest.raises(error, match=word):
        pushed(everywhere, "debian12", targets, source)
    assert not any("offer_base" in host.did for host in hosts)


def test_of_several_sources_one_is_chosen_only_if_they_are_the_same() -> None:
    for other, fails in ((GOLD, False), (RUST, True), ("", True)):
        first, second = Host("kvm01", BaseState("debian12", GOLD)), Host("kvm02")
        second.bases["debian12"] = BaseState("debian12", other)
        everywhere = hosts_of(first, second, Host("kvm03"))
        if fails:
            with pytest.raises(ConfigError, match="kvm01, kvm02"):
                pushed(everywhere, "debian12", ["kvm03"])
        else:
            assert pushed(everywhere, "debian12", ["kvm03"])["retcode"] == 0
        assert pushed(everywhere, "debian12", ["kvm03"], "kvm01")["retcode"] == 0


def test_a_silent_host_may_be_the_one_that_has_it() -> None:
    silent = Host("kvm01", base_states=HostUnreachable("It is down."))
    with pytest.raises(HostUnreachable, match="kvm01"):
        pushed(hosts_of(silent, Host("kvm02")), "debian12", ["kvm02"])


# --- the way --------------------------------------------------------------------------


def test_only_addresses_are_tried_that_the_target_reaches() -> None:
    class Far(Host):
        def offer_base(self, name: str, copy: str) -> BaseOffer:
            found = super().offer_base(name, copy)
            return replace(found, addresses=("192.0.2.1", *found.addresses))

    source, target = Far("kvm01", BaseState("debian12", GOLD)), Host("kvm02")
    target.walled = {"192.0.2.1"}
    assert pushed(hosts_of(source, target), "debian12", ["kvm02"])["retcode"] == 0
    assert target.taken is not None and target.taken.addresses == (ADDRESS,)


@pytest.mark.parametrize("fails", [False, True])
def test_hosts_that_do_not_reach_each_other_go_through_the_master(fails: bool) -> None:
    ended: list[str] = []

    class Relays:
        @contextmanager
        def lead(self, offer: BaseOffer, key: CopyKey, *who: Any) -> Iterator[Any]:
            assert who == ("kvm01", "kvm02", target)
            try:
                yield replace(offer, relay=RELAY), replace(key, addresses=("10.0.0.9",))
            finally:
                ended.append(offer.copy)

    source, target = Host("kvm01", BaseState("debian12", GOLD)), Host("kvm02")
    target.walled = {ADDRESS}
    if fails:
        target.breaks = {"fetch_base": CopyFailed("It broke.")}
    relays: Any = Relays()
    answer = BaseCopier(hosts_of(source, target), relays).push("debian12", ["kvm02"])
    assert answer["retcode"] == int(fails)
    assert len(ended) == 1
    assert source.key == CopyKey(KEY.public, ("10.0.0.9",))
    assert fails or (target.taken is not None and target.taken.relay == RELAY)


def test_a_person_at_a_terminal_sees_how_far_a_copy_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looked = threading.Event()

    class Slow(Host):
        """Its copy ends once somebody has looked at it twice."""

        def base_states(self, names: list[str]) -> list[BaseState]:
            if "prepare_copy" in self.did:
                if "seen" in self.did:
                    looked.set()
                self.did.append("seen")
                return [BaseState("debian12", bytes=3 * 2**20, copying=True)]
            return super().base_states(names)

        def fetch_base(self, offer: BaseOffer, instead: bool = False) -> BaseState:
            assert looked.wait(20)
            return super().fetch_base(offer, instead)

    source, target = Host("kvm01", BaseState("debian12", GOLD, 4 * 2**20)), Slow("kvm02")
    hosts = hosts_of(source, target)
    monkeypatch.setattr(base_push, "PROGRESS_POLL_S", 0.01)
    looked.set()
    assert pushed(hosts, "debian12", ["kvm02"], "kvm01")["retcode"] == 0
    assert capsys.readouterr().err == "", "a pipe gets the answer alone"
    looked.clear()
    target.did.clear()
    del target.bases["debian12"]
    monkeypatch.setattr(progress, "is_read", lambda: True)
    assert pushed(hosts, "debian12", ["kvm02"], "kvm01")["retcode"] == 0
    told = capsys.readouterr().err
    assert "kvm02: copying" in told
    assert "3 MiB of " in told
    assert told.splitlines()[-1].startswith("kvm02: same")
