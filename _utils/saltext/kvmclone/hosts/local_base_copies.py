"""
Compare the bases of one KVM host with those of others, and copy them, over libvirt.
"""

from __future__ import annotations

from collections.abc import Sequence

from saltext.kvmclone.hosts.local_connection import ConnectedOperation, ReachableHost
from saltext.kvmclone.inventory import base_content
from saltext.kvmclone.lifecycle import fetch_base, hash_base, offer_base, remove_base
from saltext.kvmclone.model.base_content import BaseState, RemovedBase
from saltext.kvmclone.model.base_copy import BaseOffer, CopyKey
from saltext.kvmclone.model.leftovers import Leftover


class LocalBaseCopies(ReachableHost):
    """The operations that compare bases and copy them; see :class:`.interfaces.KvmHost`."""

    def base_states(self, names: Sequence[str] = ()) -> list[BaseState]:
        return self.looked(lambda host: base_content.states(host, names))

    def hash_base(self, base_domain: str) -> BaseState:
        with ConnectedOperation(self) as host:
            handle = host.domain(base_domain)
            hash_base.known_or_hashed(host, handle)
            found = base_content.state(host, handle)
            assert found is not None
            return found

    def expect_base(self, base_domain: str) -> BaseState:
        with ConnectedOperation(self) as host:
            return fetch_base.expect(host, base_domain)

    def offer_base(self, base_domain: str, copy: str) -> BaseOffer:
        with ConnectedOperation(self) as host:
            return offer_base.offer(host, host.domain(base_domain), copy)

    def prepare_copy(self, offer: BaseOffer, instead: bool = False) -> CopyKey:
        with ConnectedOperation(self) as host:
            return fetch_base.prepare(host, offer, instead)

    def reached(self, addresses: Sequence[str], port: int) -> list[str]:
        with ConnectedOperation(self) as host:
            return list(fetch_base.reached(host, addresses, port))

    def admit_copy(self, base_domain: str, copy: str, key: CopyKey) -> str:
        with ConnectedOperation(self) as host:
            return offer_base.admit(host, host.domain(base_domain), copy, key)

    def fetch_base(self, offer: BaseOffer, instead: bool = False) -> BaseState:
        with ConnectedOperation(self) as host:
            return fetch_base.fetch(host, offer, instead)

    def end_copy(self, copy: str) -> list[Leftover]:
        with ConnectedOperation(self) as host:
            return offer_base.end(host, copy)

    def dead_copies(self, name: str = "", apply: bool = False) -> list[Leftover]:
        with ConnectedOperation(self) as host:
            return offer_base.end_dead(host, name, apply)

    def remove_base(self, base_domain: str, apply: bool = False) -> RemovedBase:
        with ConnectedOperation(self) as host:
            handle = host.domain(base_domain)
            return remove_base.remove(host, handle) if apply else remove_base.examine(host, handle)
