"""
Lead a copy of a base through the master, where its hosts do not reach each other.

The key that the target made for the copy is let into the master's own ssh server, for nothing but
a connection to the source's. What was let in is on record, in a folder under the master's
``cachedir``, before it is; so after a crash ``gc`` finds it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import CopyFailed
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.inventory.base_copies import mark
from saltext.kvmclone.model import base_copy
from saltext.kvmclone.model.base_copy import BaseOffer, CopyKey, Relay, is_id
from saltext.kvmclone.model.leftovers import Leftover
from saltext.kvmclone.model.plain import from_plain, to_plain
from saltext.kvmclone.model.record import DEAD, Owner
from saltext.kvmclone.system import fetching, files, processes, ssh_server
from saltext.kvmclone.system.ssh_server import BadKey, NoAccess, Server

log = logging.getLogger(__name__)

#: What the key may run here: it only leads on.
_NOTHING = "/bin/false"

_REASON = "a copy of it through this master did not end properly"


@dataclass(frozen=True)
class _LetIn:
    """
    A key that was let in here, or is about to be.

    :param base: Name of the base.
    :param keys: The file of keys.
    """

    base: str
    keys: str
    owner: Owner


class Relays:
    """
    The copies that lead through this master.

    :param opts: The master's configuration.
    """

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self.folder = os.path.join(str(opts["cachedir"]), "kvm_clone", "copies")

    @contextlib.contextmanager
    def lead(
        self, offer: BaseOffer, key: CopyKey, source: str, target: str, host: KvmHost
    ) -> Iterator[tuple[BaseOffer, CopyKey]]:
        """
        Let the target of a copy through to its source, as long as the block lasts.

        :param key: The key that the target made.
        :param source: Label of the source, ``target`` of the target, for messages.
        :param host: The target.
        :return: The offer and the key as the hosts are to see them: that way.
        :raises CopyFailed: There is no way through the master.
        """
        try:
            server, own = ssh_server.look_as_relay(), ssh_server.addresses()
        except NoAccess as error:
            raise _no_way(offer, source, target, f"on this master {error}") from error
        if wrong := "; ".join(base_copy.faults(offer)):
            raise CopyFailed(
                f"The offer that came from '{source}' is refused: {wrong}.",
                "Look at that host's minion, then repeat the push.",
            )
        # What is link-local is the master's neighbour alone, such as a cloud's metadata service.
        others = [one for one in offer.addresses if not ipaddress.ip_address(one).is_link_local]
        beyond = fetching.reached(others, offer.port, own)
        if not beyond:
            raise _no_way(offer, source, target, "this master does not reach that either")
        near = tuple(host.reached(list(own), server.port))
        if not near:
            at = f"port {server.port} at {', '.join(own) or 'no address'}"
            text = f"'{target}' does not reach this master's ssh server ({at})"
            raise _no_way(offer, source, target, text)
        if server.makes_sockets:
            log.warning(
                "as long as %s is copied, the key of '%s' can also have this master's ssh server "
                "make UNIX sockets; 'AllowStreamLocalForwarding no' in its sshd_config ends that",
                offer.base, target,
            )  # fmt: skip
        relay = Relay(server.user, server.port, near, server.host_keys)
        with self._let_in(server, offer, key, beyond[0]):
            yield (
                replace(offer, addresses=beyond[:1], relay=relay),
                replace(key, addresses=own),
            )

    @contextlib.contextmanager
    def _let_in(
        self, server: Server, offer: BaseOffer, key: CopyKey, address: str
    ) -> Iterator[None]:
        lasts = ssh_server.key_lasts(sum(file.length for file in offer.files))
        about = _LetIn(offer.base, server.keys, processes.this_process())
        word, beyond = mark(offer.copy), (address, offer.port)
        with contextlib.ExitStack() as undo:
            try:
                os.makedirs(self.folder, mode=0o700, exist_ok=True)
                undo.callback(self._take_out, offer.copy, server.keys)
                files.write(self._path(offer.copy), json.dumps(to_plain(about)))
                ssh_server.let_in(
                    server, key.public, word, key.addresses, _NOTHING, lasts, beyond
                )  # fmt: skip
            except BadKey as error:
                raise CopyFailed(
                    f"The key that the target made for a copy of '{offer.base}' is refused: "
                    f"{error}.",
                    "Look at that host's minion, then repeat the push.",
                ) from error
            except OSError as error:
                raise CopyFailed(
                    f"The key for a copy of '{offer.base}' cannot be let in on this master: "
                    f"{error.strerror}: '{error.filename}'.",
                    f"Look at it: ls -ld {self.folder} {os.path.dirname(server.keys)}",
                ) from error
            yield

    def _take_out(self, copy: str, keys: str) -> None:
        """Take a key out that was perhaps let in; what is not taken out stays on record."""
        try:
            with interrupts.shield():
                ssh_server.shut_out(keys, mark(copy))
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path(copy))
        except OSError as error:
            text = "the key of copy %s is not out of '%s' yet (salt-run kvmclone.gc): %s"
            log.warning(text, copy, keys, error)

    def _path(self, copy: str) -> str:
        return os.path.join(self.folder, f"{copy}.json")

    def left(self, name: str, apply: bool) -> list[Leftover]:
        """
        Return the keys that copies left here whose process is gone.

        :param name: Only of copies of this base; empty for all.
        :param apply: Take them out.
        """
        return [row for copy in self._copies() for row in self._left(copy, name, apply)]

    def _copies(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(filter(is_id, (one.partition(".")[0] for one in os.listdir(self.folder))))
        return []

    def _left(self, copy: str, name: str, apply: bool) -> Iterator[Leftover]:
        try:
            with open(self._path(copy), encoding="utf-8") as source:
                about = from_plain(_LetIn, json.load(source))
        except FileNotFoundError:
            return  # it has just ended
        if processes.owner_state(about.owner) != DEAD or (name and name != about.base):
            return
        row = Leftover(about.base, "ssh key", about.keys, _REASON)
        was_in = ssh_server.is_let_in(about.keys, mark(copy))
        if apply:
            self._take_out(copy, about.keys)
        if was_in and apply and ssh_server.is_let_in(about.keys, mark(copy)):
            yield row.stays(f"{_REASON}; it could not be taken out, see the master's log")
        elif was_in:
            yield replace(row, removed=apply)


def _no_way(offer: BaseOffer, source: str, target: str, why: str) -> CopyFailed:
    """Return the error that names both ways on which a copy could go."""
    at = f"port {offer.port} at {', '.join(offer.addresses) or 'no address'}"
    return CopyFailed(
        f"'{target}' does not reach the ssh server of '{source}' ({at}), and the copy cannot go "
        f"through this master: {why}.",
        f"Either let connections from '{target}' to '{source}' through the firewalls; or have an "
        f"ssh server on this master that '{target}' reaches, that lets keys in and forwards "
        "connections (AllowTcpForwarding), and from which "
        f"'{source}' is reached.",
    )
