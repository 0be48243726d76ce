"""What a plan says of images that cannot be cloned is typed, and then they can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab.common import run
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.request import InterfaceChanges
from tests.support import hint_readers
from tests.support.edited_definitions import respell, rewrite
from tests.support.hints import Typist, tries
from tests.support.world import World, quick

pytestmark = pytest.mark.slow

host = hint_readers.host


def conflict(host: LocalHost, world: World, base: str, words: str) -> str:
    (found,) = [one for one in host.plan(quick(world.name(), base))["conflicts"] if words in one]
    return str(found)


@tries("disk_sources._edit", "disk_sources._chain")
@pytest.mark.parametrize("wrong", ["file", "format"])
def test_a_definition_that_spells_out_another_chain(
    world: World, host: LocalHost, typist: Typist, wrong: str
) -> None:
    base = world.base(chain=1)
    below = world.lab.pool_path / f"{base}-0-below0.qcow2"
    named = below if wrong == "format" else world.disks(base)[0]

    def spell(root: ElementTree.Element) -> None:
        disk = root.find("./devices/disk")
        assert disk is not None
        store = ElementTree.SubElement(disk, "backingStore", type="file")
        form = "raw" if wrong == "format" else "qcow2"
        ElementTree.SubElement(store, "format", type=form)
        ElementTree.SubElement(store, "source", file=str(named))
        ElementTree.SubElement(store, "backingStore")

    rewrite(base, spell)
    told = conflict(host, world, base, "<backingStore>")
    typist.edit(told, "/<backingStore type/,/<.backingStore>/d")
    assert host.plan(quick(world.name("again"), base))["conflicts"] == []


@tries("disk_sources._edit", "disk_sources._header")
def test_a_definition_that_takes_an_image_for_another_format(
    world: World, host: LocalHost, typist: Typist
) -> None:
    base = world.base(fmt="raw")

    def spell(root: ElementTree.Element) -> None:
        driver = root.find("./devices/disk/driver")
        assert driver is not None
        driver.set("type", "qcow2")

    rewrite(base, spell)
    told = conflict(host, world, base, "Fix its <driver>")
    typist.edit(told, "s/type='qcow2'/type='raw'/")
    assert host.plan(quick(world.name("again"), base))["conflicts"] == []


@tries("images.chain", "images._wrong_below")
def test_an_image_that_takes_its_backing_file_for_another_format(
    world: World, host: LocalHost, typist: Typist
) -> None:
    base = world.base(chain=1)
    top, below = world.disks(base)[0], world.lab.pool_path / f"{base}-0-below0.qcow2"
    run(["qemu-img", "rebase", "-u", "-F", "vmdk", "-b", below, top])
    typist(conflict(host, world, base, "Fix it"))
    assert host.plan(quick(world.name("again"), base))["conflicts"] == []


@tries("disk_sources.kind_refused")
def test_a_disk_of_a_format_that_is_not_tested(
    world: World, host: LocalHost, outside: Path, typist: Typist
) -> None:
    base = world.base()
    old = world.lab.pool_path / f"{world.token}-old.vmdk"
    run(["qemu-img", "convert", "-O", "vmdk", world.disks(base)[0], old])
    respell(base, old)

    def form(root: ElementTree.Element, name: str) -> None:
        driver = root.find("./devices/disk/driver")
        assert driver is not None
        driver.set("type", name)

    rewrite(base, lambda root: form(root, "vmdk"))
    typist(conflict(host, world, base, "Convert it"))
    respell(base, f"{old}.qcow2")
    rewrite(base, lambda root: form(root, "qcow2"))
    world.refresh()
    assert host.plan(quick(world.name("again"), base))["conflicts"] == []


@tries("firmware._store_refused")
def test_a_variable_store_on_a_device(
    world: World, host: LocalHost, block: str, typist: Typist
) -> None:
    base = world.base(uefi=True)

    def on(path: str) -> None:
        def change(root: ElementTree.Element) -> None:
            element = root.find("./os/nvram")
            assert element is not None
            element.text = path

        rewrite(base, change)

    on(block)
    made = Path("/var/lib/libvirt/qemu/nvram/BASE_VARS.fd")
    made.parent.mkdir(parents=True, exist_ok=True)  # libvirt makes it for its first UEFI guest
    try:
        typist(conflict(host, world, base, "on the device"))
        assert made.stat().st_size
        on(str(made))
        assert host.plan(quick(world.name("again"), base))["conflicts"] == []
    finally:
        made.unlink(missing_ok=True)


@tries("disk_sources._no_image")
def test_a_base_that_lacks_a_disk(world: World, host: LocalHost, base: str, typist: Typist) -> None:
    disk = world.disks(base)[0]
    disk.rename(disk.with_suffix(".away"))
    assert str(disk) in typist(conflict(host, world, base, "does not exist"))


@tries("interfaces._check_bridge")
def test_a_bridge_that_cannot_be_looked_at_from_here(
    world: World, far_host: LocalHost, base: str, typist: Typist
) -> None:
    request = replace(quick(world.name(), base), networks=(InterfaceChanges(bridge="lo"),))
    (told,) = [one for one in far_host.plan(request)["warnings"] if "bridge" in one]
    assert "LOOPBACK" in typist(told)
