"""The beacon on a real libvirtd: what it sees, what it calls news, and that it harms nobody."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import salt.loader

from lab.common import CHECKOUT, LIBVIRT_URI
from lab.lab import Lab
from saltext.kvmclone.errors import HostUnreachable
from saltext.kvmclone.hosts import beacon
from saltext.kvmclone.hosts.local import LocalHost
from tests.support.world import World, minion_opts

DRIFT = ["'/a' of the base 'b' was changed just now; the clone is based on it."]


@pytest.fixture
def opts(tmp_path: Path) -> dict[str, Any]:
    return minion_opts(tmp_path)


def seen(**fields: Any) -> dict[str, Any]:
    now = {"name": "web1", "state": "running", "why": 0, "base": "b", "drift": [], **fields}
    return {"u": now}


def loaded(opts: dict[str, Any]) -> Any:
    """Salt's beacons, as a minion loads them."""
    return salt.loader.beacons(opts, salt.loader.minion_mods(opts, context={}))


def whats(before: dict[str, Any], now: dict[str, Any], ignore: bool = False) -> list[str]:
    return [one["what"] for one in beacon.changed(before, now, ignore)]


def test_a_stop_that_nobody_meant_is_news_once() -> None:
    for why in (1, 2, 3, 6):
        assert whats(seen(), seen(state="shutoff", why=why)) == ["stopped"]
    assert whats(seen(), seen(state="crashed")) == ["stopped"]
    off = seen(state="shutoff", why=2)
    assert whats(off, off) == []
    assert whats(off, seen()) == []


def test_what_somebody_meant_is_no_news() -> None:
    for why in (4, 5, 7):
        assert whats(seen(), seen(state="shutoff", why=why)) == []
    assert whats(seen(), seen(state="shutoff", why=1), ignore=True) == []
    assert whats(seen(), {}) == []
    assert whats({}, seen(state="shutoff", why=2)) == []


def test_a_base_that_changed_is_news_once_though_it_goes_on_changing() -> None:
    assert whats(seen(), seen(drift=DRIFT)) == ["base"]
    assert whats({}, seen(drift=DRIFT)) == ["base"]
    assert whats(seen(drift=DRIFT), seen(drift=["later"])) == []


def test_a_clone_whose_base_changed_is_seen(
    opts: dict[str, Any], world: World, base: str, clone_of: Callable[..., str]
) -> None:
    name = clone_of(base)
    assert beacon.news(opts, LIBVIRT_URI, False) == []
    (disk,) = world.disks(base)
    os.utime(disk, (time.time() + 5, time.time() + 5))
    mine = [one for one in beacon.news(opts, LIBVIRT_URI, False) if one["name"] == name]
    assert [one["what"] for one in mine] == ["base"]
    assert str(disk) in mine[0]["detail"]
    assert not [one for one in beacon.news(opts, LIBVIRT_URI, False) if one["name"] == name]


def test_two_beacons_do_not_take_each_others_news(
    opts: dict[str, Any], world: World, base: str, clone_of: Callable[..., str]
) -> None:
    name = clone_of(base)
    urls = (LIBVIRT_URI, "qemu+unix:///system")
    for url in urls:
        beacon.news(opts, url, False)
    os.utime(world.disks(base)[0], (time.time() + 5, time.time() + 5))
    for url in urls:
        assert name in [one["name"] for one in beacon.news(opts, url, False)]


@pytest.mark.guest
def test_a_clone_that_was_switched_off_is_seen(
    opts: dict[str, Any], lab: Lab, host: LocalHost, base: str, clone_of: Callable[..., str]
) -> None:
    name = clone_of(base)
    host.power(name, "start")
    beacon.news(opts, LIBVIRT_URI, False)
    lab.stop(name)
    mine = [one for one in beacon.news(opts, LIBVIRT_URI, False) if one["name"] == name]
    assert [(one["what"], one["detail"]) for one in mine] == [("stopped", "it was switched off")]


def test_salt_loads_the_beacon_and_a_look_leaves_no_connection_behind(
    opts: dict[str, Any],
) -> None:
    beacons = loaded(opts)
    assert "kvm_clone.beacon" in beacons
    before = set(os.listdir("/proc/self/fd"))
    beacons["kvm_clone.beacon"]([{"interval": 1}])
    assert set(os.listdir("/proc/self/fd")) <= before | {"beacon"}
    assert len(list(Path(opts["cachedir"]).glob("kvm_clone/seen-*.json"))) == 1


def test_a_libvirtd_that_is_not_there_is_one_line_in_the_log_and_no_news(
    opts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    config = [{"url": "qemu+unix:///system?socket=/nonexistent"}]
    with pytest.raises(HostUnreachable, match="cannot be looked at"):
        beacon.look(config[0]["url"])
    assert loaded(opts)["kvm_clone.beacon"](config) == []


def test_a_libvirtd_that_hangs_holds_the_minion_for_a_moment_only(
    opts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        deaf.listen(1)
        monkeypatch.setattr(beacon, "BEACON_TIMEOUT_S", 2)
        begun = time.monotonic()
        with pytest.raises(HostUnreachable, match="no answer within"):
            beacon.look(f"qemu+unix:///system?socket={tmp_path}/deaf")
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "config", ["x", 7, [{"nmae": 1}], [{"url": 1}], [{"ignore_shutdown": "x"}]]
)
def test_a_wrong_configuration_is_refused_with_a_word(opts: dict[str, Any], config: Any) -> None:
    right, word = loaded(opts)["kvm_clone.validate"](config)
    assert not right
    assert "kvm_clone" in word


def test_a_right_configuration_is_taken(opts: dict[str, Any]) -> None:
    validate = loaded(opts)["kvm_clone.validate"]
    for config in ([{"interval": 60}], [{"interval": 5}, {"url": LIBVIRT_URI}], {"interval": 1}):
        assert validate(config)[0]


def test_without_the_execution_module_the_beacon_says_so(opts: dict[str, Any]) -> None:
    beacons = salt.loader.beacons(opts, {"event.send": lambda *_: True})
    assert "kvm_clone.beacon" not in beacons
    assert "sync_all" in str(beacons.missing_modules["kvm_clone"])


def test_the_beacons_program_finds_the_library_wherever_it_lies() -> None:
    assert beacon.look(LIBVIRT_URI) is not None
    assert str(CHECKOUT) in str(beacon.__file__)
