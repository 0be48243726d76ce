"""Hosts and a master to place clones on, without libvirt and Salt."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from saltext.kvmclone.errors import (
    AlreadyExists,
    HostFull,
    KvmCloneError,
    NotFound,
)
from saltext.kvmclone.hosts.outcome import Outcome
from saltext.kvmclone.master.placing import Placing
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.placement import HostOffer, Need, Placement, PoolRoom
from saltext.kvmclone.model.request import Request, Secrets

GIB = 2**30
NEED = Need(2 * GIB, 1, {"pool": 0}, {"pool": GIB})
ROOM = PoolRoom(GIB * 1000, GIB * 1000)
OFFER = HostOffer(16 * GIB, 8, pools={"pool": ROOM}, need=NEED, digest="1")


class Host:
    """A KVM host that keeps its promises: what it has, what it makes, how it fails."""

    def __init__(self, minion_id: str, memory: int = 16, **offer: Any) -> None:
        self.minion_id, self.url = minion_id, "qemu:///system"
        lacks = {} if offer.get("has_base", True) else {"need": Need(), "digest": ""}
        self.given = replace(OFFER, memory=memory * GIB, **{**lacks, **offer})
        self.clones: list[str] = []
        self.asked = 0
        #: Raised by each call of that operation.
        self.failures: dict[str, KvmCloneError] = {}
        self.lock = threading.Lock()
        self.requests: list[Request] = []
        self.busy = self.most_busy = 0
        self.takes = 0.0
        #: So many are made at once, or none at all.
        self.together = threading.Barrier(1, timeout=60)

    def offer(self, _request: Request, names: list[str]) -> HostOffer:
        self.asked += 1
        if "offer" in self.failures:
            raise self.failures["offer"]
        taken = self.given.promised.memory + len(self.clones) * NEED.memory
        there = tuple(name for name in self.clones if name in names)
        promised = Need(taken, len(self.clones))
        return replace(self.given, promised=promised, clones=len(self.clones), there=there)

    def bring(self, source: HostOffer) -> None:
        """A copy of the base arrives."""
        if "bring" in self.failures:
            raise self.failures["bring"]
        self.given = replace(self.given, has_base=True, need=source.need, digest=source.digest)

    def plan(self, request: Request) -> dict[str, Any]:
        return {"name": request.name, "warnings": [], "conflicts": [f"no room on {self.minion_id}"]}

    def show(self, name: str) -> Clone:
        if name not in self.clones:
            raise NotFound(name)
        return self.made(name)

    def made(self, name: str) -> Clone:
        return Clone(name, "u", self.minion_id, "base", "small", "quick", "running", "ready")

    def clone(self, request: Request, *_more: Any) -> Clone:
        with self.lock:
            self.busy += 1
            self.most_busy = max(self.busy, self.most_busy)
        self.together.wait()
        time.sleep(self.takes)
        with self.lock:
            self.busy -= 1
            self.requests.append(request)
            if "clone" in self.failures:
                raise self.failures["clone"]
            if request.name in self.clones:
                raise AlreadyExists(f"'{request.name}' exists")
            taken = self.given.promised.memory + len(self.clones) * NEED.memory
            if request.placed and taken + NEED.memory > self.given.memory:
                raise HostFull(f"'{self.minion_id}' has no room.")
            self.clones.append(request.name)
        return self.made(request.name)


class Copier:
    """Copies bases between hosts; what it did stands in ``copied``."""

    def __init__(self, world: World) -> None:
        self.world = world
        ways = {name: (name, "") for name in world.others}
        self.everywhere = SimpleNamespace(ways=ways)

    def source(self, base: str, _targets: list[str]) -> str:
        for name in self.world.others:
            return name
        raise NotFound(f"No other host has a base '{base}'.")

    def bring(self, base: str, source: str, target: str, hosts: dict[str, Any]) -> None:
        assert set(hosts) == {source, target}
        self.world.copied.append(f"{base} from {source} to {target}")
        time.sleep(0.05)
        origin = self.world.connect(source, "")
        origin.given = replace(origin.given, digest=origin.given.digest or "1")  # it is read
        hosts[target].bring(origin.given)


class World:
    """A master and its hosts; a create is one call of the host's ``clone``."""

    def __init__(self, folder: Path, *hosts: Host, **settings: Any) -> None:
        self.hosts = {host.minion_id: host for host in hosts}
        #: Hosts that no profile names.
        self.others: dict[str, Host] = {}
        self.copied: list[str] = []
        self.opts = {"cachedir": str(folder), "kvm_clone": settings}
        self.placing = self.runner()

    def runner(self) -> Placing:
        """One call of the runner."""
        copier: Any = Copier(self)
        return Placing(self.opts, self.connect, copier)

    def connect(self, minion: str, _url: str) -> Any:
        return {**self.hosts, **self.others}[minion]

    def request(self, name: str, **keys: Any) -> Request:
        wish = Placement(tuple(self.hosts), **keys)
        return Request(name, "base", "small", clone_strategy="quick", placement=wish)

    def create(self, name: str, runner: Placing | None = None, **keys: Any) -> Outcome:
        watch: Any = None
        known = runner or self.placing
        return known.create(self.request(name, **keys), Secrets(), watch, watch)[1]

    def where(self) -> dict[str, int]:
        return {name: len(host.clones) for name, host in self.hosts.items()}
