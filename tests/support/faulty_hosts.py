"""A host and a master on which one step of a create goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

from saltext.kvmclone.errors import (
    CreateInProgress,
    HostUnreachable,
    KvmCloneError,
    MinionTimeout,
    NotFound,
)
from saltext.kvmclone.model.base_minion import BaseMinion, Foresight
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.guest_minion import GuestMinion
from saltext.kvmclone.model.leftovers import Leftover, Unfinished
from saltext.kvmclone.model.master_ports import PortCheck
from saltext.kvmclone.model.record import Minion, Owner, Work
from saltext.kvmclone.model.request import Request, Secrets

REQUEST = Request(name="web1", base_domain="base")


@dataclass
class FaultyHost:
    """A host on which one step goes wrong; it notes what it is asked."""

    fails: str = ""
    fault: BaseException = field(default_factory=lambda: HostUnreachable("no answer"))
    there: bool = False
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    busy: list[KvmCloneError] = field(default_factory=list)
    left_at: str = "cloned"
    announced: Minion = Minion()
    stays: list[Leftover] = field(default_factory=list)
    url: str = "test:///default"

    def _step(self, step: str, stage: str) -> Clone:
        self.asked.append(step)
        if step == self.fails:
            raise self.fault
        return self._clone(stage)

    @staticmethod
    def _clone(stage: str) -> Clone:
        state = "shutoff" if stage == "cloned" else "running"
        return Clone("web1", "uuid-1", "kvm01", "base", "", "quick", state, stage)

    def plan(self, request: Request) -> dict[str, Any]:
        return {}

    def clone(
        self,
        request: Request,
        worker: Owner | None = None,
        goal: str = "cloned",
        digest: str = "",
        seed: Mapping[str, str] = MappingProxyType({}),
    ) -> Clone:
        assert worker is not None
        self.tokens.append(worker.token)
        if self.busy:
            raise self.busy.pop(0)
        made = self._step("clone", "cloned")
        self.there = True
        return made

    def take_over(self, name: str, token: str, worker: Owner) -> Clone:
        self.there = True
        self._step("take_over", self.left_at)
        left = Minion("web1", fingerprint="finger of the dead")
        return replace(self._clone(self.left_at), minion=left)

    def boot(self, name: str) -> Clone:
        return self._step("boot", "booted")

    def wait_for_address(self, request: Request, minion: Minion = Minion()) -> Clone:
        self.announced = minion
        return self._step("wait_for_address", "addressed")

    def bootstrap(self, request: Request, enrolment: Any) -> Clone:
        return self._step("bootstrap", "enrolled")

    def base_minion(self, request: Request) -> BaseMinion:
        self._step("base_minion", "")
        return BaseMinion(installed=True)

    def check_master(self, request: Request, secrets: Secrets, publish_port: int) -> GuestMinion:
        self.asked.append("check_master")
        assert secrets.seed == ()
        check = PortCheck("192.0.2.1", "publish_port", publish_port, "ECONNREFUSED")
        return GuestMinion(ports=(check,))

    def complete(self, name: str, minion: Minion, timings: dict[str, float]) -> Clone:
        return self._step("complete", "ready")

    def destroy(self, name: str, force: bool = False, token: str = "") -> Clone:
        self.tokens.append(token)
        destroyed = self._step("destroy", "destroying")
        if not self.there:
            raise NotFound("no such domain")
        self.there = False
        return destroyed

    def clear(self, name: str, token: str, force: bool = False) -> list[Leftover]:
        self.destroy(name, force, token)
        return self.stays

    def unfinished(self, name: str = "") -> list[Unfinished]:
        return []

    def keep(self, name: str, token: str, why: str, off: bool) -> Clone:
        self.tokens.append(token)
        return self._step("keep and switch off" if off else "keep", "cloned" if off else "booted")

    def show(self, name: str) -> Clone:
        if not self.there:
            raise NotFound("no such domain")
        return self._step("show", "ready")


@dataclass
class FaultyMaster:
    """A master on which one step goes wrong, with the keys that it has accepted."""

    fails: str = ""
    fault: KvmCloneError = field(default_factory=lambda: MinionTimeout("no answer"))
    accepted: dict[str, str] = field(default_factory=dict)
    settled: list[str] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)
    is_its_master: bool = True
    told: GuestMinion = GuestMinion()
    foreseen: Foresight | None = None

    @dataclass(frozen=True)
    class Pair:
        private: str = "private"
        public: str = "public"

    def _step(self, step: str) -> None:
        if step == self.fails:
            raise self.fault

    def require_free(self, minion_id: str) -> None:
        self._step("require_free")

    def prepare(self, request: Request, secrets: Secrets) -> None:
        self._step("prepare")

    def foresee(self, request: Request, look: Callable[[], BaseMinion]) -> Foresight:
        if self.foreseen is None:
            return Foresight()
        assert look() == BaseMinion(installed=True)
        return self.foreseen

    def generate(self, bits: int) -> Pair:
        return self.Pair()

    def fingerprint(self, public: str) -> str:
        return f"finger of {public}"

    def accept(self, minion_id: str, public: str, name: str, host: str) -> None:
        self.accepted[minion_id] = self.fingerprint(public)
        self._step("accept")

    def remove(self, minion_id: str, fingerprint: str) -> bool:
        if self.accepted.get(minion_id) != fingerprint:
            return False
        del self.accepted[minion_id]
        return True

    def settle(self, minion_id: str) -> None:
        self.settled.append(minion_id)

    def becomes_ready(self, minion_id: str, uuid: str) -> None:
        self.ready.append(uuid)

    def enrolment(self, request: Request, secrets: Secrets, pair: Any) -> Any:
        self._step("enrolment")
        return object()

    def verify(
        self, minion_id: str, uuid: str, ask: Callable[[int], GuestMinion], word: str | None = None
    ) -> Minion:
        if self.fails == "verify":
            self.told = ask(4505)
        self._step("verify")
        return Minion(minion_id, "3008.0", "", "uuid")

    def start_action(self, minion_id: str, function: str) -> str:
        return f"{function} failed" if self.fails == "start_action" else ""


def busy(life: str, stage: str, request: Request = REQUEST, goal: str = "ready") -> KvmCloneError:
    """What a host says of another worker's clone."""
    work = Work(Owner(host="kvm99", token="theirs"), life, stage, goal, request.digest())
    return CreateInProgress("somebody is at work", work=asdict(work))
