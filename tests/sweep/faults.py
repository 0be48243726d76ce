"""
What a fault at one point must leave: exactly what ``gc`` says, and nothing after it.

Used by ``make sweep`` at every point, and by a short sample in ``make test``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass

from lab.common import CHECKOUT, LIBVIRT_URI
from lab.lab import connection
from saltext.kvmclone import collect, pipeline
from saltext.kvmclone.errors import AlreadyExists, NotFound
from saltext.kvmclone.operations import LocalHost
from saltext.kvmclone.request import Request
from tests.functional.world import World, quick, sha256

#: ``VIR_NETWORK_XML_INACTIVE``
INACTIVE = 1

#: Of a call that a run makes over and over (looking for an address), so many points count.
OF_EACH = 6


@dataclass(frozen=True)
class Kind:
    """One kind of run: what is made or destroyed, and from which base."""

    action: str
    strategy: str
    disks: tuple[str, ...] = ("qcow2",)
    uefi: bool = False
    start: bool = False
    reserve: bool = False

    def __str__(self) -> str:
        firmware = " uefi" if self.uefi else ""
        words = f"{self.action} {self.strategy} {'+'.join(self.disks)}{firmware}"
        return words + " reserve" * self.reserve + " and boot" * self.start


KINDS = (
    Kind("create", "quick", ("qcow2", "raw"), uefi=True),
    Kind("create", "full", ("raw", "qcow2"), uefi=True),
    Kind("create", "quick", reserve=True),
    Kind("destroy", "quick", reserve=True),
    Kind("create", "quick", start=True),
    Kind("create", "full", start=True),
    Kind("destroy", "quick", ("qcow2", "raw"), uefi=True),
    Kind("destroy", "full", ("raw", "qcow2"), uefi=True),
)


class Scene:
    """One base, its clones to be, and what the host looked like before."""

    def __init__(self, world: World, kind: Kind) -> None:
        self.world = world
        self.kind = kind
        self.host = LocalHost(LIBVIRT_URI, label="kvm01")
        self.base = world.base(disks=list(kind.disks), uefi=kind.uefi)
        self.base_sums = self._base_sums()
        self.before = self._footprint()

    def _base_sums(self) -> list[str]:
        return [sha256(path) for path in self.world.disks(self.base)]

    def _footprint(self) -> object:
        with connection() as conn:
            network = conn.networkLookupByName(self.world.lab.network)
            return self.world.footprint(), network.XMLDesc(), network.XMLDesc(INACTIVE)

    def request(self, name: str) -> Request:
        source = "reserve" if self.kind.reserve else "auto"
        return quick(name, self.base, clone_strategy=self.kind.strategy, ip_source=source)

    def points(self) -> list[str]:
        """Every point that a run passes; of repeated calls the first few and the last."""
        name = self.world.name("trace")
        self._prepare(name)
        done = self._worker(name, "trace")
        assert done.returncode == 0, done.stderr
        self._end(name)
        passed = [line for line in done.stdout.splitlines() if ":" in line]
        total = Counter(point.partition(":")[0] for point in passed)
        return [
            point
            for point in passed
            if int(point.partition(":")[2]) <= OF_EACH
            or int(point.partition(":")[2]) == total[point.partition(":")[0]]
        ]

    def fault(self, fault: str, point: str, then: str) -> None:
        """
        Let a fault hit a run and hold what is left against the promise.

        :param fault: ``kill`` the worker, or the ``libvirtd`` that it works with.
        :param then: ``gc`` or ``repeat``: how the operator mends it.
        """
        name = self.world.name(f"at{len(self.world.names)}")
        self._prepare(name)
        done = self._worker(name, fault, point)
        if fault == "kill" and done.returncode != -signal.SIGKILL:
            assert done.returncode == 0, f"the worker failed by itself: {done.stderr}"
        self._hold(name, then)

    def kill_after(self, seconds: float, then: str) -> float:
        """
        The same at any moment, inside libvirt's calls too.

        :return: How long the run took, for choosing moments.
        """
        name = self.world.name(f"at{len(self.world.names)}")
        self._prepare(name)
        started = time.monotonic()
        with subprocess.Popen(
            self._words(name, "none", ""), cwd=CHECKOUT, stderr=subprocess.PIPE
        ) as worker:
            try:
                _, told = worker.communicate(timeout=seconds)
                assert worker.returncode == 0, f"the worker failed by itself: {told.decode()}"
            except subprocess.TimeoutExpired:
                os.kill(worker.pid, signal.SIGKILL)
        took = time.monotonic() - started
        self._hold(name, then)
        return took

    # --- what must hold ---------------------------------------------------------------

    def _hold(self, name: str, then: str) -> None:
        listed = collect.collect(self.host, name) if self._left_unfinished(name) else []
        assert not any(item.removed for item in listed)
        finished = self.world.exists(name) and not listed
        if not finished:
            files = [item.path for item in listed if item.path.startswith("/")]
            self._exactly(name, files)
            assert bool(listed) == self.world.exists(name)
            if self.kind.action == "create" and then == "repeat":
                outcome = pipeline.create(self.host, self.request(name), start=self.kind.start)
                assert outcome.error is None, outcome.error
                assert outcome.stage == ("addressed" if self.kind.start else "cloned")
            elif then == "repeat":
                self._end(name)
            else:
                removed = collect.collect(self.host, name, apply=True)
                assert {item.path for item in removed} == {item.path for item in listed}
                assert all(item.removed for item in removed), removed
        self._end(name)
        assert self._footprint() == self.before
        assert self._base_sums() == self.base_sums

    def _left_unfinished(self, name: str) -> bool:
        return name in [item.name for item in self.host.unfinished()]

    def _exactly(self, name: str, listed: list[str]) -> None:
        """What ``gc`` lists is what is there, no more and no less."""
        standing = [
            str(path)
            for folder in ("pool", "nvram")
            for path in (self.world.lab.folder / folder).iterdir()
            if name in path.name
        ]
        assert sorted(listed) == sorted(standing)

    def _end(self, name: str) -> None:
        try:
            self.host.destroy(name)
        except NotFound:
            pass

    # --- the worker -------------------------------------------------------------------

    def _prepare(self, name: str) -> None:
        if self.kind.action == "destroy":
            try:
                self.host.clone(self.request(name))
            except AlreadyExists as error:
                raise AssertionError(f"{name} was used before") from error

    def _worker(self, name: str, fault: str, point: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._words(name, fault, point),
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def _words(self, name: str, fault: str, point: str) -> list[str]:
        order = {
            "action": self.kind.action,
            "url": LIBVIRT_URI,
            "name": name,
            "request": dataclasses.asdict(self.request(name)),
            "start": self.kind.start,
            "fault": fault,
            "point": point,
        }
        program = "import sys; sys.path[:0] = ['_utils', '.']; "
        program += "from tests.sweep import worker; worker.main()"
        return [sys.executable, "-c", program, json.dumps(order)]
