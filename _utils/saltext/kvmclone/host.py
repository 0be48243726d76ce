"""
One libvirt daemon: connecting, domains, networks, the guest agent.

Together with :mod:`.volumes` the only room that imports libvirt. Every call goes through
:meth:`Host.call`, which counts it and turns a libvirt error into one of ours that keeps
the error number; nobody else ever reads libvirt's texts.
"""

from __future__ import annotations

import json
import logging
import math
import os
import pwd
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from saltext.kvmclone import domain_xml, ownership
from saltext.kvmclone.codes import (
    AGENT_UNRESPONSIVE,
    INVALID_ARG,
    NO_DOMAIN,
    NO_DOMAIN_METADATA,
    NO_SUPPORT,
    OPERATION_INVALID,
    STATES,
)
from saltext.kvmclone.errors import (
    ChannelError,
    HostError,
    HostUnreachable,
    MissingPackage,
    NotFound,
)
from saltext.kvmclone.facts import AgentInterface, Lease
from saltext.kvmclone.guest.agent import AgentError

try:
    import libvirt
    import libvirt_qemu
except ImportError:  # a master needs none: its hosts do the work
    libvirt = None

log = logging.getLogger(__name__)

T = TypeVar("T")

#: The last error of this thread, as it happened. libvirt-python asks for it only when it raises;
#: if Python frees an old libvirt object in between, the exception has neither number nor text.
_heard = threading.local()


def _hear(_context: Any, error: tuple[Any, ...]) -> None:
    """libvirt's error handler; without one libvirt-python prints every error to stderr."""
    _heard.error = (error[0], error[2])
    log.debug("libvirt: %s", error)


def available() -> bool:
    """Whether libvirt-python is installed here."""
    return libvirt is not None


def is_local(url: str) -> bool:
    """Whether a libvirt URI names the daemon of this very machine and its real disks."""
    parts = urlsplit(url)
    return parts.scheme in ("qemu", "qemu+unix") and not parts.netloc


class Host:
    """
    A connection to one libvirt daemon; use it as a context manager, one per operation.

    :param url: libvirt URI, ``qemu:///system`` or ``qemu+ssh://…``.
    :raises MissingPackage: libvirt-python is not installed.
    :raises HostUnreachable: The daemon does not answer or refuses us.
    """

    def __init__(self, url: str) -> None:
        if libvirt is None:
            raise MissingPackage(
                f"libvirt-python is not installed here, so '{url}' cannot be driven from here.",
                "Install it: salt-pip install libvirt-python   (Debian: apt install "
                "python3-libvirt). Or set 'host:' in the provider to the minion on the KVM host.",
            )
        self.url = url
        self.calls = 0
        libvirt.registerErrorHandler(_hear, None)
        try:
            self.connection = libvirt.open(url)
        except libvirt.libvirtError as error:
            raise _unreachable(url, error) from error

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a broken one closes too."""
        try:
            self.connection.close()
        except libvirt.libvirtError as error:
            log.debug("closing %s: %s", self.url, error)

    @property
    def local(self) -> bool:
        """Whether the daemon's files are ours to read: its machine is this one and we are root."""
        return is_local(self.url) and os.geteuid() == 0

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """
        One libvirt call, counted.

        :raises HostError: libvirt's error, with its number in ``code``.
        """
        self.calls += 1
        _heard.error = None
        try:
            return function(*arguments)
        except libvirt.libvirtError as error:
            code, message = error.get_error_code(), error.get_error_message()
            if code is None and _heard.error is not None:
                code, message = _heard.error
            raise HostError(
                f"libvirt at {self.url}: {message}",
                "Look at the log of libvirtd on that host: journalctl -u libvirtd",
                code=code or 0,
            ) from error

    def node_name(self) -> str:
        """The KVM host's own name."""
        return str(self.call(self.connection.getHostname))

    # --- domains --------------------------------------------------------------------

    def find(self, name: str) -> DomainHandle | None:
        """The domain of that name, None where there is none."""
        with absent(NO_DOMAIN):
            return DomainHandle(self, self.call(self.connection.lookupByName, name))
        return None

    def domain(self, name: str) -> DomainHandle:
        """
        The domain of that name.

        :raises NotFound: There is none.
        """
        found = self.find(name)
        if found is None:
            raise NotFound(
                f"There is no domain '{name}' at {self.url}.",
                f"See what is there: virsh -c {self.url} list --all",
            )
        return found

    def each_domain(self, look: Callable[[DomainHandle], T]) -> list[T]:
        """What ``look`` tells of every domain; one that vanishes meanwhile is left out."""
        told: list[T] = []
        for raw in self.call(self.connection.listAllDomains, 0):
            with absent(NO_DOMAIN):
                told.append(look(DomainHandle(self, raw)))
        return told

    def define(self, xml: str, validate: bool) -> DomainHandle:
        """
        Define a domain. A name that is taken under another uuid fails with
        :data:`OPERATION_FAILED`, so that a definition also serves as the lock on its name.

        :param validate: Hold the XML against libvirt's schema first.
        """
        flags = libvirt.VIR_DOMAIN_DEFINE_VALIDATE if validate else 0
        return DomainHandle(self, self.call(self.connection.defineXMLFlags, xml, flags))

    # --- networks -------------------------------------------------------------------

    def leases(self, network: str, mac: str) -> list[Lease]:
        """
        DHCP leases that a libvirt network gave to a MAC address.

        :return: Empty also where the network is gone or keeps no leases.
        """
        try:
            found = self.call(self.connection.networkLookupByName, network)
            rows = self.call(found.DHCPLeases, mac)
        except HostError as error:
            log.debug("no leases of %s: %s", network, error.message)
            return []
        return [
            Lease(
                mac=(row.get("mac") or mac).lower(),
                address=row["ipaddr"],
                prefix=int(row.get("prefix") or 0),
                family="ipv4" if row.get("type") == libvirt.VIR_IP_ADDR_TYPE_IPV4 else "ipv6",
                expires=float(row.get("expirytime") or 0),
                client_id=row.get("clientid") or "",
            )
            for row in rows
        ]


class DomainHandle:
    """One domain; every method is one libvirt call unless it says otherwise."""

    def __init__(self, host: Host, raw: Any) -> None:
        self.host = host
        self.raw = raw

    @property
    def name(self) -> str:
        return str(self.raw.name())

    @property
    def uuid(self) -> str:
        return str(self.raw.UUIDString())

    def definition(self) -> str:
        """The definition as the next start will use it, console passwords included."""
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        return str(self.host.call(self.raw.XMLDesc, flags))

    def live(self) -> str:
        """The XML as it runs now; it also tells whether the agent is connected."""
        return str(self.host.call(self.raw.XMLDesc, 0))

    def state(self) -> str:
        """libvirt's state in the words of CONTRACT.md."""
        return STATES.get(self.host.call(self.raw.state)[0], "running")

    def is_saved(self) -> bool:
        """Whether a memory image of the domain waits to be restored."""
        try:
            return bool(self.host.call(self.raw.hasManagedSaveImage, 0))
        except HostError as error:
            if error.code == NO_SUPPORT:
                return False
            raise

    def record(self) -> ownership.Record | None:
        """Our record, None for a foreign domain."""
        with absent(NO_DOMAIN_METADATA):
            xml = self.host.call(
                self.raw.metadata,
                libvirt.VIR_DOMAIN_METADATA_ELEMENT,
                ownership.NAMESPACE,
                libvirt.VIR_DOMAIN_AFFECT_CONFIG,
            )
            return ownership.from_xml(xml, self.uuid)
        return None

    def save_record(self, record: ownership.Record) -> None:
        """Write the record into the definition, and into the running domain too."""
        flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG
        if self.state() != "shutoff":
            flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE
        self._set_metadata(record, flags)

    def save_record_offline(self, record: ownership.Record) -> None:
        """Write the record of a domain that is known not to run: one call instead of two."""
        self._set_metadata(record, libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    def _set_metadata(self, record: ownership.Record, flags: int) -> None:
        self.host.call(
            self.raw.setMetadata,
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            ownership.to_xml(record),
            ownership.PREFIX,
            ownership.NAMESPACE,
            flags,
        )

    def start(self) -> None:
        """Boot the domain."""
        self.host.call(self.raw.create)

    def resume(self) -> None:
        """Let a paused domain go on."""
        self.host.call(self.raw.resume)

    def shut_down(self) -> None:
        """Ask the guest to shut down; one that is off already stays so."""
        with absent(OPERATION_INVALID):
            self.host.call(self.raw.shutdown)

    def reboot(self) -> None:
        """Ask the guest to reboot."""
        self.host.call(self.raw.reboot, 0)

    def power_off(self) -> None:
        """Stop the domain at once; one that is off already stays so."""
        with absent(OPERATION_INVALID):
            self.host.call(self.raw.destroy)

    def set_autostart(self, on: bool) -> None:
        """Start the domain with the host, or not."""
        self.host.call(self.raw.setAutostart, 1 if on else 0)

    def undefine(self, with_nvram: bool) -> None:
        """
        Remove the definition with everything that libvirt keeps for it.

        :param with_nvram: Delete the variable store too.
        """
        flags = (
            libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        )
        flags |= (
            libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
            if with_nvram
            else libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
        )
        try:
            self.host.call(self.raw.undefineFlags, flags)
        except HostError as error:
            if error.code not in (NO_SUPPORT, INVALID_ARG):  # a flag this driver does not know
                raise
            self.host.call(self.raw.undefine)

    def agent_connected(self) -> bool:
        """Whether a guest agent has opened its end of the channel."""
        return domain_xml.read(self.live()).agent_connected

    def agent(self, request: dict[str, Any], timeout: float) -> Any:
        """
        One request for the guest agent, as :class:`.guest.agent.AgentChannel` wants it.

        :param request: ``{"execute": …, "arguments": …}``.
        :param timeout: Seconds to wait for the answer.
        :return: The answer's ``return`` value.
        :raises AgentError: The agent refused the request.
        :raises ChannelError: There is no agent, or it does not answer.
        """
        try:
            answer = self.host.call(
                libvirt_qemu.qemuAgentCommand,
                self.raw,
                json.dumps(request),
                max(1, math.ceil(timeout)),
                0,
            )
        except HostError as error:
            if error.code in (AGENT_UNRESPONSIVE, OPERATION_INVALID):
                raise ChannelError(
                    f"The guest agent of '{self.name}' does not answer.",
                    "In the guest: systemctl status qemu-guest-agent",
                ) from error
            raise AgentError(_agent_error_class(error), error.message) from error
        return json.loads(answer)["return"]

    def agent_interfaces(self) -> list[AgentInterface]:
        """
        The guest's interfaces, as its agent lists them.

        :raises HostError: There is no agent, or it does not answer.
        """
        found = self.host.call(
            self.raw.interfaceAddresses, libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT, 0
        )
        return [
            AgentInterface(
                name=name,
                mac=(value.get("hwaddr") or "").lower(),
                addresses=tuple(
                    (
                        entry["addr"],
                        int(entry.get("prefix") or 0),
                        "ipv4" if entry["type"] == libvirt.VIR_IP_ADDR_TYPE_IPV4 else "ipv6",
                    )
                    for entry in value.get("addrs") or ()
                ),
            )
            for name, value in (found or {}).items()
        ]


@contextmanager
def absent(code: int) -> Iterator[None]:
    """Take a libvirt error with this number as "it is not there"."""
    try:
        yield
    except HostError as error:
        if error.code != code:
            raise


def _agent_error_class(error: HostError) -> str:
    """What the agent calls its refusal; libvirt passes that on in its message only."""
    return "CommandNotFound" if "CommandNotFound" in error.message else "GenericError"


def _unreachable(url: str, error: Any) -> HostUnreachable:
    message = f"Cannot connect to libvirt at '{url}': {error.get_error_message()}"
    hint = f"Try it by hand: virsh -c '{url}' list"
    if is_local(url) and os.geteuid() != 0:
        # The numbers differ by how the host guards the socket: file mode, polkit, no D-Bus.
        user = pwd.getpwuid(os.geteuid()).pw_name
        hint = (
            f"This process runs as '{user}', not root, as a packaged Salt master does. Set 'host:' "
            "in the provider to the minion on this machine, or let the user in: "
            f"usermod -aG libvirt {user}"
        )
    elif is_local(url):
        hint = "Is libvirtd running? systemctl start libvirtd   (or: libvirtd -d)"
    return HostUnreachable(message, hint)
