"""A plain bridge, as in production: a foreign DHCP server is on it, and libvirt does not know it.

The server runs in a network namespace that a veth pair connects to the bridge. This machine has
an address on the bridge too, as a KVM host usually has.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from lab.common import LabError, process_start, run, wait_until

#: The names of bridge and namespace are this, the maker's process id and a random end; the name of
#: a network device has at most 15 characters.
_PREFIX = "kcb"


class Bridge:
    """A bridge, as a context manager; making one also removes what a crashed one left.

    :param third: The third number of its subnet ``10.231.THIRD``; 0 for a random one.
    """

    def __init__(self, third: int = 0) -> None:
        third = third or secrets.randbelow(120)
        self.name = f"{_PREFIX}{os.getpid():x}x{secrets.token_hex(1)}"
        self.subnet = f"10.231.{third}"
        self.host_address = f"{self.subnet}.1"
        self.server_address = f"{self.subnet}.2"
        self._server: subprocess.Popen[bytes] | None = None
        self._leases = Path(f"/run/{self.name}.leases")

    def __enter__(self) -> Bridge:
        clean()
        try:
            self._make()
            self._serve()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def interface_xml(self) -> str:
        """Return the XML of a domain's interface on the bridge, to be put among its devices."""
        return (
            f"<interface type='bridge'><source bridge='{self.name}'/>"
            "<model type='virtio'/></interface>"
        )

    def leases(self) -> dict[str, str]:
        """Return the addresses that the foreign server leased last, by MAC address."""
        try:
            text = self._leases.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        # Expiry comes first; a guest with a new identity has two, and the old one stays.
        rows = sorted((line.split() for line in text.splitlines()), key=lambda row: int(row[0]))
        return {row[1]: row[2] for row in rows}

    def wait_for_lease(self, mac: str) -> str:
        return str(wait_until(lambda: self.leases().get(mac), f"a lease of {mac}", 60))

    def talk_to(self, address: str) -> None:
        """Send a packet to a guest, so that this machine's ARP table learns its MAC address."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"hello", (address, 9))

    def close(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGTERM)
            self._server.wait()
            self._server = None
        _remove(self.name)
        self._leases.unlink(missing_ok=True)

    def _make(self) -> None:
        run(["ip", "link", "add", self.name, "type", "bridge", "forward_delay", "0"])
        run(["ip", "address", "add", f"{self.host_address}/24", "dev", self.name])
        run(["ip", "link", "set", self.name, "up"])
        run(["ip", "netns", "add", self.name])
        run(["ip", "link", "add", self._veth, "type", "veth", "peer", "eth0", "netns", self.name])
        run(["ip", "link", "set", self._veth, "master", self.name, "up"])
        inside = ["ip", "-n", self.name]
        run([*inside, "link", "set", "lo", "up"])
        run([*inside, "address", "add", f"{self.server_address}/24", "dev", "eth0"])
        run([*inside, "link", "set", "eth0", "up"])

    @property
    def _veth(self) -> str:
        return f"{self.name[:13]}-v"

    def _serve(self) -> None:
        self._server = subprocess.Popen(
            ["ip", "netns", "exec", self.name, "dnsmasq", "--keep-in-foreground"]
            + ["--conf-file=/dev/null", "--pid-file=", "--port=0", "--no-ping", "--user=root"]
            + ["--interface=eth0", f"--dhcp-leasefile={self._leases}", "--dhcp-authoritative"]
            + [f"--dhcp-range={self.subnet}.100,{self.subnet}.199,255.255.255.0,1h"]
            + [f"--dhcp-option=option:router,{self.server_address}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._listens, "the foreign DHCP server", 10)

    def _listens(self) -> bool:
        if self._server is not None and self._server.poll() is not None:
            raise LabError("the foreign DHCP server ended at once")
        return ":67 " in run(["ip", "netns", "exec", self.name, "ss", "-lunH"])


def clean() -> None:
    """Remove the bridges whose maker is gone."""
    for line in run(["ip", "-o", "link", "show", "type", "bridge"]).splitlines():
        name = line.split(":")[1].strip()
        if name.startswith(_PREFIX) and process_start(_maker(name)) is None:
            _remove(name)


def _maker(name: str) -> int:
    with suppress(ValueError):
        return int(name.removeprefix(_PREFIX).partition("x")[0], 16)
    return os.getpid()  # not one of ours after all: counts as in use


def _remove(name: str) -> None:
    with suppress(LabError):
        for pid in run(["ip", "netns", "pids", name]).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        run(["ip", "netns", "delete", name])
    with suppress(LabError):
        run(["ip", "link", "delete", name])
