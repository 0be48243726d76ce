"""
Open a connection to one libvirt daemon and make calls over it.

The only file that imports libvirt. Every call goes through :meth:`Connection.call`, which
counts it and turns a libvirt error into one of ours that keeps the error number; no other file
reads the texts of libvirt's errors.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import pwd
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from saltext.kvmclone.errors import (
    HostError,
    HostUnreachable,
    MissingPackage,
    NeverConnected,
)
from saltext.kvmclone.hypervisor.constants import FROM_RPC, INTERNAL_ERROR, SYSTEM_ERROR
from saltext.kvmclone.model import derived_files
from saltext.kvmclone.model.hints import Commands

try:
    import libvirt
    import libvirt_qemu
except ImportError:  # a master does without: its hosts do the work
    libvirt = None

log = logging.getLogger(__name__)

C = TypeVar("C", bound="Connection")

#: By uuid what tells the file of a definition from the one before, and what is known of it.
Defined = dict[str, tuple[tuple[int, ...], object]]


@dataclass(frozen=True)
class _Failure:
    """A libvirt error: ``virErrorNumber``, ``virErrorDomain``, text, and perhaps an ``errno``."""

    code: int
    source: int
    message: str
    errno: int


#: The last error of this thread, noted when it happened. libvirt-python reads it only when it
#: raises. If Python frees an old libvirt object in between, the exception has no number and no
#: text, or those of freeing that object: a lookup that found nothing then looked like a lost
#: connection, because an older connection was lost.
_heard = threading.local()


def _hear(_context: Any, error: tuple[Any, ...]) -> None:
    """Note libvirt's error for this thread; without a handler it would be printed to stderr."""
    _heard.failure = _Failure(error[0], error[1], error[2], error[7])
    log.debug("libvirt: error %s of %s", error[0], error[1])  # its text may quote a definition


def _told(error: Any) -> _Failure:
    """Return the error behind an exception of libvirt-python."""
    heard: _Failure | None = _heard.failure
    return heard or _Failure(
        error.get_error_code() or 0,
        error.get_error_domain() or 0,
        str(error.get_error_message()),
        error.get_int1() or 0,
    )


def available() -> bool:
    """Return whether libvirt-python is installed here."""
    return libvirt is not None


def is_local(url: str) -> bool:
    """Return whether a libvirt URI names the daemon of this machine and its real disks."""
    parts = urlsplit(url)
    return parts.scheme in ("qemu", "qemu+unix") and not parts.netloc


class Connection:
    """
    A connection to one libvirt daemon for one operation, open from the begin of a block to its end.

    :param url: libvirt URI, ``qemu:///system`` or ``qemu+ssh://…``.
    :param listen: Whether events will be waited for; otherwise :meth:`listen` may have to
        reconnect.
    :param commands: How the commands in hints are typed; by default as on the master.
    :raises MissingPackage: libvirt-python is not installed.
    :raises HostUnreachable: At the begin of the block: the daemon does not answer or refuses us.
    """

    def __init__(self, url: str, listen: bool = False, commands: Commands | None = None) -> None:
        if libvirt is None:
            raise MissingPackage(
                f"libvirt-python is not installed here, so '{url}' cannot be driven from here.",
                "Install it: salt-pip install libvirt-python   (Debian: apt install "
                "python3-libvirt). Or set 'host:' in the provider to the minion on the KVM host.",
            )
        self.url = url
        self.commands = commands or Commands(url)
        self.calls = 0
        #: libvirt's objects of the storage pools that were looked up over this connection.
        self.pools: dict[str, Any] = {}
        #: What is known of definitions; see :mod:`.domain_files`.
        self.defined: Defined = {}
        #: See :func:`.networks.by_bridge`; None until it was asked for.
        self.bridged: dict[str, str] | None = None
        libvirt.registerErrorHandler(_hear, None)
        if listen:
            _loop_runs()

    def _open(self) -> None:
        self._hears = _loop_process == os.getpid()
        self.pools.clear()
        self.bridged = None
        _heard.failure = None
        try:
            self.raw = libvirt.open(self.url)
        except libvirt.libvirtError as error:
            raise _unreachable(self.commands, _told(error).message) from error

    def __enter__(self: C) -> C:
        self._open()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; one that is lost already is closed without an error."""
        try:
            self.raw.close()
        except libvirt.libvirtError as error:
            log.debug("closing %s: %s", self.url, error)

    @functools.cached_property
    def local(self) -> bool:
        """Return whether the daemon's files can be read: it runs here, and we are root."""
        return is_local(self.url) and os.geteuid() == 0

    @functools.cached_property
    def folders(self) -> derived_files.Folders:
        """Return the folders in which the daemon keeps the files that it makes for its domains."""
        user = os.geteuid()
        home = pwd.getpwuid(user).pw_dir
        configuration = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
        return derived_files.folders(self.url, user, configuration, cache)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """
        Make one libvirt call and count it.

        :param function: A function or bound method of libvirt-python.
        :return: What libvirt returned.
        :raises HostError: libvirt's error, with its number in ``code``.
        :raises HostUnreachable: The connection was lost.
        """
        self.calls += 1
        _heard.failure = None
        try:
            return function(*arguments)
        except libvirt.libvirtError as error:
            failure = _told(error)
            # libvirt calls a connection alive for a moment after a write to it failed.
            broken = failure.source == FROM_RPC and failure.code in (INTERNAL_ERROR, SYSTEM_ERROR)
            if broken or not self._alive():
                raise HostUnreachable(
                    f"The connection to libvirt at {self.url} was lost: {failure.message}",
                    f"{_way_to_daemon(self.commands)}   Then repeat the command.",
                ) from error
            refusal = HostError(
                f"libvirt at {self.url}: {failure.message}",
                "Look at the log of libvirtd on that host: "
                + self.commands.there("journalctl", "-u", "libvirtd"),
                code=failure.code,
                errno=failure.errno if failure.code == SYSTEM_ERROR else 0,
            )
            if refusal.no_room:
                refusal.hint = (
                    f"Make room on that host: {self.commands.there('df', '-h')}   "
                    "Then repeat the command."
                )
            raise refusal from error

    def _alive(self) -> bool:
        try:
            return bool(self.raw.isAlive())
        except libvirt.libvirtError:
            return False

    def agent_command(self, raw_domain: Any, text: str, timeout: float) -> Any:
        """
        Send one request to a domain's guest agent and return its answer.

        :param text: The request, as JSON.
        :param timeout: Seconds to wait for the answer, rounded up, at least one.
        :return: The answer, as JSON.
        :raises HostError: There is no agent, or it refused or did not answer.
        """
        seconds = max(1, math.ceil(timeout))
        return self.call(libvirt_qemu.qemuAgentCommand, raw_domain, text, seconds, 0)

    # --- events ---------------------------------------------------------------------

    def listen(self) -> bool:
        """
        Let libvirt's events arrive over this connection.

        A connection that was opened before the event loop ran gets none, so it is opened again:
        every libvirt object that came from it must then be looked up again.

        :return: Whether events will arrive; otherwise the caller has to poll.
        """
        if not _loop_runs():
            return False
        if not self._hears:
            self.reopen()
        return True

    def reopen(self) -> None:
        """
        Connect again; domains and networks that came from the old connection are void.

        :raises HostUnreachable: The daemon does not answer.
        """
        self.close()
        self._open()

    def on_event(self, raw_domain: Any, event: int, hear: Callable[[int], None]) -> int:
        """
        Call ``hear`` with the number of what happened, from the event loop's thread.

        :param event: ``virDomainEventID``.
        :return: The number that :meth:`off_event` takes.
        """

        def heard(_connection: Any, _domain: Any, what: int, _detail: int, _opaque: Any) -> None:
            hear(what)

        register = self.raw.domainEventRegisterAny
        return int(self.call(register, raw_domain, event, heard, None))

    def off_event(self, number: int) -> None:
        """
        Stop the calls that :meth:`on_event` ordered.

        :param number: What :meth:`on_event` returned.
        """
        self.call(self.raw.domainEventDeregisterAny, number)

    def on_lost(self, hear: Callable[[], None]) -> None:
        """Call ``hear`` when the connection breaks, from the event loop's thread."""
        self.call(self.raw.registerCloseCallback, lambda *_: hear(), None)


#: The process whose thread runs libvirt's event loop, 0 for none. A child forked from it
#: inherits the registration but no thread: no event ever arrives there, and none is waited for.
_loop_process = 0
_loop_lock = threading.Lock()


def _loop_runs() -> bool:
    """
    Return whether events can arrive in this process.

    Starts the event loop in the first process that asks.
    """
    global _loop_process
    with _loop_lock:
        if not _loop_process:
            _loop_process = os.getpid()
            libvirt.virEventRegisterDefaultImpl()
            threading.Thread(target=_run_loop, name="libvirt-events", daemon=True).start()
        return _loop_process == os.getpid()


def _run_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError as error:
            log.warning("libvirt's event loop: %s", error)
            time.sleep(1.0)


def _unreachable(commands: Commands, why: str) -> HostUnreachable:
    url = commands.url
    message = f"Cannot connect to libvirt at '{url}': {why}"
    hint = _way_to_daemon(commands)
    if ":" not in url:
        # `kvm_clone.start web1 web2`: Salt hands the second name over as the url.
        hint = f"A url reads like qemu:///system. If '{url}' is a machine: one name per call."
    elif is_local(url) and os.geteuid() != 0:
        # The numbers differ by how the host guards the socket: file mode, polkit, no D-Bus.
        user = pwd.getpwuid(os.geteuid()).pw_name
        hint = (
            f"This process runs as '{user}', not root, as a packaged Salt master does. Set 'host:' "
            "in the provider to the minion on this machine, or let the user in: "
            f"usermod -aG libvirt {user}"
        )
    return NeverConnected(message, hint)


def _way_to_daemon(commands: Commands) -> str:
    """Return what to type where a daemon does not answer."""
    if not is_local(commands.url):
        return f"Try it by hand: {commands.virsh('list')}"
    return (
        f"Is libvirtd running? Start it: {commands.there('systemctl', 'start', 'libvirtd')}   "
        f"Or, without systemd: {commands.there('libvirtd', '-d')}"
    )
