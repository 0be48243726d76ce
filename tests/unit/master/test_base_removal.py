"""A base goes from all hosts that are meant, or from none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from saltext.kvmclone.errors import (
    BaseDiffers,
    CloneInUse,
    ConfigError,
    HostError,
    HostUnreachable,
    KvmCloneError,
    NotFound,
    PoolFull,
)
from saltext.kvmclone.master import base_removal
from saltext.kvmclone.master.base_push import BaseCopier
from saltext.kvmclone.model.base_content import BaseState
from tests.support.base_hosts import GOLD, RUST, Host, hosts_of, states


def in_use() -> CloneInUse:
    return CloneInUse("'debian12' is in use.", "Destroy the clone")


def fleet(*hosts: Host) -> Any:
    everywhere = hosts_of(*hosts)
    nobody: Any = None
    return SimpleNamespace(opts={}, everywhere=everywhere, copier=BaseCopier(everywhere, nobody))


def having(name: str, digest: str = GOLD, **breaks: BaseException) -> Host:
    return Host(name, BaseState("debian12", digest, 7), **breaks)


def removed(*hosts: Host) -> list[str]:
    return [host.name for host in hosts if "remove_base" in host.did]


def test_it_goes_from_every_host_that_has_it() -> None:
    hosts = having("kvm01"), having("kvm02", ""), Host("kvm03")
    answer = base_removal.remove(fleet(*hosts), "debian12", (), False)
    assert (states(answer), answer["retcode"]) == ({"kvm01": "missing", "kvm02": "missing"}, 0)
    assert answer["bases"]["debian12"]["kvm02"]["removed"] == ["/pool/debian12.qcow2"]
    assert removed(*hosts) == ["kvm01", "kvm02"]


def test_it_goes_from_the_hosts_that_are_named() -> None:
    hosts = having("kvm01", examine_base=in_use()), having("kvm02")
    answer = base_removal.remove(fleet(*hosts), "debian12", ["kvm02"], False)
    assert states(answer) == {"kvm02": "missing"}
    assert removed(*hosts) == ["kvm02"]


@pytest.mark.parametrize(
    ("second", "labels", "error", "word"),
    [
        (having("kvm02", examine_base=in_use()), (), CloneInUse, "kvm02: 'debian12' is in use"),
        (Host("kvm02", base_states=HostUnreachable("down")), (), HostUnreachable, "from kvm02"),
        (Host("kvm02"), ("kvm01", "kvm02"), NotFound, "no base 'debian12' on kvm02"),
        (having("kvm02"), ("kvm01", "kvm09"), ConfigError, "There is no host 'kvm09'"),
    ],
)
def test_if_one_host_refuses_it_stays_on_all(
    second: Host, labels: tuple[str, ...], error: type[KvmCloneError], word: str
) -> None:
    hosts = having("kvm01"), second
    with pytest.raises(error, match=word) as told:
        base_removal.remove(fleet(*hosts), "debian12", labels, True)
    assert told.value.hint
    assert removed(*hosts) == []


def test_a_host_that_is_silent_but_not_meant_hinders_nothing() -> None:
    hosts = having("kvm01"), Host("kvm02", base_states=HostUnreachable("down"))
    answer = base_removal.remove(fleet(*hosts), "debian12", ["kvm01"], False)
    assert states(answer) == {"kvm01": "missing"}


def test_many_hosts_are_asked_about() -> None:
    hosts = [having(f"kvm{number:02}") for number in range(11)]
    with pytest.raises(ConfigError, match="remove of 11 machines") as told:
        base_removal.remove(fleet(*hosts), "debian12", (), False)
    assert "yes=True" in told.value.hint
    assert removed(*hosts) == []
    assert base_removal.remove(fleet(*hosts), "debian12", (), True)["retcode"] == 0
    assert len(removed(*hosts)) == 11


def test_a_failure_in_the_middle_is_one_hosts() -> None:
    hosts = having("kvm01", remove_base=HostError("It broke.")), having("kvm02")
    answer = base_removal.remove(fleet(*hosts), "debian12", (), False)
    assert states(answer) == {"kvm01": "same", "kvm02": "missing"}
    assert answer["bases"]["debian12"]["kvm01"]["error"]["message"] == "It broke."
    assert answer["retcode"] == 1


# --- replaced -------------------------------------------------------------------------


def test_another_base_is_replaced_and_the_same_one_stays() -> None:
    hosts = having("kvm01"), having("kvm02", RUST), having("kvm03"), Host("kvm04")
    targets = ["kvm02", "kvm03", "kvm04"]
    answer = base_removal.push(fleet(*hosts), "debian12", targets, "kvm01", True, False)
    assert (set(states(answer).values()), answer["retcode"]) == ({"same"}, 0)
    assert removed(*hosts) == ["kvm02"]


def test_if_one_host_refuses_nothing_is_replaced_or_copied() -> None:
    hosts = having("kvm01"), having("kvm02", RUST), having("kvm03", RUST, examine_base=in_use())
    with pytest.raises(CloneInUse, match="kvm03: 'debian12' is in use"):
        base_removal.push(fleet(*hosts), "debian12", ["kvm02", "kvm03"], "kvm01", True, True)
    assert removed(*hosts) == []
    assert not any("fetch_base" in host.did for host in hosts)


def test_without_that_word_the_other_base_stays() -> None:
    hosts = having("kvm01"), having("kvm02", RUST)
    answer = fleet(*hosts).copier.push("debian12", ["kvm02"], "kvm01")
    error = answer["bases"]["debian12"]["kvm02"]["error"]
    assert error["type"] == BaseDiffers.__name__ and "replace=True" in error["hint"]
    assert removed(*hosts) == []


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ({"offer_base": HostError("No sshd.")}, {}),
        ({"admit_copy": HostError("It lets nobody in.")}, {}),
        ({}, {"prepare_copy": PoolFull("There is no room.")}),
    ],
)
def test_a_base_stays_where_its_copy_cannot_begin(
    source: dict[str, KvmCloneError], target: dict[str, KvmCloneError]
) -> None:
    hosts = having("kvm01", **source), having("kvm02", RUST, **target)
    answer = base_removal.push(fleet(*hosts), "debian12", ["kvm02"], "kvm01", True, False)
    assert (states(answer)["kvm02"], answer["retcode"]) == ("other", 1)
    assert removed(*hosts) == []


def test_a_host_that_cannot_say_what_it_has_refuses_for_all() -> None:
    runs = having("kvm03", RUST, expect_base=HostError("It runs."))
    hosts = having("kvm01"), having("kvm02", RUST), runs
    with pytest.raises(HostError, match="Nothing was replaced"):
        base_removal.push(fleet(*hosts), "debian12", ["kvm02", "kvm03"], "kvm01", True, False)
    assert removed(*hosts) == []


def test_a_base_is_replaced_once_and_told_of_as_it_is() -> None:
    hosts = having("kvm01"), having("kvm02", RUST), having("kvm03", RUST, remove_base=in_use())
    targets = ["kvm02", "kvm02", "kvm03"]
    answer = base_removal.push(fleet(*hosts), "debian12", targets, "kvm01", True, False)
    assert states(answer) == {"kvm01": "same", "kvm02": "same", "kvm03": "other"}
    assert hosts[1].did.count("remove_base") == 1
