"""Hosts that have bases, and can copy them; nothing of it is real."""

from __future__ import annotations

import fnmatch
from typing import Any

from saltext.kvmclone.config.catalogue import build
from saltext.kvmclone.master.all_hosts import AllHosts
from saltext.kvmclone.model.base_content import BaseState, RemovedBase
from saltext.kvmclone.model.base_copy import BaseOffer, CopyKey
from saltext.kvmclone.model.host_reports import Daemon
from tests.support.catalogues import profile, provider

#: Where every source is.
ADDRESS = "10.0.0.1"

GOLD, RUST = "d" * 64, "e" * 64
KEY = CopyKey("ssh-ed25519 A", ("10.0.0.2",))


class Host:
    """A host with these bases; ``breaks`` is the operation that fails there."""

    def __init__(self, name: str, *bases: BaseState, **breaks: BaseException) -> None:
        self.name = name
        self.bases = {base.name: base for base in bases}
        self.breaks = breaks
        self.did: list[str] = []
        #: Addresses that it does not reach; the key that it let in, the offer that it took.
        self.walled: set[str] = set()
        self.key: CopyKey | None = None
        self.taken: BaseOffer | None = None

    def _do(self, what: str) -> None:
        self.did.append(what)
        if what in self.breaks:
            raise self.breaks[what]

    def daemon(self) -> Daemon:
        return Daemon("h", self.name, "QEMU", "system", "", frozenset(self.name), frozenset())

    def base_states(self, names: list[str]) -> list[BaseState]:
        self._do("base_states")
        return [base for base in self.bases.values() if base.marked or base.name in names]

    def hash_base(self, name: str) -> BaseState:
        self._do("hash_base")
        base = self.bases[name]
        self.bases[name] = BaseState(name, base.digest or GOLD, 7, marked=True)
        return self.bases[name]

    def expect_base(self, name: str) -> BaseState:
        self._do("expect_base")
        return self.hash_base(name) if name in self.bases else BaseState(name)

    def offer_base(self, name: str, copy: str) -> BaseOffer:
        self._do("offer_base")
        return BaseOffer(copy, name, self.bases[name].digest, (), addresses=(ADDRESS,))

    def prepare_copy(self, offer: BaseOffer, instead: bool = False) -> CopyKey:
        assert instead == (offer.base in self.bases)
        self._do("prepare_copy")
        return KEY

    def reached(self, addresses: list[str], _port: int) -> list[str]:
        return [address for address in addresses if address not in self.walled]

    def admit_copy(self, name: str, copy: str, key: CopyKey) -> str:
        self._do("admit_copy")
        self.key = key
        return "/keys"

    def fetch_base(self, offer: BaseOffer, instead: bool = False) -> BaseState:
        if instead:
            self.remove_base(offer.base, apply=True)
        self._do("fetch_base")
        self.taken = offer
        self.bases[offer.base] = BaseState(offer.base, offer.digest, 5, marked=True)
        return self.bases[offer.base]

    def remove_base(self, name: str, apply: bool = False) -> RemovedBase:
        self._do("remove_base" if apply else "examine_base")
        if apply:
            del self.bases[name]
        return RemovedBase((f"/pool/{name}.qcow2",), ("'/boot/vmlinuz' stays: it is shared.",))

    def end_copy(self, copy: str) -> list[Any]:
        self._do("end_copy")
        return []


def hosts_of(*hosts: Host, url: str = "", chosen: tuple[str, ...] = ()) -> AllHosts:
    """A master's hosts, with a profile whose base is ``debian12``, and one that chooses a host."""
    sections = [provider(host.name, {"driver": "libvirt", "host": host.name}) for host in hosts]
    sections += [profile("web", {"provider": hosts[0].name, "base_domain": "debian12"})]
    if chosen:
        keys = {"provider": hosts[0].name, "base_domain": "debian12", "hosts": list(chosen)}
        sections += [profile("many", keys)]
    by_name = {host.name: host for host in hosts}
    if url:
        sections += [provider("far", {"driver": "libvirt", "url": url})]
        by_name[url] = Host(url)
    catalogue = build(sections)

    def connect(minion: str, url: str) -> Any:
        return by_name[minion or url]

    def means(expression: str) -> list[str]:
        return fnmatch.filter(by_name, expression)

    return AllHosts(catalogue, connect, means)


def states(answer: dict[str, Any], base: str = "debian12") -> dict[str, str]:
    """What each host has of a base."""
    return {host: cell["state"] for host, cell in answer["bases"][base].items()}
