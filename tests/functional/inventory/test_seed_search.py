"""Promises about the base's cloud-init seed on a real libvirtd, without a guest: it stays out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from salt.exceptions import CommandExecutionError

from lab.lab import connection
from saltext.kvmclone.errors import HostError, PlanRefused
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.request import Secrets
from saltext.kvmclone.system import seed_image
from tests.support.seeds import SECRET, make_iso, make_seed, user_data
from tests.support.wire import Wire
from tests.support.world import Salt, World, full, image_info, quick, sha256

FILES = {"user-data": user_data("own"), "meta-data": '{"more": 1}', "network-config": "version: 2"}


@pytest.fixture(params=["host", "far_host"])
def either(request: pytest.FixtureRequest) -> LocalHost:
    """The host, with its files at hand and out of reach."""
    return request.getfixturevalue(request.param)


def seeded_base(world: World, label: str, place: str) -> tuple[str, Path]:
    """A base with a seed that is not called like it, and that seed's file."""
    path = world.lab.pool_path / f"settings-{world.token}.img"
    if label == "config-2":
        make_iso(path, label, {"openstack/latest/user_data": "#cloud-config"})
    else:
        make_seed(path, user_data("base"), label=label)
    source, kind, device = f"<source file='{path}'/>", "file", "disk"
    if place == "qcow2":
        image = path.with_suffix(".qcow2")
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", path, image], check=True)
        path, source = image, f"<source file='{image}'/>"
    elif place.startswith("volume"):
        kind, source = "volume", f"<source pool='{world.lab.pool}' volume='{path.name}'/>"
    if place.endswith("cdrom"):
        device = "cdrom"
    form = "qcow2" if place == "qcow2" else "raw"
    world.refresh()
    disk = (
        f"<disk type='{kind}' device='{device}'><driver name='qemu' type='{form}'/>{source}"
        "<target dev='sdz' bus='scsi'/></disk>"
    )
    return world.base(devices=disk), path


@pytest.mark.parametrize(
    ("label", "place"),
    [
        ("cidata", "disk"),
        ("CIDATA", "cdrom"),
        ("config-2", "cdrom"),
        ("cidata", "volume"),
        ("config-2", "volume in a cdrom"),
        ("cidata", "qcow2"),
    ],
)
def test_an_attached_seed_is_out_before_the_first_boot(
    world: World, either: LocalHost, label: str, place: str
) -> None:
    base, seed = seeded_base(world, label, place)
    before, definition = sha256(seed), world.secure_xml(base)
    name = world.name()
    fates = {disk["target"]: disk for disk in either.plan(quick(name, base))["disks"]}
    assert fates["sdz"]["action"] == "skip"
    assert f"(label '{label}')" in fates["sdz"]["reason"]
    clone = either.clone(quick(name, base))
    assert [disk.target for disk in clone.disks] == ["vda"]
    assert any("without a guest agent" in warning for warning in clone.warnings)
    xml = world.secure_xml(name)
    assert seed.name not in xml
    assert ("sdz" in xml) == place.endswith("cdrom"), "a drive stays, without its medium"
    either.destroy(name)
    assert (sha256(seed), world.secure_xml(base)) == (before, definition)


@pytest.fixture
def sleeping_pool(world: World, tmp_path: Path) -> Iterator[str]:
    name = f"sleeping-{world.token}"
    with connection() as conn:
        raw = conn.storagePoolDefineXML(
            f"<pool type='dir'><name>{name}</name><target><path>{tmp_path}</path></target></pool>"
        )
        yield name
        raw.undefine()


def test_a_medium_in_a_pool_that_is_not_started_is_told_of(
    world: World, either: LocalHost, sleeping_pool: str
) -> None:
    disk = (
        "<disk type='volume' device='cdrom'><driver name='qemu' type='raw'/>"
        f"<source pool='{sleeping_pool}' volume='seed.iso'/><target dev='sdz' bus='scsi'/></disk>"
    )
    plan = either.plan(quick(world.name(), world.base(devices=disk)))
    (warning,) = [said for said in plan["warnings"] if "cannot be looked at" in said]
    assert "disks: {sdz: {action: skip}}" in warning


def test_a_seed_that_is_kept_is_told_of(world: World, host: LocalHost) -> None:
    base, seed = seeded_base(world, "cidata", "cdrom")
    clone = host.clone(quick(world.name(), base, seed="keep"))
    assert any("keeps the base's cloud-init seed on sdz" in warning for warning in clone.warnings)
    assert seed.name in world.secure_xml(clone.name)


def test_a_seed_inside_the_image_is_refused(world: World, either: LocalHost) -> None:
    base = world.base(fmt="raw")
    disk = world.disks(base)[0]
    inside = world.lab.folder / f"root-{world.token}/var/lib/cloud/seed/nocloud"
    inside.mkdir(parents=True)
    for file in ("user-data", "meta-data"):
        (inside / file).write_text("#cloud-config\n")
    size = f"{disk.stat().st_size >> 20}M"
    disk.unlink()
    root = inside.parents[4]
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, disk, size], check=True)
    subprocess.run(["rm", "-r", root], check=True)
    world.refresh()
    for make in (quick, full):
        with pytest.raises(PlanRefused, match="rm -r /var/lib/cloud/seed/nocloud"):
            either.clone(make(world.name(make.__name__), base))
    clone = either.clone(quick(world.name("keep"), base, seed="keep"))
    # The same below an overlay: a clone of that clone.
    with pytest.raises(PlanRefused, match="rm -r /var/lib/cloud/seed/nocloud"):
        either.clone(quick(world.name("again"), clone.name))


# --- a seed of the clone's own ------------------------------------------------------------------


def inside(image: Path) -> dict[str, str]:
    """The files of an ISO 9660 image."""

    def xorriso(*words: str) -> str:
        command = ["xorriso", "-indev", f"stdio:{image}", "-osirrox", "on", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    names = [line.strip("'/\n") for line in xorriso("-find", "/", "-type", "f").splitlines()]
    found = {}
    for name in names:
        target = image.with_suffix(f".{name}")
        xorriso("-extract", f"/{name}", str(target))
        found[name] = target.read_text()
        target.unlink()
    return found


def test_a_seed_of_its_own_is_a_disk_that_only_qemu_reads(world: World, either: LocalHost) -> None:
    base, _seed = seeded_base(world, "cidata", "cdrom")
    before = world.footprint()
    name = world.name()
    request = quick(name, base, seed="own")
    planned = either.plan(request)
    clone = either.clone(request, seed=FILES)
    path = Path(clone.disks[-1].path)
    assert planned["disks"][-1]["destination"] == str(path)
    assert path.name == f"{name}-vdb.raw"
    assert path.stat().st_mode & 0o777 == 0o600
    files = inside(path)
    assert files["user-data"] == FILES["user-data"]
    assert files["network-config"] == "version: 2"
    assert json.loads(files["meta-data"]) == {
        "instance-id": clone.uuid,
        "local-hostname": name,
        "more": 1,
    }
    label = subprocess.run(
        ["blkid", "-p", "-s", "LABEL", "-o", "value", path], check=True, capture_output=True
    )
    assert label.stdout == b"cidata\n"
    for told in (world.secure_xml(name), str(planned), str(clone), str(world.record(name))):
        assert SECRET not in told
    disk = world.xml(name).find("./devices/disk/target[@dev='vdb']/..")
    assert disk is not None
    assert disk.find("readonly") is not None
    either.destroy(name)
    assert world.footprint() == before


def test_what_fails_while_it_is_written_leaves_nothing(
    world: World, host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = world.base()
    before = world.footprint()

    def full_disk(*_words: object) -> None:
        raise HostError("no space left")

    monkeypatch.setattr("saltext.kvmclone.hypervisor.volumes.upload", full_disk)
    with pytest.raises(HostError, match="no space left"):
        host.clone(quick(world.name(), base, seed="own"), seed=FILES)
    assert world.footprint() == before


def test_without_a_program_that_writes_it_the_plan_says_what_to_install(
    world: World, host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seed_image, "program", lambda: "")
    (conflict,) = host.plan(quick(world.name(), world.base(), seed="own"))["conflicts"]
    assert "apt install xorriso" in conflict


def test_the_profile_of_a_host_has_seeds_and_nobody_may_give_their_contents_as_an_argument(
    world: World, load: Callable[..., Salt], salt_minion: Salt
) -> None:
    base, _seed = seeded_base(world, "cidata", "cdrom")
    wishes = {"base_domain": base, "clone_strategy": "quick"}
    profile = {**wishes, "provider": "here", "seed": {"user_data": {"runcmd": [SECRET]}}}
    providers = {"here": {"driver": "libvirt", "url": "qemu:///system"}}
    minion = load(pillar={"kvm_clone": {"providers": providers, "profiles": {"own": profile}}})
    name = world.name()
    planned = minion("kvm_clone.plan", name, profile="own")
    assert planned["disks"][-1]["target"] == "vdb"
    clone = minion("kvm_clone.create", name, profile="own", start=False)
    assert SECRET not in str((planned, clone))
    assert inside(Path(clone["disks"][-1]["path"]))["user-data"].startswith("#cloud-config\n{")
    kept = salt_minion("kvm_clone.plan", world.name("keep"), seed="keep", **wishes)
    assert kept["disks"][-1]["action"] == "share"
    with pytest.raises(CommandExecutionError, match="SecretInArgument") as caught:
        salt_minion("kvm_clone.plan", world.name("x"), seed={"user_data": SECRET}, **wishes)
    assert SECRET not in str(caught.value)


def test_an_outcome_holds_nothing_of_a_seed(world: World, host: LocalHost) -> None:
    secrets = Secrets(seed=tuple(FILES.items()))
    request = quick(world.name(), world.base(), seed="own")
    outcome = provision.create(host, request, secrets, start=False)
    assert outcome.error is None
    assert SECRET not in str((outcome, outcome.as_dict(), secrets))
    assert request.seed == "own"
    with connection() as conn:
        text = conn.lookupByName(request.name).XMLDesc()
    assert SECRET not in ElementTree.canonicalize(text)
    assert image_info(world.lab.pool_path / f"{request.name}-vdb.raw")["format"] == "raw"


def test_the_contents_of_a_seed_travel_sealed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire(tmp_path, monkeypatch)
    request = quick(world.name(), world.base(), seed="own")
    secrets = Secrets(seed=tuple(FILES.items()))
    outcome = provision.create(wire, request, secrets, start=False)
    assert outcome.error is None
    assert outcome.clone is not None
    assert SECRET not in "".join(wire.published + wire.answered)
    path = Path(outcome.clone.disks[-1].path)
    assert inside(path)["user-data"] == FILES["user-data"]
