"""Hosts that keep spares in memory, and fail as they are told to."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from saltext.kvmclone.errors import (
    HostError,
    HostFull,
    HostUnreachable,
    KvmCloneError,
    NoSpare,
    NotFound,
)
from saltext.kvmclone.hosts.create_state import Turn
from saltext.kvmclone.hosts.outcome import Outcome
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.leftovers import Leftover, Unfinished
from saltext.kvmclone.model.placement import HostOffer, Need, PoolRoom
from saltext.kvmclone.model.record import DEAD, Minion, Owner, Work
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.model.spares import Claim

GIB = 2**30


class FakeHost:
    """
    A KVM host.

    :param room: How many clones it has memory for.
    """

    def __init__(self, minion_id: str, room: int = 100) -> None:
        self.minion_id, self.url, self.room = minion_id, "qemu:///system", room
        self.clones: dict[str, Clone] = {}
        self.lock = threading.Lock()
        #: It does not answer at all.
        self.is_down = False
        #: Profiles of which each create fails.
        self.failing: set[str] = set()
        #: Seconds that a create takes.
        self.takes = 0.0
        #: How many times it was asked what it has.
        self.looks = 0
        #: The most spares of the stock that it ever had, finished or not.
        self.most = 0

    def answer(self) -> None:
        if self.is_down:
            raise HostUnreachable(f"The minion '{self.minion_id}' does not answer.")

    def put(self, name: str, **keys: Any) -> Clone:
        """Put a clone there, finished unless told otherwise."""
        made = Clone(
            name, str(uuid.uuid4()), self.minion_id, "base", "ci", "quick", "running", "ready",
            minion=Minion(name), created=time.time(),
        )  # fmt: skip
        self.clones[name] = replace(made, **keys)
        return self.clones[name]

    # --- what a host does

    def offer(self, _request: Request, names: Sequence[str]) -> HostOffer:
        self.answer()
        there = tuple(name for name in self.clones if name in names)
        count = len(self.clones)
        return HostOffer(
            self.room * GIB, 100, pools={"pool": PoolRoom(GIB, GIB)}, digest="1",
            need=Need(GIB, 1), promised=Need(count * GIB, 0), clones=count, there=there,
        )  # fmt: skip

    def list_clones(self, spares: bool = False) -> list[Clone]:
        self.answer()
        self.looks += 1
        return [one for one in self.clones.values() if one.spare or not spares]

    def show(self, name: str) -> Clone:
        self.answer()
        if name not in self.clones:
            raise NotFound(f"There is no '{name}'.")
        return self.clones[name]

    def claim(
        self, name: str, uuid: str, claim: Claim, expires: float, _tags: Sequence[str] = ()
    ) -> Clone:
        with self.lock:
            there = self.show(name)
            if not there.in_stock or there.stage != "ready" or there.uuid != uuid:
                raise NoSpare(f"'{name}' is no spare in stock.")
            self.clones[name] = replace(there, claim=claim, expires=expires)
            return self.clones[name]

    def destroy(self, name: str, _force: bool = False, _token: str = "") -> Clone:
        there = self.show(name)
        assert not there.in_stock or there.stage != "ready", "it could be claimed meanwhile"
        return self.clones.pop(name).removed()

    def unfinished(self, _name: str = "") -> list[Unfinished]:
        self.answer()
        return [
            Unfinished(
                one.name, Work(Owner(), DEAD, one.stage, "ready", ""), one.minion,
                (Leftover(one.name, "domain", "", "its worker is gone"),),
            )
            for one in self.clones.values()
            if one.stage != "ready"
        ]  # fmt: skip

    def make(self, request: Request) -> Clone:
        """Make a clone, in a while."""
        self.answer()
        if request.profile in self.failing:
            raise HostError("It cannot be made.")
        with self.lock:
            if len(self.clones) >= self.room:
                raise HostFull(f"'{self.minion_id}' has no room.")
            keys = {"spare": request.spare, "claim": request.claim, "profile": request.profile}
            self.put(request.name, stage="booted", expires=request.expires, **keys)
            self.most = max(self.most, sum(one.in_stock for one in self.clones.values()))
        time.sleep(self.takes)
        self.answer()
        self.clones[request.name] = replace(self.clones[request.name], stage="ready")
        return self.clones[request.name]


def create(host: FakeHost, request: Request, *_more: Any, turn: Turn) -> Outcome:
    """Stands for :func:`.provision.create`."""
    try:
        with turn(request) as told:
            clone = host.make(told)
    except KvmCloneError as error:
        return Outcome(request.name, "", None, error)
    return Outcome(request.name, clone.stage, clone)
