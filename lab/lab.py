"""The scratch world: a network, a pool and base machines of its own, removed without a trace.

Nothing that was on the machine before is touched. What a lab made is written into ``lab.json``
in its scratch folder as it is made, so that ``leftovers.clean`` can remove it even after a
crash.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from lab import image, libvirtd
from lab.common import (
    LIBVIRT_URI,
    SCRATCH_ROOT,
    LabError,
    process_start,
    run,
    wait_until,
    write_json,
)
from lab.domain import CMDLINE, OVMF_VARS, ROOT_CMDLINE, Disk, Machine
from lab.leftovers import NAME, clean, connection, remove

__all__ = ["Lab", "clean", "connection"]


class Lab:
    """A lab. Use it as a context manager, or call :meth:`close`; both may happen more than once."""

    def __init__(self) -> None:
        libvirtd.require_root()
        clean()
        token = secrets.token_hex(2)
        self.name = NAME + token
        self.folder = SCRATCH_ROOT / self.name
        self.network = self.name
        self.pool = self.name
        self.bridge = f"vkc{token}"
        self.pool_path = self.folder / "pool"
        self._state: dict[str, Any] = {
            "pid": os.getpid(),
            "start": process_start(os.getpid()),
            "kept": False,
            "domains": [],
        }
        boot = image.boot_files()
        self.folder.mkdir(mode=0o755)
        self._save()
        try:
            for part in ("pool", "boot", "console", "nvram"):
                (self.folder / part).mkdir(mode=0o755)
            self.boot = image.Boot(self.folder / "boot/vmlinuz", self.folder / "boot/initrd")
            shutil.copy(boot.kernel, self.boot.kernel)
            shutil.copy(boot.initrd, self.boot.initrd)
            libvirtd.ensure()
            self.domain_type = libvirtd.domain_type(boot.kernel, boot.initrd)
            with connection() as conn:
                self.subnet = self._make_network(conn)
                self._make_pool(conn)
        except BaseException:
            self.close()
            raise

    # --- bases ---------------------------------------------------------------------------------

    def debian_base(
        self,
        name: str,
        *,
        agent: bool = True,
        devices: str = "",
        change: Callable[[Path], None] | None = None,
        packages: Sequence[str] = (),
        cloud: bool = False,
        more: Sequence[Disk] = (),
    ) -> str:
        """Define (and leave off) a Debian machine with sshd, Salt and, if wanted, an agent.

        :param agent: Whether it has a channel for the guest agent.
        :param devices: XML of more devices.
        :param change: Called with the folder where its file system is mounted, to change it.
        :param packages: More packages of Debian, for a system that is changed.
        :param cloud: Whether cloud-init is in it.
        :param more: Disks behind its own.
        :return: Its name.
        """
        disk = self.pool_path / f"{name}.qcow2"
        if cloud:
            image.copy_sparse(image.cloud(), disk)
        elif change is None:
            image.copy_sparse(image.debian(), disk)
        else:
            source = image.equipped(*packages) if packages else image.debian("raw")
            image.changed(source, disk, "qcow2", change)
        disks = [Disk(disk, "qcow2"), *more]
        words = f"{CMDLINE} {ROOT_CMDLINE}"
        return self._machine(name, disks, words, 512, agent=agent, devices=devices)

    def tiny_base(
        self,
        name: str,
        fmt: str = "qcow2",
        *,
        disks: int | Sequence[str] = 1,
        size: str = "64M",
        chain: int = 0,
        cdrom: bool = False,
        uefi: bool = False,
        agent: bool = False,
        interfaces: int = 1,
        options: str = "",
        devices: str = "",
    ) -> str:
        """Define a machine that is up within seconds and has no system on its disks.

        :param fmt: Format of its disks.
        :param disks: How many, or a list of formats.
        :param size: Of each disk, for qemu-img.
        :param chain: Number of backing files below the first disk.
        :param cdrom: Whether it has a CD-ROM, with a medium that all such machines share.
        :param options: ``tiny.nodhcp``, ``tiny.agent=SECONDS`` … (see ``guest/init``).
        :param devices: XML of more devices.
        :return: Its name.
        """
        formats = [fmt] * disks if isinstance(disks, int) else list(disks)
        made = []
        for index, one in enumerate(formats):
            path = self.pool_path / f"{name}-{index}.{one}"
            image.make_disk(path, one, size, self._chain(name, size, 0 if index else chain))
            made.append(Disk(path, one, serial=f"disk-{index}"))
        if cdrom:
            made.append(Disk(self._medium(), "raw", device="cdrom"))
        nvram = None
        if uefi:
            nvram = self.folder / f"nvram/{name}.fd"
            shutil.copy(OVMF_VARS, nvram)
        return self._machine(
            name,
            made,
            f"{CMDLINE} {options}".strip(),
            256 if uefi else 128,
            agent=agent,
            nvram=nvram,
            interfaces=interfaces,
            devices=devices,
        )

    def _medium(self) -> Path:
        """Return the CD-ROM's medium that all machines share."""
        medium = self.pool_path / "shared.iso"
        if not medium.exists():
            medium.write_bytes(b"shared by all clones" * 1024)
        return medium

    def _chain(self, name: str, size: str, length: int) -> Path | None:
        """Make the backing files of a machine's first disk; return the uppermost, if any."""
        backing = None
        for level in range(length):
            below = self.pool_path / f"{name}-0-below{level}.qcow2"
            image.make_disk(below, "qcow2", size, backing)
            backing = below
        return backing

    def _machine(
        self, name: str, disks: Sequence[Disk], cmdline: str, memory_mib: int, **more: Any
    ) -> str:
        """Define a machine that starts with the lab's own kernel, and return its name."""
        place = (self.domain_type, self.boot, self.network)
        console = self.folder / f"console/{name}.log"
        return self.define(Machine(name, *place, disks, cmdline, memory_mib, console, **more))

    def define(self, machine: Machine | str) -> str:
        """Define a domain and note it as the lab's.

        :param machine: The machine, or its XML.
        :return: Its name.
        :raises LabError: There is a domain of that name already.
        """
        xml = machine if isinstance(machine, str) else machine.xml()
        name = ElementTree.fromstring(xml).findtext("name") or ""
        with connection() as conn:
            if name in [domain.name() for domain in conn.listAllDomains()]:
                raise LabError(
                    f"a domain called {name!r} is there already, and it is not the lab's"
                )
            self._state["domains"].append(name)
            self._save()
            conn.defineXML(xml)
        return name

    # --- watching guests -----------------------------------------------------------------------

    def start(self, name: str) -> None:
        with connection() as conn:
            conn.lookupByName(name).create()

    def stop(self, name: str) -> None:
        """Switch a domain off at once."""
        with connection() as conn, suppress(libvirt.libvirtError):
            conn.lookupByName(name).destroy()

    def lease(self, name: str) -> str | None:
        """Return the address that the network's DHCP server gave to a domain; None if none."""
        with connection() as conn:
            found = conn.lookupByName(name).interfaceAddresses(
                libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE
            )
        for card in found.values():
            for address in card["addrs"] or []:
                return str(address["addr"])
        return None

    def wait_for_lease(self, name: str) -> str:
        hint = f"console: {self.folder}/console/{name}.log"
        return str(wait_until(lambda: self.lease(name), f"a lease of {name}", 180, hint=hint))

    def agent(self, name: str, execute: str, **arguments: Any) -> Any:
        """Send one guest agent command and return its answer; None if the agent does not answer."""
        words = json.dumps({"execute": execute, "arguments": arguments})
        done = subprocess.run(
            ["virsh", "-c", LIBVIRT_URI, "qemu-agent-command", name, words, "--timeout", "3"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return json.loads(done.stdout)["return"] if done.returncode == 0 else None

    def wait_for_agent(self, name: str, timeout: float = 180) -> None:
        wait_until(
            lambda: self.agent(name, "guest-ping") is not None, f"the agent of {name}", timeout
        )

    def console(self, name: str) -> str:
        """Return what a base's serial console showed since its last start."""
        path = self.folder / f"console/{name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    # --- what else belongs to this lab -----------------------------------------------------------

    def own_domain(self, *names: str) -> None:
        """Note domains as the lab's; clones with disks in its pool are that without it."""
        self._state["domains"].extend(names)
        self._save()

    def keep(self) -> None:
        """Outlive this process; ``python -m lab clean --all`` removes it."""
        self._state["kept"] = True
        self._save()

    @property
    def gateway(self) -> str:
        """Return this machine's address on the network, at which guests find the master."""
        return str(self.subnet[1])

    def close(self) -> None:
        if not self._state["kept"]:
            remove(self.folder)

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # --- making it -----------------------------------------------------------------------------

    def _save(self) -> None:
        if self.folder.is_dir():
            write_json(self.folder / "lab.json", self._state)

    def _make_network(self, conn: libvirt.virConnect) -> ipaddress.IPv4Network:
        last: Exception | None = None
        for subnet in _free_subnets(conn):
            xml = f"""<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>
  <name>{self.network}</name>
  <bridge name='{self.bridge}' stp='off' delay='0'/>
  <forward mode='nat'/>
  <ip address='{subnet[1]}' prefix='24'>
    <dhcp>
      <!-- Short leases: hundreds of clones come and go in one lab. -->
      <range start='{subnet[20]}' end='{subnet[250]}'><lease expiry='3' unit='minutes'/></range>
    </dhcp>
  </ip>
  <!-- Nothing that a guest asks leaves this machine; and no 3 s of pinging before each lease. -->
  <dnsmasq:options>
    <dnsmasq:option value='no-resolv'/>
    <dnsmasq:option value='no-ping'/>
  </dnsmasq:options>
</network>"""
            network = conn.networkDefineXML(xml)
            try:
                network.create()
            except libvirt.libvirtError as error:  # somebody took the subnet since
                network.undefine()
                last = error
            else:
                return subnet
        raise LabError(f"no 192.168.x.0/24 is free for the lab's network (last: {last})")

    def _make_pool(self, conn: libvirt.virConnect) -> None:
        xml = (
            f"<pool type='dir'><name>{self.pool}</name>"
            f"<target><path>{self.pool_path}</path></target></pool>"
        )
        conn.storagePoolDefineXML(xml).create()


def _free_subnets(conn: libvirt.virConnect) -> Iterator[ipaddress.IPv4Network]:
    """Yield /24 networks that neither this machine nor any libvirt network uses."""
    taken = []
    for route in json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"])):
        with suppress(ValueError):  # "default"
            taken.append(ipaddress.IPv4Network(route["dst"], strict=False))
    for network in conn.listAllNetworks():
        for ip in ElementTree.fromstring(network.XMLDesc()).findall("ip"):
            with suppress(ValueError):
                mask = ip.get("prefix") or ip.get("netmask") or "24"
                taken.append(ipaddress.IPv4Network(f"{ip.get('address')}/{mask}", strict=False))
    thirds = list(range(130, 250))
    secrets.SystemRandom().shuffle(thirds)
    for third in thirds:
        subnet = ipaddress.IPv4Network(f"192.168.{third}.0/24")
        if not any(subnet.overlaps(other) for other in taken if other.prefixlen):
            yield subnet
