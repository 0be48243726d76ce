"""What the identity reset does about cloud-init, run for real on a folder by every shell here."""

from __future__ import annotations

import pytest
import yaml

from saltext.kvmclone.guest import hostkeys, identity

KEYS = hostkeys.generate()
CONFIG = "/etc/cloud/cloud.cfg.d/zz-kvm-clone.cfg"
LIB = "/var/lib/cloud"


def reset(guest, seed: str = "none") -> identity.Reset:
    return identity.reset(guest, "new-name", keys=KEYS, seed=seed)


@pytest.fixture
def seeded(guest):
    """A guest that cloud-init has set up from a seed."""
    for path, text in {
        "instances/i-1/obj.pkl": "secret",
        "instances/i-1/user-data.txt": "#cloud-config\nruncmd: [reboot]\n",
        "instances/i-1/user-data.txt.i": 'Content-Disposition: attachment; filename="mine.sh"\n',
        "instances/i-1/datasource": "DataSourceNoCloud: x\n",
        "instances/i-1/sem/config_runcmd": "done",
        "instances/i-1/sem/config_set_passwords": "done",
        "instances/i-0/sem/config_ssh": "done",
        "data/instance-id": "i-1\n",
        "data/upgraded-network": "",
        "instances/i-0/user-data.txt.i": 'Content-Disposition: x; filename="base.sh"\n',
        "scripts/per-boot/base.sh": "echo of the user-data",
        "scripts/per-boot/mine.sh": "echo of the user-data",
        "scripts/per-boot/image.sh": "echo of the image",
        "sem/config_scripts_per_once.once": "done",
    }.items():
        guest.put(f"{LIB}/{path}", text)
    (guest.root / "var/lib/cloud/instance").symlink_to(guest.root / "var/lib/cloud/instances/i-1")
    (guest.root / "etc/cloud/cloud.cfg.d").mkdir(parents=True)
    guest.put("/sys/class/net/eth0/device", "")
    guest.put("/sys/class/net/lo/address", "")
    guest.put("/sys/class/net/eth1/device", "")
    return guest


def test_nothing_of_what_the_base_was_told_is_left(seeded):
    done = reset(seeded)
    assert done.warnings == ()
    left = [
        str(path.relative_to(seeded.root / "var/lib/cloud"))
        for path in sorted((seeded.root / "var/lib/cloud").rglob("*"))
        if not path.is_dir()
    ]
    assert left == [
        "data/upgraded-network",
        "instances/nocloud/sem/config_runcmd",
        "instances/nocloud/sem/config_set_passwords",
        "instances/nocloud/sem/config_ssh",
        "scripts/per-boot/image.sh",
        "sem/config_scripts_per_once.once",
    ]


def test_cloud_init_is_told_that_an_empty_seed_is_its_own(seeded):
    seeded.put("/etc/cloud/cloud.cfg.d/99-kvm-clone.cfg", "of an older version")
    reset(seeded)
    assert not seeded.has("/etc/cloud/cloud.cfg.d/99-kvm-clone.cfg")
    written = yaml.safe_load(seeded.text(CONFIG))
    network = written["datasource"]["NoCloud"].pop("network-config")
    assert yaml.safe_load(network) == {
        "version": 2,
        "ethernets": {"eth0": {"dhcp4": True}, "eth1": {"dhcp4": True, "optional": True}},
    }
    assert written == {
        "preserve_hostname": True,
        "ssh_deletekeys": False,
        "datasource_list": ["NoCloud", "None"],
        "datasource": {
            "NoCloud": {
                "meta-data": {},
                "user-data": "",
                "vendor-data": "",
                "seedfrom": None,
            }
        },
    }


def test_the_reset_may_be_repeated(seeded):
    reset(seeded)
    before = seeded.text(CONFIG)
    assert reset(seeded).warnings == ()
    assert seeded.text(CONFIG) == before
    assert seeded.has(f"{LIB}/instances/nocloud/sem/config_runcmd")


@pytest.mark.parametrize(
    "seed", [f"{LIB}/seed/nocloud/user-data", f"{LIB}/seed/config_drive/openstack/latest/user_data"]
)
def test_a_seed_in_the_image_is_removed_and_told_of(seeded, seed):
    seeded.put(seed, "#cloud-config")
    (warning,) = reset(seeded).warnings
    assert warning.startswith("A cloud-init seed lay in the base's image")
    assert not seeded.has(seed)


def test_a_seed_that_is_attached_all_the_same_is_not_looked_for_again(seeded):
    seeded.put("/dev/disk/by-label/cidata", "")
    (warning,) = reset(seeded).warnings
    assert "is attached; it is not used any more" in warning
    assert yaml.safe_load(seeded.text(CONFIG))["datasource"]["NoCloud"]["fs_label"] is None


@pytest.mark.parametrize(
    ("word", "told"),
    [("cloud-config-url=http://10.0.0.1/x", True), ("ds=nocloud", False), ("ds=other", False)],
)
def test_a_kernel_that_is_told_of_a_seed_is_told_of(seeded, word, told):
    seeded.put("/proc/cmdline", f"root=/dev/vda {word} quiet\n")
    warnings = reset(seeded).warnings
    assert any("kernel's command line names a cloud-init seed" in w for w in warnings) == told


@pytest.mark.parametrize("place", ["/proc/cmdline", "/sys/class/dmi/id/product_serial"])
@pytest.mark.parametrize(
    ("words", "stays"),
    [
        ("ds=nocloud;s=http://10.0.0.1/", True),
        ("ds=nocloud-net;h=web;seedfrom=http://10.0.0.1/", True),
        ("ds=nocloud;h=web;i=7", True),
        ("ds=nocloud;h=web", False),
        ("ads=nocloud;s=http://10.0.0.1/", False),
    ],
)
def test_what_a_server_told_this_machine_is_not_done_again(seeded, place, words, stays):
    """It is told that at the next boot, too: forgetting what was done would repeat it all."""
    seeded.put(place, f"{words}\n")
    assert reset(seeded).warnings == ()
    assert seeded.has(f"{LIB}/instances/i-1/sem/config_runcmd") == stays
    assert seeded.has(CONFIG) != stays
    assert not seeded.has(f"{LIB}/instances/i-0")
    if stays:
        assert "preserve_hostname: true" in seeded.text("/etc/cloud/cloud.cfg.d/99-kvm-clone.cfg")


def test_a_seed_that_is_kept_is_a_new_instances_at_the_next_boot(seeded):
    reset(seeded)
    reset(seeded, "keep")
    assert not seeded.has(CONFIG)
    assert not seeded.has(f"{LIB}/instances/nocloud")
    assert "ssh_deletekeys: false" in seeded.text("/etc/cloud/cloud.cfg.d/99-kvm-clone.cfg")


def test_a_seed_of_its_own_is_not_done_again(seeded):
    seeded.put("/run/cloud-init/result.json", "{}")
    assert reset(seeded, "own").warnings == ()
    assert seeded.has(f"{LIB}/instances/i-1/sem/config_runcmd")
    assert seeded.has(f"{LIB}/data/instance-id")
    assert not seeded.has(f"{LIB}/instances/i-0")
    assert not seeded.has(CONFIG)
    assert not seeded.has(f"{LIB}/scripts/per-boot/base.sh")
    assert seeded.has(f"{LIB}/scripts/per-boot/mine.sh")


def test_a_seed_of_its_own_that_nobody_used_is_told_of(seeded):
    (warning,) = reset(seeded, "own").warnings
    assert warning == "Cloud-init did not run in the guest, so its seed did nothing."


def test_a_guest_whose_cloud_init_never_ran_is_not_made_to_run_it(guest):
    guest.put(f"{LIB}/seed/nocloud/user-data", "#cloud-config")
    guest.put("/etc/cloud/cloud.cfg.d/05.cfg", "")
    reset(guest)
    assert not guest.has(f"{LIB}/seed/nocloud")
    assert not guest.has(CONFIG)
