"""
What a fault at one point must leave: exactly what ``gc`` says, and nothing after it.

Used by ``make sweep`` at every point, and by a short sample in ``make test``.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import pprint
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

from lab.common import CHECKOUT, LIBVIRT_URI, wait_until
from lab.lab import connection
from saltext.kvmclone.errors import AlreadyExists, NotFound
from saltext.kvmclone.hosts import gc, provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.record import INSTANT
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.model.warm_record import name_of
from tests.support.world import World, quick, sha256

#: ``VIR_NETWORK_XML_INACTIVE``
INACTIVE = 1

#: ``VIR_DOMAIN_METADATA_ELEMENT``, ``VIR_DOMAIN_AFFECT_CONFIG``
ELEMENT, CONFIG = 2, 2

#: Of a call that a run makes over and over (looking for an address), so many points count.
OF_EACH = 6

#: A worker that told its error, as against one that broke.
TOLD = 3

#: A way to end a run at a point; from ``INTERRUPTS`` it must clear up by itself.
KILLS, INTERRUPTS = ("kill", "both"), ("interrupt", "terminate")


#: How an operator mends what is left.
WAYS = ("gc", "repeat")


@dataclass(frozen=True)
class Kind:
    """
    One kind of run: what is done, and with clones of which base.

    :param action: ``create``, ``destroy``, or ``warm`` the base; ``rollback`` of a create that
        fails at its end; ``take over`` and ``gc``: a create whose first worker was killed half-way.
    """

    action: str
    strategy: str
    disks: tuple[str, ...] = ("qcow2",)
    uefi: bool = False
    start: bool = False
    reserve: bool = False
    chain: int = 0
    protect: bool = False

    def __str__(self) -> str:
        words = f"{self.action} {self.strategy} {'+'.join(self.disks)}"
        words += " on a chain" * bool(self.chain) + " uefi" * self.uefi
        words += " protect" * self.protect + " reserve" * self.reserve
        return words + " and boot" * self.start

    @property
    def makes(self) -> bool:
        """Whether what runs wants a clone in the end."""
        return self.action in ("create", "take over")

    @property
    def warms(self) -> bool:
        """Whether it saves the memory of the base, under a name that nobody chooses."""
        return self.action == "warm"

    @property
    def forks(self) -> bool:
        """Whether its clones go on from a saved memory of the base."""
        return self.strategy == INSTANT


#: The quick ones first.
KINDS = (
    Kind("create", "quick", ("qcow2", "raw"), uefi=True),
    Kind("create", "full", ("raw", "qcow2"), uefi=True),
    Kind("create", "quick", reserve=True),
    Kind("create", "full", chain=1),
    Kind("create", "quick", protect=True),
    Kind("warm", "quick", ("qcow2", "raw"), uefi=True),
    Kind("destroy", "quick", reserve=True),
    Kind("destroy", "quick", ("qcow2", "raw"), uefi=True),
    Kind("destroy", "full", ("raw", "qcow2"), uefi=True),
    Kind("rollback", "full", ("raw", "qcow2"), uefi=True),
    Kind("take over", "full", ("raw", "qcow2"), uefi=True),
    Kind("gc", "full", ("raw", "qcow2"), uefi=True),
    Kind("rollback", "quick", reserve=True, start=True),
    Kind("take over", "quick", reserve=True, start=True),
    Kind("gc", "quick", reserve=True, start=True),
    Kind("create", "quick", start=True),
    Kind("create", "full", start=True),
    Kind("create", INSTANT, ("qcow2", "raw"), uefi=True, start=True),
)


@dataclass(frozen=True)
class Traced:
    """
    What a run of a kind passes when nothing goes wrong.

    :param points: Its points; of repeated calls the first few and the last.
    :param killed_at: Where the first worker is killed, for the kinds that mend what it left.
    :param seconds: How long it took.
    """

    points: tuple[str, ...]
    killed_at: str
    seconds: float


class Scene:
    """
    One base, its clones to be, and what the host looked like before.

    :param traced: What another scene of that kind found out.
    """

    def __init__(self, world: World, kind: Kind, traced: Traced | None = None) -> None:
        self.world = world
        self.kind = kind
        self.host = LocalHost(LIBVIRT_URI, label="kvm01")
        self.base = world.base(
            disks=list(kind.disks), uefi=kind.uefi, chain=kind.chain, agent=kind.warms or kind.forks
        )
        if kind.protect:
            self._mark_and_unmark()
        if kind.warms or kind.forks:
            self._define_again()
        if kind.forks:
            assert self._worker(name_of(self.base, 1), "none", action="warm").returncode == 0
        self.base_sums = self._base_sums()
        self.before = self._footprint()
        self._traced = traced

    def _mark_and_unmark(self) -> None:
        """Where a mark was taken away, libvirt leaves an empty ``<metadata/>``: let it be there."""
        with connection() as conn:
            domain = conn.lookupByName(self.base)
            for element in ("<mark/>", None):
                domain.setMetadata(ELEMENT, element, "mark", "urn:sweep", CONFIG)

    def _define_again(self) -> None:
        """libvirt lists the controller of an agent's channel elsewhere once it restarts."""
        with connection() as conn:
            conn.defineXML(self.world.secure_xml(self.base))

    def _base_sums(self) -> list[tuple[str, int]]:
        """What the base's disks hold, and who may write them."""
        return [(sha256(path), path.stat().st_mode) for path in self.world.disks(self.base)]

    def _footprint(self) -> object:
        with connection() as conn:
            network = conn.networkLookupByName(self.world.lab.network)
            xml = (network.XMLDesc(), network.XMLDesc(INACTIVE))
        return self.world.footprint(), [_without_libvirts_own(one) for one in xml]

    def request(self, name: str) -> Request:
        source = "reserve" if self.kind.reserve else "auto"
        return quick(
            name,
            self.base,
            clone_strategy=self.kind.strategy,
            ip_source=source,
            protect=self.kind.protect,
        )

    def _name(self, word: str) -> str:
        """The name of the machine that the next run makes."""
        if self.kind.warms:
            return name_of(self.base, 1)
        return self.world.name(f"{word}{len(self.world.names)}")

    def points(self) -> list[str]:
        """Every point that a run passes."""
        return list(self.traced().points)

    def traced(self) -> Traced:
        """What a run passes, looked for once."""
        if self._traced is None:
            killed_at = ""
            if self.kind.action in ("take over", "gc"):
                first, _ = self._trace("create", "")
                # With a boot: just after it. Else half-way through the files.
                killed_at = "create:1" if self.kind.start else first[len(first) * 2 // 3]
            points, seconds = self._trace(self.kind.action, killed_at)
            self._traced = Traced(tuple(points), killed_at, seconds)
        return self._traced

    def _trace(self, action: str, killed_at: str) -> tuple[list[str], float]:
        name = self._name("trace")
        if action == self.kind.action:
            self._prepare(name, killed_at)
        started = time.monotonic()
        done = self._worker(name, "trace", action=action)
        seconds = time.monotonic() - started
        assert done.returncode == (TOLD if action == "rollback" else 0), done.stderr
        self._end(name)
        passed = [line for line in done.stdout.splitlines() if ":" in line]
        total = Counter(point.partition(":")[0] for point in passed)
        chosen = [
            point
            for point in passed
            if int(point.partition(":")[2]) <= OF_EACH
            or int(point.partition(":")[2]) == total[point.partition(":")[0]]
        ]
        return chosen, seconds

    def fault(self, fault: str, point: str, then: str) -> None:
        """
        Let a fault hit a run and hold what is left against the promise.

        :param fault: One of :data:`.worker.FAULTS`.
        :param then: ``gc`` or ``repeat``: how the operator mends it.
        """
        with self._prepared() as name:
            done = self._worker(name, fault, point)
            if fault not in KILLS or done.returncode != -signal.SIGKILL:
                self._hold_worker(done.returncode, done.stderr, fault)
            if fault in INTERRUPTS and self.kind.action in ("create", "warm"):
                assert not self._left_unfinished(name), "it did not clear up by itself"
            self._hold(name, then)

    def kill_after(self, seconds: float, then: str) -> None:
        """The worker dies at any moment, inside libvirt's calls too."""
        self._at_moment(seconds, then, lambda worker: os.kill(worker.pid, signal.SIGKILL))

    def crash_after(self, seconds: float, then: str, crash: Callable[[], None]) -> None:
        """The same for libvirtd, while the worker lives on."""
        self._at_moment(seconds, then, lambda _worker: crash())

    def _at_moment(
        self, seconds: float, then: str, fault: Callable[[subprocess.Popen[str]], None]
    ) -> None:
        with self._prepared() as name:
            words = self._words(name, "none", "", self.kind.action)
            with subprocess.Popen(words, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True) as worker:
                try:
                    _, told = worker.communicate(timeout=seconds)
                except subprocess.TimeoutExpired:
                    fault(worker)
                    _, told = worker.communicate(timeout=180)
            if worker.returncode != -signal.SIGKILL:
                self._hold_worker(worker.returncode, told, "moment")
            self._hold(name, then)

    @contextmanager
    def _prepared(self) -> Iterator[str]:
        """A clone to be; where a promise breaks over it, the next run finds nothing of it."""
        killed_at = self.traced().killed_at
        name = self._name("at")
        try:
            self._prepare(name, killed_at)
            yield name
        except BaseException:
            replace(self.world, token=name).tidy()
            raise

    # --- what must hold ---------------------------------------------------------------

    def _hold_worker(self, code: int, told: str, fault: str) -> None:
        """One that lives to tell its error tells one of ours, with a hint."""
        if fault in INTERRUPTS:
            return
        assert code in (0, TOLD), f"the worker broke: {told}"
        if code == TOLD:
            assert json.loads(told.splitlines()[-1])["hint"], told
        if fault in KILLS:
            assert code == 0 or self.kind.action == "rollback", f"it failed by itself: {told}"

    def _hold(self, name: str, then: str) -> None:
        listed = gc.collect(self.host, name) if self._left_unfinished(name) else []
        assert not any(item.removed for item in listed)
        finished = self.world.exists(name) and not listed
        if not finished:
            files = [item.path for item in listed if item.path.startswith("/")]
            self._exactly(name, files)
            assert bool(listed) == self.world.exists(name)
            if self.kind.forks and then == "repeat":
                self._hold_repeated_fork(name)
            elif self.kind.makes and then == "repeat":
                outcome = provision.create(self.host, self.request(name), start=self.kind.start)
                assert outcome.error is None, outcome.error
                assert outcome.stage == ("addressed" if self.kind.start else "cloned")
            elif self.kind.warms and then == "repeat":
                done = self._worker(name, "none")
                assert done.returncode == 0, done.stderr
                assert not self._left_unfinished(name) and self.world.exists(name)
            elif then == "repeat":
                self._end(name)
            else:
                removed = gc.collect(self.host, name, apply=True)
                assert {item.path for item in removed} == {item.path for item in listed}
                assert all(item.removed for item in removed), removed
                self._hold_nothing_left()
        self._end(name)
        self._hold_nothing_left()
        # dnsmasq's helper may speak of it for a moment longer.
        wait_until(lambda: not _running(name), f"the end of {_running(name)}", 15)

    def _hold_repeated_fork(self, name: str) -> None:
        """It is there, or gone: one whose guest may not have fresh random numbers never goes on."""
        done = self._worker(name, "none")
        if done.returncode == TOLD:
            assert json.loads(done.stderr.splitlines()[-1])["type"] == "ForkFailed", done.stderr
            assert not self.world.exists(name)
        else:
            assert done.returncode == 0, done.stderr
            assert self.host.show(name).stage == "addressed"

    def _hold_nothing_left(self) -> None:
        now = self._footprint()
        assert now == self.before, _difference(self.before, now)
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
        if self.kind.warms:
            self.host.unwarm(self.base)
            return
        with suppress(NotFound):
            self.host.destroy(name)
        if self.kind.protect:  # a clone that came to be leaves its base protected
            self.host.unprotect(self.base)

    # --- the worker -------------------------------------------------------------------

    def _prepare(self, name: str, killed_at: str) -> None:
        if self.kind.action == "destroy":
            try:
                self.host.clone(self.request(name))
            except AlreadyExists as error:
                raise AssertionError(f"{name} was used before") from error
        elif self.kind.action in ("take over", "gc"):
            done = self._worker(name, "kill", killed_at, "create")
            assert done.returncode == -signal.SIGKILL, done.stderr

    def _worker(
        self, name: str, fault: str, point: str = "", action: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._words(name, fault, point, action or self.kind.action),
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def _words(self, name: str, fault: str, point: str, action: str) -> list[str]:
        order = {
            "action": action,
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


def _without_libvirts_own(network: str) -> str:
    """A network without what libvirt itself adds while it runs: a count of cards, NAT's ports."""
    root = ElementTree.fromstring(network)
    root.attrib.pop("connections", None)
    for forward in root.iter("forward"):
        forward[:] = []
    return ElementTree.tostring(root, encoding="unicode")


def _difference(before: object, now: object) -> str:
    """Two footprints, by the lines in which they differ."""
    lines = (
        pprint.pformat(one, width=200).replace("\\n", "\n").splitlines() for one in (before, now)
    )
    return "\n".join(difflib.unified_diff(*lines, "before", "now", n=0))


def _running(name: str) -> list[str]:
    """Processes that speak of a clone: its QEMU, somebody's qemu-img."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        if name in words:
            found.append(words)
    return found
