"""Promises about cost: the libvirt calls of a quick clone, however full the host is."""

from __future__ import annotations

import libvirt
import pytest

from saltext.kvmclone.errors import HostError
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor import constants
from saltext.kvmclone.hypervisor.host import Host
from tests.support.world import World, quick

#: What a quick clone of one disk may ask of libvirt, connecting not counted.
MOST = 12


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


def test_a_destroy_asks_for_each_other_domain_at_most_once_in_each_look(
    world: World, host: LocalHost, base: str
) -> None:
    calls = []
    for word in ("few", "many"):
        name = world.name(word)
        host.clone(quick(name, base))
        LocalHost(host.url).destroy(name)
        host.clone(quick(name, base))
        alone = LocalHost(host.url)
        alone.destroy(name)
        calls.append(alone.calls)
        for number in range(10):
            host.clone(quick(world.name(f"{word}{number}"), base))
    assert 10 <= calls[1] - calls[0] <= 20  # it looks twice, and they are new


def test_another_disk_costs_few_calls_more(world: World, host: LocalHost) -> None:
    one, two = world.base("one"), world.base("two", disks=2)
    world.refresh()
    calls = [_calls_of_one_clone(world, host, base, f"of-{base[:3]}") for base in (one, two)]
    assert 0 < calls[1] - calls[0] <= 6


#: Flags, by the name that libvirt gives them; every other number is that of an error.
FLAGS = {
    "XML_SECURE": libvirt.VIR_DOMAIN_XML_SECURE,
    "XML_INACTIVE": libvirt.VIR_DOMAIN_XML_INACTIVE,
    "LIST_SAVED": libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE,
    "LIST_WITH_SNAPSHOTS": libvirt.VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT,
    "DEFINE_VALIDATE": libvirt.VIR_DOMAIN_DEFINE_VALIDATE,
    "AFFECT_LIVE": libvirt.VIR_DOMAIN_AFFECT_LIVE,
    "AFFECT_CONFIG": libvirt.VIR_DOMAIN_AFFECT_CONFIG,
    "VCPU_MAXIMUM": libvirt.VIR_DOMAIN_VCPU_MAXIMUM,
    "MEMORY_MAXIMUM": libvirt.VIR_DOMAIN_MEM_MAXIMUM,
    "BLOCK_RESIZE_BYTES": libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES,
    "METADATA_DESCRIPTION": libvirt.VIR_DOMAIN_METADATA_DESCRIPTION,
    "METADATA_ELEMENT": libvirt.VIR_DOMAIN_METADATA_ELEMENT,
    "UNDEFINE_WITH_EVERYTHING": libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA,
    "UNDEFINE_NVRAM": libvirt.VIR_DOMAIN_UNDEFINE_NVRAM,
    "UNDEFINE_KEEP_NVRAM": libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM,
    "UNDEFINE_KEEP_TPM": 64,
    "SNAPSHOT_DISK_ONLY": libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY,
    "SNAPSHOT_NO_METADATA": libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA,
    "SNAPSHOT_REUSE_EXT": libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT,
    "SNAPSHOT_QUIESCE": libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE,
    "SNAPSHOT_ATOMIC": libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC,
    "UNDEFINE_TPM": 32,  # VIR_DOMAIN_UNDEFINE_TPM is newer than the oldest libvirt-python
    "ADDRESSES_FROM_ARP": libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP,
    "IPV4": libvirt.VIR_IP_ADDR_TYPE_IPV4,
    "FROM_RPC": libvirt.VIR_FROM_RPC,
    "EVENT_LIFECYCLE": libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
    "EVENT_AGENT_LIFECYCLE": libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
    "EVENT_STOPPED": libvirt.VIR_DOMAIN_EVENT_STOPPED,
    "EVENT_SHUTDOWN": libvirt.VIR_DOMAIN_EVENT_SHUTDOWN,
    "NETWORK_DELETE": libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE,
    "NETWORK_ADD_LAST": libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST,
    "NETWORK_DHCP_HOST": libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST,
    "NETWORK_XML_INACTIVE": libvirt.VIR_NETWORK_XML_INACTIVE,
    "POOLS_ACTIVE": libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE,
    "POOLS_INACTIVE": libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_INACTIVE,
    "POOL_RUNNING": libvirt.VIR_STORAGE_POOL_RUNNING,
    "MEMORY_OF_ALL_CELLS": libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS,
    "OFF_SHUTDOWN": libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN,
    "OFF_DESTROYED": libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED,
    "OFF_CRASHED": libvirt.VIR_DOMAIN_SHUTOFF_CRASHED,
    "OFF_MIGRATED": libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED,
    "OFF_SAVED": libvirt.VIR_DOMAIN_SHUTOFF_SAVED,
    "OFF_FAILED": libvirt.VIR_DOMAIN_SHUTOFF_FAILED,
    "OFF_FROM_SNAPSHOT": libvirt.VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT,
    "SHUTOFF_BECAUSE": {
        libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: "the guest powered off",
        libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: "somebody stopped it",
        libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: "the guest crashed, or its QEMU died",
        libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED: "it was migrated away",
        libvirt.VIR_DOMAIN_SHUTOFF_SAVED: "it was saved",
        libvirt.VIR_DOMAIN_SHUTOFF_FAILED: "it failed to start",
    },
}


@pytest.mark.parametrize("name", [name for name in vars(constants) if name.isupper()])
def test_the_numbers_are_libvirts_own(name: str) -> None:
    if name in FLAGS:
        assert getattr(constants, name) == FLAGS[name]
        return
    if name != "STATES":
        assert getattr(constants, name) == getattr(libvirt, f"VIR_ERR_{name}")
        return
    words = {
        "shutoff": libvirt.VIR_DOMAIN_SHUTOFF,
        "paused": libvirt.VIR_DOMAIN_PAUSED,
        "crashed": libvirt.VIR_DOMAIN_CRASHED,
        "pmsuspended": libvirt.VIR_DOMAIN_PMSUSPENDED,
        "running": libvirt.VIR_DOMAIN_RUNNING,
    }
    assert all(constants.STATES[number] == word for word, number in words.items())


def test_an_error_whose_number_libvirt_forgot_keeps_it(host: LocalHost) -> None:
    with Host(host.url) as connected:

        def forgetful(name: str) -> None:
            try:
                connected.raw.lookupByName(name)
            except libvirt.libvirtError as error:
                error.err = None  # what freeing another libvirt object just then does
                raise

        with pytest.raises(HostError) as raised:
            connected.call(forgetful, "no-such-domain")
    assert raised.value.code == constants.NO_DOMAIN
    assert "no-such-domain" in raised.value.message
