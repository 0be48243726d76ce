"""A base and its copy on another host have one normal form, and another machine has not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.model import normal_definition

CORPUS = sorted((Path(__file__).parent.parent.parent / "data/corpus").glob("*.xml"))

BASE = """<domain type='kvm' id='3'>
  <name>base</name>
  <uuid>11111111-2222-4333-8444-555555555555</uuid>
  <genid>99999999-2222-4333-8444-555555555555</genid>
  <title>The base</title>
  <metadata><x:note xmlns:x='urn:x'>mine</x:note></metadata>
  <memory unit='KiB'>524288</memory>
  <sysinfo type='smbios'><system>
    <entry name='serial'>11111111-2222-4333-8444-555555555555</entry>
    <entry name='product'>Desk</entry>
  </system></sysinfo>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
    <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>/var/lib/libvirt/qemu/nvram/base.fd</nvram>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='volume' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source pool='default' volume='base.qcow2'/>
      <target dev='vda' bus='virtio'/>
      <serial>drive-1</serial>
    </disk>
    <interface type='network'>
      <mac address='52:54:00:00:00:01'/>
      <source network='default'/>
      <target dev='tap7'/>
      <model type='virtio'/>
    </interface>
    <serial type='file'><source path='/var/log/base.log'/><target port='0'/></serial>
    <graphics type='vnc' port='5901' autoport='no' passwd='secret'>
      <listen type='address'/>
    </graphics>
  </devices>
  <seclabel type='dynamic' model='apparmor'/>
</domain>"""

GOLDEN = (
    '<domain type="kvm"><memory unit="KiB">524288</memory>'
    '<sysinfo type="smbios"><system><entry name="product">Desk</entry></system></sysinfo>'
    '<os><type arch="x86_64" machine="pc-q35-7.2">hvm</type>'
    '<loader readonly="yes" type="pflash"></loader><nvram></nvram></os>'
    '<devices><disk device="disk"><driver name="qemu" type="qcow2"></driver>'
    '<target bus="virtio" dev="vda"></target><serial>drive-1</serial></disk>'
    '<interface type="network"><source network="default"></source><model type="virtio"></model>'
    '</interface><serial type="file"><target port="0"></target></serial>'
    '<graphics autoport="no" type="vnc"><listen type="address"></listen></graphics></devices>'
    "</domain>"
)


def changed(old: str, new: str) -> str:
    assert old in BASE
    return BASE.replace(old, new)


def test_what_belongs_to_one_machine_or_host_is_left_out() -> None:
    assert normal_definition.normal(BASE).decode() == GOLDEN


def test_controllers_may_stand_in_any_order_but_not_be_others() -> None:
    """libvirt lists those that it adds by itself elsewhere once it restarts."""
    serial = "<controller type='virtio-serial' index='0'/>"
    ports = [f"<controller type='pci' index='{n}' model='pcie-root-port'/>" for n in (1, 2, 10)]

    def digest(*controllers: str) -> str:
        return normal_definition.digest(
            f"<domain><devices>{''.join(controllers)}<rng/></devices></domain>"
        )

    same = {digest(serial, *ports), digest(*ports, serial), digest(*reversed(ports), serial)}
    assert len(same) == 1
    assert digest(*ports) not in same
    assert digest(serial, *ports[:2], ports[2].replace("pcie-root-port", "pci-bridge")) not in same


def test_a_file_is_the_same_disk_wherever_it_is() -> None:
    file = changed("type='volume' device", "type='file' device")
    file = file.replace("pool='default' volume='base.qcow2'", "file='/srv/images/other.qcow2'")
    assert normal_definition.digest(file) == normal_definition.digest(BASE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (">524288<", ">1048576<"),
        ("pc-q35-7.2", "pc-q35-8.0"),
        ("bus='virtio'", "bus='scsi'"),
        ("drive-1", "drive-2"),
        ("source network='default'", "source network='other'"),
        ("type='qcow2'", "type='raw'"),
        ("<nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>/var/lib/libvirt/qemu/nvram/base.fd"
         "</nvram>", ""),
    ],
)  # fmt: skip
def test_what_the_guest_sees_counts(old: str, new: str) -> None:
    assert normal_definition.digest(changed(old, new)) != normal_definition.digest(BASE)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_normal_form_names_no_machine(path: Path) -> None:
    """With whatever devices; and it is equal under another name and other addresses."""
    text = path.read_text(encoding="utf-8")
    form = normal_definition.normal(text)
    uuid = re.search("<uuid>(.*?)</uuid>", text)
    assert uuid is None or b"<uuid>" not in form
    other = re.sub("<name>.*?</name>", "<name>elsewhere</name>", text, count=1)
    other = re.sub(r"(<mac address=['\"])[0-9a-f:]{17}", r"\g<1>52:54:00:aa:bb:cc", other)
    assert normal_definition.normal(other) == form


NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=30)


@given(name=NAMES, uuid=st.uuids(), last=st.integers(0, 255), folder=NAMES)
def test_no_copy_differs(name: str, uuid: object, last: int, folder: str) -> None:
    copy = (
        BASE.replace("11111111-2222-4333-8444-555555555555", str(uuid))
        .replace("52:54:00:00:00:01", f"52:54:00:00:00:{last:02x}")
        .replace("<name>base<", f"<name>{name}<")
        .replace("/var/l", f"/srv/{folder}")
        .replace("\n", "\n \t")
    )
    assert normal_definition.normal(copy).decode() == GOLDEN
