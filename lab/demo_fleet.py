"""What ``make demo-fleet`` shows: three KVM hosts, one base, six minions, and a host that dies.

The hosts are namespaces of this machine, each with a libvirtd, a minion and an ssh server of its
own (``fleet.py``); the guests are real. The commands are run exactly as printed.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import yaml

from lab import image
from lab.common import LabError, say, wait_until
from lab.demonstration import Demonstration
from lab.ear import Ear
from lab.fleet import Fleet

BASE = "debian12"
NAMES, CLONES = "web[1-6]", [f"web{number}" for number in range(1, 7)]

#: Where the base is at first, which hosts get a copy, and which one is cut off.
FIRST, OTHERS, LOST = "kvm01", ("kvm02", "kvm03"), "kvm03"


class FleetDemo(Demonstration):
    """Three hosts and six machines, of which one is cut off while it boots."""

    fleet: Fleet | None = None

    def prepare(self, stack: ExitStack) -> None:
        image.debian()  # built at the first time only, and with a line that says so
        with self.stage("three hosts, each with libvirtd and minion, and a Salt master"):
            # One at a time on each host: emulated guests are slow, and all are on this machine.
            fleet = self.fleet = stack.enter_context(
                Fleet(3, {"kvm_clone": {"at_once_per_host": 1}}, preloads=False)
            )
            salt = self.salt = fleet.salt
        say(f"   {', '.join(fleet.hosts)} on {fleet.subnet}.0/24; scratch folder {fleet.folder}")
        with self.stage(f"a shut-off Debian machine called {BASE} on {FIRST}"):
            fleet.host(FIRST).debian_base(BASE)
        minion = {
            "master": salt.address,
            "master_port": salt.ret_port,
            "publish_port": salt.publish_port,
        }
        for kind, name, keys in (
            ("providers", "kvm", {"driver": "libvirt", "url": "qemu:///system", "hosts": "kvm*"}),
            (
                "profiles",
                "web",
                {
                    "provider": "kvm",
                    "base_domain": BASE,
                    "clone_strategy": "quick",
                    "minion": minion,
                },
            ),
        ):
            text = yaml.safe_dump({name: keys}, sort_keys=False)
            say(f"\n-- {salt.write_cloud(kind, f'{name}.conf', text)}\n{text}")

    def show(self) -> None:
        assert self.salt is not None and self.fleet is not None
        say(f"== The base is on {FIRST} alone; the other hosts fetch it from there, by rsync")
        self.user("kvmclone.push", "salt-run", "kvmclone.push", BASE, *OTHERS)
        self.user("kvmclone.bases", "salt-run", "kvmclone.bases")
        say("== Each host has something to offer; the next clone goes where least is promised")
        self.user("kvmclone.hosts", "salt-run", "kvmclone.hosts", "web")
        say(
            f"== Six machines by one command; {LOST} is cut off while its first one boots.\n"
            f"   {LOST} is asked for about a minute before it counts as gone. What waits for its\n"
            "   turn there is then made on the others; what was begun there is made nowhere else."
        )
        lost = self._create_and_cut_off()
        say(f"== What there is, while {LOST} is down: it is named, the others are listed")
        self.user("kvmclone.list, one host down", "salt-run", "kvmclone.list", code=None)
        with self.stage(f"{LOST} is switched on again"):
            self.fleet.host(LOST).switch_on()
        say(f"== {lost} is still there, where it stopped, and goes on")
        self.user("kvmclone.resume", "salt-run", "kvmclone.resume", lost)
        self.user("kvmclone.list", "salt-run", "kvmclone.list")
        self.user("salt test.version", "salt", "web*", "test.version")
        self.user("kvmclone.hosts, with six clones", "salt-run", "kvmclone.hosts")
        say("== All of it as one page, for a browser and for people who never typed a command")
        self.user("kvmclone.report", "salt-run", "kvmclone.report", str(self._page()))
        if not self._page().is_file():
            raise LabError(f"there is no page {self._page()}")
        if self.keep:
            return
        say("== And gone again, on every host: machines, disks and keys")
        self.user("kvmclone.destroy", "salt-run", "kvmclone.destroy", NAMES)
        self._nothing_left()

    def _page(self) -> Path:
        """Return where the page about the fleet is; it is removed with the rest."""
        assert self.fleet is not None
        return self.fleet.folder / "fleet.html"

    def _create_and_cut_off(self) -> str:
        """Make the clones, cut a host off in the middle, and return the name of its clone."""
        assert self.salt is not None
        over = threading.Event()
        with Ear(self.salt) as ear, ThreadPoolExecutor(1) as pool:
            cutting = pool.submit(self._cut_off, ear, over)
            try:
                what = f"kvmclone.create, {LOST} cut off"
                self.user(what, "salt-run", "kvmclone.create", "web", NAMES, code=1)
            finally:
                over.set()
            lost = cutting.result()
            ready = {name for name in CLONES if ear.heard(f"salt/kvm_clone/{name}/ready")}
        if not lost or ready != {*CLONES} - {lost}:
            raise LabError(f"on {LOST}: {lost or 'none'}; ready: {sorted(ready)}")
        say(f"== The batch is whole: {len(ready)} are ready, and of {lost} it is told what to do")
        return lost

    def _cut_off(self, ear: Ear, over: threading.Event) -> str:
        """Cut the host off once its first clone boots, and return that one's name."""
        assert self.fleet is not None

        def booting() -> str:
            heard = (ear.heard(f"salt/kvm_clone/{name}/booted") for name in CLONES)
            return next((one["name"] for some in heard for one in some if one["host"] == LOST), "")

        wait_until(lambda: over.is_set() or booting(), f"a clone on {LOST}", 600)
        if not over.is_set():
            self.fleet.host(LOST).kill()
        return booting()

    def _nothing_left(self) -> None:
        assert self.fleet is not None and self.salt is not None
        for name, host in self.fleet.hosts.items():
            domains = host.run("virsh", "list", "--all", "--name").split()
            volumes = host.run("ls", "-A", "/var/lib/libvirt/images").split()
            if domains != [BASE] or len(volumes) != 1:
                raise LabError(f"left on {name}: {domains}, {volumes}")
        keys = {path.name for path in (self.salt.folder / "pki/master/minions").iterdir()}
        if keys != set(self.fleet.hosts):
            raise LabError(f"accepted keys were left: {sorted(keys)}")

    def stay(self, stack: ExitStack) -> None:
        assert self.salt is not None
        say(
            f"""
== It stays until you press Ctrl-C. To use it, in another terminal:
   export PATH={self.salt.venv}/bin:$PATH
   salt -c {self.salt.conf} '*' test.ping
   salt-run -c {self.salt.conf} kvmclone.list
   The page: file://{self._page()}
   Logs: {self.salt.folder}/log"""
        )
        with suppress(KeyboardInterrupt):
            signal.pause()

    def logs(self) -> Iterable[Path]:
        hosts = self.fleet.shared.glob("hosts/*/host.log") if self.fleet else ()
        return [*super().logs(), *hosts]
