"""Promises about cost: the libvirt calls of a quick clone, however full the host is."""

from __future__ import annotations

import libvirt
import pytest

from saltext.kvmclone import codes
from saltext.kvmclone.errors import HostError
from saltext.kvmclone.host import Host
from saltext.kvmclone.operations import LocalHost
from tests.functional.world import World, quick

#: What a quick clone of one disk may ask of libvirt, connecting not counted.
MOST = 16


def _calls_of_one_clone(world: World, host: LocalHost, base: str, word: str) -> int:
    host.clone(quick(world.name(word), base))
    return host.calls


def test_a_quick_clone_takes_few_calls(world: World, host: LocalHost, base: str) -> None:
    _calls_of_one_clone(world, host, base, "first")  # may refresh the pool once
    assert _calls_of_one_clone(world, host, base, "clone") <= MOST


def test_the_calls_do_not_grow_with_the_volumes_in_the_pool(
    world: World, host: LocalHost, base: str
) -> None:
    world.refresh()
    before = _calls_of_one_clone(world, host, base, "few")
    for number in range(200):
        (world.lab.pool_path / f"other-{world.token}-{number}.raw").write_bytes(b"")
    world.refresh()
    assert _calls_of_one_clone(world, host, base, "many") == before


def test_the_calls_do_not_grow_with_the_domains_of_the_host(
    world: World, host: LocalHost, base: str
) -> None:
    world.refresh()
    before = _calls_of_one_clone(world, host, base, "few")
    for number in range(10):
        host.clone(quick(world.name(f"other{number}"), base))
    assert _calls_of_one_clone(world, host, base, "many") == before


def test_another_disk_costs_few_calls_more(world: World, host: LocalHost) -> None:
    one, two = world.base("one"), world.base("two", disks=2)
    world.refresh()
    calls = [_calls_of_one_clone(world, host, base, f"of-{base[:3]}") for base in (one, two)]
    assert 0 < calls[1] - calls[0] <= 6


@pytest.mark.parametrize("name", [name for name in vars(codes) if name.isupper()])
def test_the_numbers_are_libvirts_own(name: str) -> None:
    if name != "STATES":
        assert getattr(codes, name) == getattr(libvirt, f"VIR_ERR_{name}")
        return
    words = {
        "shutoff": libvirt.VIR_DOMAIN_SHUTOFF,
        "paused": libvirt.VIR_DOMAIN_PAUSED,
        "crashed": libvirt.VIR_DOMAIN_CRASHED,
        "pmsuspended": libvirt.VIR_DOMAIN_PMSUSPENDED,
        "running": libvirt.VIR_DOMAIN_RUNNING,
    }
    assert all(codes.STATES[number] == word for word, number in words.items())


def test_an_error_whose_number_libvirt_forgot_keeps_it(host: LocalHost) -> None:
    with Host(host.url) as connected:

        def forgetful(name: str) -> None:
            try:
                connected.connection.lookupByName(name)
            except libvirt.libvirtError as error:
                error.err = None  # what freeing another libvirt object just then does
                raise

        with pytest.raises(HostError) as raised:
            connected.call(forgetful, "no-such-domain")
    assert raised.value.code == codes.NO_DOMAIN
    assert "no-such-domain" in raised.value.message
