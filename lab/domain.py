"""The XML of the lab's base machines."""

from __future__ import annotations

import ctypes
import functools
import mmap
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from lab.common import CACHE, boot_id, read_json, write_json
from lab.image import Boot

#: Debian's OVMF build: the code is shared and read-only, the variables are copied per machine.
OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARS = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")

#: Fast under emulation: does not probe for missing devices, and calls the one card eth0.
CMDLINE = (
    "console=ttyS0 quiet net.ifnames=0 nokaslr mitigations=off audit=0 no_timer_check "
    "tsc=reliable random.trust_cpu=on panic=5 init_on_alloc=0 lsm=capability "
    "randomize_kstack_offset=off"
)
ROOT_CMDLINE = "lab.root root=/dev/vda rw fsck.mode=skip systemd.show_status=0"


@functools.cache
def tsc_khz() -> int:
    """Return how often a second this machine's time stamp counter ticks, in kHz.

    An emulated guest has the same counter. It measures it as it boots, against a timer that stands
    still while QEMU has to wait for a core; the guest's clock then runs a hundred times too fast,
    and each of its timeouts is over at once. So it is told. Two looks differ by a few kHz, and with
    them definitions that are to be equal: the first answer is kept until this machine boots again.
    """
    memory = CACHE / "tsc-khz.json"
    known = read_json(memory)
    if known.get("boot_id") != boot_id():
        known = {"boot_id": boot_id(), "khz": _measured_tsc_khz()}
        write_json(memory, known)
    return int(known["khz"])


def _measured_tsc_khz() -> int:
    # rdtsc; shl rdx, 32; or rax, rdx; ret
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("0f31 48c1e220 4809d0 c3"))
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))

    def look() -> tuple[int, int]:
        """Return a tick and its nanosecond, of several looks that with the least between them."""
        looks = []
        for _ in range(20):
            before, tick, after = time.monotonic_ns(), read(), time.monotonic_ns()
            looks.append((after - before, tick, before))
        return min(looks)[1:]

    first, begun = look()
    time.sleep(0.2)
    last, ended = look()
    return round((last - first) * 10**6 / (ended - begun))


@dataclass(frozen=True)
class Disk:
    """One disk of a base; the file at ``path`` exists already."""

    path: Path
    fmt: str
    device: str = "disk"
    serial: str | None = None

    def xml(self, index: int) -> str:
        letter = chr(ord("a") + index)
        if self.device == "cdrom":
            target, extra = f"<target dev='sd{letter}' bus='scsi'/>", "<readonly/>"
        else:
            target, extra = f"<target dev='vd{letter}' bus='virtio'/>", ""
        if self.serial:
            extra += f"<serial>{escape(self.serial)}</serial>"
        return (
            f"<disk type='file' device='{self.device}'>"
            f"<driver name='qemu' type='{self.fmt}'/>"
            f"<source file={quoteattr(str(self.path))}/>{target}{extra}</disk>"
        )


_AGENT_CHANNEL = (
    "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
)


@dataclass(frozen=True)
class Machine:
    """A base machine; :meth:`xml` returns its definition for libvirt."""

    name: str
    kind: str  # kvm | qemu
    boot: Boot
    network: str
    disks: Sequence[Disk]
    cmdline: str
    memory_mib: int
    console: Path
    agent: bool = False
    nvram: Path | None = None
    devices: str = ""
    interfaces: int = 1
    metadata: str = field(default="")

    def xml(self) -> str:
        cards = (
            f"<interface type='network'><source network={quoteattr(self.network)}/>"
            "<model type='virtio'/></interface>"
        ) * self.interfaces
        agent = _AGENT_CHANNEL if self.agent else ""
        firmware = (
            f"<loader readonly='yes' type='pflash'>{OVMF_CODE}</loader>"
            f"<nvram template='{OVMF_VARS}'>{escape(str(self.nvram))}</nvram>"
            if self.nvram
            else ""
        )
        disks = "".join(disk.xml(index) for index, disk in enumerate(self.disks))
        cpu, words = "<cpu mode='host-passthrough'/>", self.cmdline
        if self.kind != "kvm":
            cpu, words = "", f"{words} tsc_early_khz={tsc_khz()}"
        return f"""<domain type='{self.kind}'>
  <name>{escape(self.name)}</name>
  <memory unit='MiB'>{self.memory_mib}</memory>
  <vcpu>1</vcpu>
  {self.metadata}
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    {firmware}
    <kernel>{escape(str(self.boot.kernel))}</kernel>
    <initrd>{escape(str(self.boot.initrd))}</initrd>
    <cmdline>{escape(words)}</cmdline>
  </os>
  <features><acpi/></features>
  {cpu}
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {disks}
    <controller type='scsi' model='virtio-scsi'/>
    {cards}
    <serial type='pty'><log file={quoteattr(str(self.console))} append='off'/></serial>
    <console type='pty'/>
    {agent}
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <memballoon model='none'/>
    {self.devices}
  </devices>
</domain>
"""
