"""Each kind of device, one small base each, and its decided fate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.plan.rewrite import DiskId, Identity, Rewritten, rewrite
from saltext.kvmclone.plan.rewrite.result import written_paths

CORPUS = Path(__file__).parent.parent.parent.parent / "data" / "corpus"
IDENTITY = Identity(
    name="child",
    uuid="aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee",
    macs=(),
    genid="bbbbbbbb-cccc-4ddd-8eee-ffffffffffff",
    nvram="/srv/nvram/child_VARS.fd",
)
BASE_UUID = "5eed0000-1111-4222-8333-444455556666"


@dataclass(frozen=True)
class Fate:
    """
    What becomes of a device.

    :param kind: ``kept``, ``shared``, ``fresh``, ``renewed``, ``dropped`` or ``refused``.
    :param word: Stands in the reason, or is the key of the change.
    :param value: What the clone has instead, where it is renewed.
    """

    kind: str
    word: str = ""
    value: str | None = None


KEPT = Fate("kept")


def refused(word: str) -> Fate:
    return Fate("refused", word)


def shared(word: str) -> Fate:
    return Fate("shared", word)


def renewed(key: str, value: str) -> Fate:
    return Fate("renewed", key, value)


def dropped(key: str) -> Fate:
    return Fate("dropped", key)


FATES = {
    # firmware
    "nvram_file": renewed("nvram", "/srv/nvram/child_VARS.fd"),
    "nvram_file_as_source": renewed("nvram", "/srv/nvram/child_VARS.fd"),
    "nvram_on_a_block_device": refused("'block'"),
    "nvram_over_the_network": refused("'network'"),
    "nvram_encrypted": refused("encrypted"),
    "nvram_named_by_uuid": renewed("nvram", "/srv/nvram/child_VARS.fd"),
    "nvram_said_twice": refused("of which libvirt takes one"),
    "nvram_on_a_volume_of_proxmox": refused("'/dev/pve/vm-100-disk-1'"),
    "nvram_in_a_folder_of_the_base": renewed("nvram", "/srv/nvram/child_VARS.fd"),
    "nvram_that_libvirt_places": renewed("nvram", "/srv/nvram/child_VARS.fd"),
    "firmware_chosen_by_libvirt": renewed("nvram", "/srv/nvram/child_VARS.fd"),
    "firmware_without_variables": KEPT,
    "firmware_in_read_only_memory": KEPT,
    "firmware_that_the_guest_writes": refused("/srv/firmware/mother.fd"),
    "variables_in_a_varstore": refused("<varstore>"),
    "kernel_from_the_host": KEPT,
    "kernel_told_the_bases_name": renewed("cmdline hostname", "child"),
    "kernel_told_the_bases_name_in_passing": shared("<cmdline> still says 'mother'"),
    "kernel_told_a_disk_called_like_the_base": KEPT,
    "kernel_told_a_source": renewed("cmdline hostname", "child"),
    "kernel_told_a_card": renewed("cmdline number", "of the clone"),
    "kernel_told_a_serial_number": KEPT,
    "kernel_told_what_is_seen_of_a_number": KEPT,
    "kernel_called_like_the_base": shared("'/var/lib/libvirt/boot/mother-vmlinuz'"),
    "kernel_told_a_fixed_address": shared("'ip=192.0.2.5:…'"),
    "kernel_told_a_machine_id": shared("'systemd.machine_id="),
    "kernel_told_to_ask_for_an_address": KEPT,
    "acpi_licence": shared("/srv/firmware/slic.bin"),
    "tpm_emulated": Fate("fresh", "TPM starts empty"),
    "tpm_emulated_in_a_fixed_folder": dropped("TPM 0 source"),
    "tpm_encrypted": shared("aaaa0000-bbbb-4ccc-8ddd-eeeeffff0000"),
    "tpm_of_the_host": refused("passthrough"),
    "tpm_run_by_somebody_else": refused("external"),
    # pieces of the host
    "pci_card_of_the_host": refused("hostdev"),
    "slice_of_a_graphics_card": refused("mdev"),
    "usb_stick_of_the_host": refused("hostdev"),
    "keyboard_of_the_host": refused("/dev/input/event3"),
    "mouse_of_the_host": refused("/dev/input/event4"),
    "shared_memory": refused("'blackboard'"),
    "lock_lease": refused("<lease>"),
    "folder_to_read": shared("/srv/books"),
    "folder_to_write": refused("/srv/desk"),
    "folder_behind_a_socket": refused("/run/virtiofsd/desk.sock"),
    "folder_in_an_image": refused("'file'"),
    "folder_on_a_block_device": refused("'block'"),
    "memory_that_lasts": refused("/srv/nvdimm/mother"),
    "memory_that_lasts_virtio": refused("/srv/pmem/mother"),
    "memory_plugged_in": KEPT,
    "vsock_with_a_number": renewed("vsock cid", "auto"),
    "devices_of_each_machine": KEPT,
    "crypto_of_qemu": KEPT,
    "device_from_the_future": refused("<teleporter>"),
    "record_of_crashes": refused("<pstore>"),
    # consoles and channels
    "serial_to_a_file": renewed("serial 0 path", "/srv/log/child-console.log"),
    "serial_to_a_file_without_the_name": renewed("serial 0 path", "/srv/log/child-console.log"),
    "serial_to_nothing": KEPT,
    "serial_with_a_log": renewed("serial 0 log file", "/srv/log/child.log"),
    "log_in_a_folder_named_by_uuid": refused(f"'/var/lib/nova/instances/{BASE_UUID}/console.log'"),
    "log_in_a_folder_of_the_base": shared("'/srv/mother' is named after the base"),
    "serial_on_the_hosts_line": refused("/dev/ttyS0"),
    "serial_on_a_socket": renewed("serial 0 path", "/run/consoles/child.sock"),
    "serial_into_a_socket_of_its_own": refused("/run/consoles/mother.sock"),
    "serial_into_a_common_socket": shared("/run/consoles/concentrator.sock"),
    "serial_on_a_port": renewed("serial 0", "pty"),
    "serial_to_a_port": shared("console.test:2445"),
    "serial_over_udp": renewed("serial 0", "pty"),
    "serial_between_two_machines": refused("/dev/nmdm0A"),
    "parallel_on_a_pipe": refused("/srv/pipes/printer"),
    "console_of_virtio": KEPT,
    "agent_channel": KEPT,
    "agent_channel_in_libvirts_folder": dropped("channel 0 socket"),
    "channel_on_a_chosen_socket": renewed("channel 0 path", "/run/app/child.agent"),
    "channels_named_by_uuid": renewed(
        "channel 0 path", "/var/lib/libvirt/qemu/channels/child.org.qemu.guest_agent.0"
    ),
    "channel_of_spice": KEPT,
    "channel_into_the_guests_network": refused("8081"),
    "usb_over_spice": KEPT,
    "usb_over_a_port": refused("4711"),
    "usb_from_a_server": shared("usb.test:4711"),
    "card_reader_of_the_host": refused("smartcard"),
    "cards_from_certificates": refused("smartcard"),
    "cards_over_spice": KEPT,
    "random_numbers": KEPT,
    "random_numbers_on_a_port": refused("1235"),
    "random_numbers_from_a_server": shared("rng.test:1234"),
    # screens and sound
    "screen_on_a_fixed_port": renewed("graphics 0 port", "auto"),
    "screen_on_two_fixed_ports": renewed("graphics 0 tlsPort", "auto"),
    "screen_on_a_free_port": KEPT,
    "screen_on_a_free_port_in_old_words": KEPT,
    "screen_on_a_socket": renewed("graphics 0 socket", "/run/screens/child.sock"),
    "screen_on_a_socket_of_libvirt": dropped("graphics 0 socket"),
    "screen_on_a_bus": dropped("graphics 0 address"),
    "screen_in_memory": KEPT,
    "screen_with_a_password": shared("graphics 0 keeps the console password"),
    "sound_into_a_file": renewed("audio 0 path", "/srv/audio/child.wav"),
    "sound_on_the_host": shared("alsa"),
    "sound_on_a_server_of_the_host": shared("pulseaudio"),
    "sound_of_a_desktop_session": shared("pipewire"),
    "sound_with_a_name": dropped("audio 0 clientName"),
    "sound_in_a_stream_with_a_name": dropped("audio 0 streamName"),
    "sound_over_spice": KEPT,
    # fences
    "memory_encryption": KEPT,
    "memory_encryption_for_one_guest": refused("<session>"),
    "memory_encryption_snp": refused("sev-snp"),
    "memory_encryption_snp_for_one_guest": refused("sev-snp"),
    "memory_encryption_tdx": refused("tdx"),
    "memory_encryption_of_the_future": refused("never tried with"),
    "label_that_is_fixed": refused("fixed selinux label"),
    "label_that_libvirt_gave": dropped("seclabel selinux label"),
    "label_for_all": KEPT,
    "label_of_a_device": shared("console:console"),
    # disks that stay as they are
    "medium_in_a_drive_with_numbers": shared("'mother-dvd' of disk sda names the base"),
    "disk_of_several_machines_with_a_number": KEPT,
    "copy_of_a_disk_under_way": KEPT,
    "seed_of_cloud_init": shared("disks: {sda: {action: skip}}"),
    "config_drive_of_openstack": refused("disks: {sda: {action: skip}}"),
    "disk_called_by_its_number": KEPT,
    "controller_called_by_the_uuid": dropped(f"alias ua-{BASE_UUID}"),
    "medium_of_an_installer": KEPT,
    "medium_called_like_the_base": shared("disks: {sda: {action: skip}}"),
    "medium_in_a_folder_of_the_base": shared("'/srv/machines/mother' is named after the base"),
    # bases whose names prove nothing
    "base_called_like_a_distribution": KEPT,
    "base_called_like_a_distribution_with_a_seed": shared("disks: {sda: {action: skip}}"),
    "base_called_by_a_word": renewed("interface 0 mac", "52:54:00:00:00:00"),
    # how it is connected
    "bridge_of_one_port": refused("'qbr09b11c53-8b'"),
    "bridge_and_filter_called_like_the_base": shared("'only-mother'"),
    # who it is
    "note_of_libosinfo": KEPT,
    "note_of_cockpit": KEPT,
    "note_of_cockpit_in_old_words": KEPT,
    "note_of_cockpit_that_installs": dropped("metadata cockpit_machines:data"),
    "note_of_cockpit_with_a_password": dropped("metadata cockpit_machines:data"),
    "note_of_unraid": KEPT,
    "note_of_unraid_with_an_address": dropped("metadata vmtemplate"),
    "note_of_boxes": dropped("metadata boxes:gnome-boxes"),
    "note_of_kcli": dropped("metadata kvirt:info"),
    "note_of_virter": dropped("metadata meta"),
    "note_of_virt_lightning": dropped("metadata vl:root_password"),
    "note_of_ovirt": dropped("metadata ovirt-vm:vm"),
    "note_of_kubevirt": dropped("metadata kubevirt"),
    "note_of_opennebula": dropped("metadata one:vm"),
    "note_of_openstack_about_a_port": dropped("metadata nova:instance"),
    "note_of_others": dropped("metadata app:note"),
    "note_of_others_about_the_base": dropped("metadata app:note"),
    "product_called_like_the_base": shared("product still says 'mother' to the guest"),
    "generation_id": renewed("genid", IDENTITY.genid),
    "generation_id_that_libvirt_makes": renewed("genid", IDENTITY.genid),
    "title_of_the_base": dropped("title"),
    "serial_numbers_of_the_board": dropped("sysinfo baseBoard asset"),
    "serial_that_names_a_source": KEPT,
    "serial_with_the_address_of_a_server": KEPT,
    "serial_with_configuration": KEPT,
    "serial_with_a_host_name": renewed("sysinfo system serial hostname", "child"),
    "serial_with_an_instance": renewed("sysinfo system serial instance-id", IDENTITY.uuid),
    "serial_with_an_address_of_the_base": renewed("sysinfo system serial seed", "of the clone"),
    "serial_that_is_the_uuid": renewed("sysinfo system serial", IDENTITY.uuid),
    "serial_that_is_the_uuid_in_capitals": renewed("sysinfo system serial", IDENTITY.uuid),
    "serial_of_the_board_that_is_the_uuid": renewed("sysinfo baseBoard serial", IDENTITY.uuid),
    "serial_that_is_the_name": renewed("sysinfo system serial", "child"),
    "serial_without_a_number": KEPT,
    "serial_without_a_number_and_the_same_elsewhere": KEPT,
    "asset_tag_of_a_cloud": KEPT,
    "asset_tag_with_configuration": renewed("sysinfo chassis asset hostname", "child"),
    "family_called_like_a_number_that_goes": shared("oemStrings tells the guest of a serial"),
    "words_to_the_guest": renewed("sysinfo oemStrings hostname", "child"),
    "words_to_the_guest_with_a_domain": renewed("sysinfo oemStrings hostname", "child"),
    "words_for_cloud_init": renewed("sysinfo oemStrings hostname", "child"),
    "uuid_said_to_the_guest": renewed("sysinfo opt/app/machine number", "of the clone"),
    "file_for_the_guests_firmware": shared("/srv/ignition/config.json"),
    "traffic_marked_on_the_fabric": dropped("fibrechannel appid"),
    "hardware_uuid": dropped("hwuuid"),
    # the edge of what is known
    "raw_arguments": refused("-device"),
    "raw_secret": refused("hands 2 arguments (among them -object) to QEMU"),
    "raw_device_text": refused("<qemu:override>"),
    "raw_device_number": KEPT,
    "raw_capabilities": KEPT,
    "arguments_of_another_hypervisor": refused("bhyve"),
    "container": refused("'lxc'"),
    "domain_of_xen": refused("'xen'"),
    "tuning": KEPT,
}

#: What the libvirt of the lab does not know yet, or no libvirt writes.
NEWER = {
    "crypto_of_qemu",
    "device_from_the_future",
    "hardware_uuid",
    "memory_encryption_of_the_future",
    "memory_encryption_snp",
    "memory_encryption_snp_for_one_guest",
    "memory_encryption_tdx",
    "nvram_said_twice",
    "record_of_crashes",
    "tpm_emulated_in_a_fixed_folder",
    "sound_of_a_desktop_session",
    "variables_in_a_varstore",
}

#: Cases that let the base's name stand: with a warning, or where it is no name of a machine.
SPOKEN = {
    "bridge_and_filter_called_like_the_base",
    "kernel_called_like_the_base",
    "kernel_told_a_disk_called_like_the_base",
    "kernel_told_the_bases_name_in_passing",
    "log_in_a_folder_of_the_base",
    "medium_called_like_the_base",
    "medium_in_a_drive_with_numbers",
    "medium_in_a_folder_of_the_base",
    "medium_of_an_installer",
    "note_of_libosinfo",
    "product_called_like_the_base",
    "seed_of_cloud_init",
}


def cloned(name: str, **ids: DiskId) -> Rewritten:
    xml = (CORPUS / f"{name}.xml").read_text()
    macs = tuple(f"52:54:00:00:00:0{card}" for card in range(xml.count("<interface ")))
    return rewrite(xml, replace(IDENTITY, macs=macs), (), ids=ids)


def changes(rewritten: Rewritten) -> dict[str, object]:
    always = ("name", "uuid", "description")
    return {key: change for key, change in rewritten.changes.items() if key not in always}


def test_every_base_of_the_corpus_has_a_decided_fate() -> None:
    assert {path.stem for path in CORPUS.glob("*.xml")} == set(FATES)


@pytest.mark.parametrize(
    ("name", "fate"), FATES.items(), ids=[f"{name}-{fate.kind}" for name, fate in FATES.items()]
)
def test_each_device_meets_its_fate(name: str, fate: Fate) -> None:
    rewritten = cloned(name)
    if fate.kind == "refused":
        assert len(rewritten.conflicts) == 1, "one reason, once"
        assert fate.word in rewritten.conflicts[0]
        return
    assert rewritten.conflicts == []
    if fate.kind == "kept":
        assert rewritten.warnings == []
        assert changes(rewritten) == {}
    elif fate.kind in ("shared", "fresh"):
        assert any(fate.word in warning for warning in rewritten.warnings)
    else:
        assert rewritten.changes[fate.word]["new"] == fate.value


@pytest.mark.parametrize("name", [name for name in FATES if FATES[name].kind != "refused"])
def test_nothing_of_the_base_is_left(name: str) -> None:
    rewritten = cloned(name)
    assert BASE_UUID not in rewritten.xml.lower()
    if name not in SPOKEN:
        assert "mother" not in rewritten.xml.replace("Cloned from mother", "").lower()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("serial_with_a_host_name", "ds=nocloud-net;s=http://192.0.2.254:8080/;h=child.example.org"),
        ("serial_with_an_instance", f"ds=nocloud;i={IDENTITY.uuid};local-hostname=child"),
        ("serial_with_an_address_of_the_base",
         f"ds=nocloud;seedfrom=http://seeds.test/{IDENTITY.uuid.upper()}/"),
        ("serial_that_is_the_uuid", IDENTITY.uuid),
        ("serial_that_is_the_uuid_in_capitals", IDENTITY.uuid.replace("-", "").upper()),
        ("asset_tag_with_configuration", "ds=nocloud;h=child"),
        ("words_to_the_guest", "io.systemd.credential:hostname=child"),
        ("words_for_cloud_init", "cloud-init:ds=nocloud-net;s=http://192.0.2.254/;h=child"),
        ("uuid_said_to_the_guest", IDENTITY.uuid.replace("-", "")),
        ("kernel_told_a_source",
         "root=LABEL=system ds=nocloud;h=child;s=http://192.0.2.254/ quiet"),
        ("kernel_told_a_card", "BOOTIF=01-52-54-00-00-00-00"),
    ],
)  # fmt: skip
def test_what_the_guest_is_told_of_itself_is_renewed_in_its_own_spelling(
    name: str, told: str
) -> None:
    root = libvirt_xml.parse(cloned(name).xml)
    texts = [element.text for path in (".//entry", ".//cmdline") for element in root.findall(path)]
    assert texts == [told]


def test_of_a_base_whose_name_is_found_everywhere_nothing_is_said() -> None:
    for name in ("base_called_like_a_distribution", "base_called_by_a_word"):
        assert cloned(name).warnings == []


def test_no_secret_of_another_tools_record_is_told() -> None:
    for name in ("note_of_cockpit_with_a_password", "note_of_virt_lightning"):
        rewritten = cloned(name)
        assert "canary7f3a" not in repr(rewritten)


def test_a_kernel_that_looks_for_a_number_that_the_disk_has_no_more_is_spoken_of() -> None:
    for name in ("kernel_told_a_serial_number", "kernel_told_what_is_seen_of_a_number"):
        (warning,) = cloned(name, sda=DiskId(serial="mine")).warnings
        assert "<cmdline> tells the guest of a serial number of the base" in warning


def test_both_sockets_of_a_screen_stay_one() -> None:
    assert cloned("screen_on_a_socket").xml.count("/run/screens/child.sock") == 2


def test_a_serial_line_and_its_console_keep_one_log() -> None:
    assert cloned("serial_with_a_log").xml.count("/srv/log/child.log") == 2


def test_a_screen_on_fixed_ports_gets_free_ones_at_the_same_address() -> None:
    xml = cloned("screen_on_a_fixed_port").xml
    assert "5907" not in xml
    assert 'websocket="-1"' in xml
    assert 'autoport="yes"' in xml
    assert "192.0.2.7" in xml


@pytest.mark.parametrize(
    "name", ["nvram_file", "nvram_file_as_source", "firmware_chosen_by_libvirt"]
)
def test_without_a_place_of_its_own_libvirt_makes_a_fresh_variable_store(name: str) -> None:
    placeless = Identity(IDENTITY.name, IDENTITY.uuid, ())
    rewritten = rewrite((CORPUS / f"{name}.xml").read_text(), placeless, ())
    assert rewritten.conflicts == []
    assert "/srv/nvram" not in rewritten.xml
    assert any("fresh UEFI variables" in warning for warning in rewritten.warnings)


def test_a_board_without_serial_numbers_leaves_no_empty_section() -> None:
    xml = cloned("serial_numbers_of_the_board").xml
    assert "baseBoard" not in xml
    assert "colour=blue" in xml


def test_a_screen_on_a_free_port_in_old_words_gets_one() -> None:
    """Without a port and without a word for it a SPICE server has none at all."""
    assert 'autoport="yes"' in cloned("screen_on_a_free_port_in_old_words").xml


def test_what_is_told_of_a_file_is_where_the_base_has_it() -> None:
    (reason,) = cloned("log_in_a_folder_named_by_uuid").conflicts
    assert "child" not in reason


@pytest.mark.parametrize("name", sorted(FATES))
def test_the_paths_that_a_machine_writes_are_known_before_they_are_rewritten(name: str) -> None:
    """The host is asked what lies in their folders, so none may be missing."""
    root = libvirt_xml.parse((CORPUS / f"{name}.xml").read_text())
    assert set(cloned(name).paths) <= written_paths(root)
