"""Several KVM hosts on this machine, each with its own libvirtd, minion and ssh server.

with Fleet(3) as fleet:
    fleet.host("kvm01").tiny_base("base")
    fleet.salt.run("kvmclone.hosts")

A host is a process in namespaces of its own, see ``apart.sh``; a bridge connects them with the
master, which runs where the fleet was made. All of it ends with the process that made it, however
that ends; what is left on the disk then, the next fleet removes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab import domain, image, libvirtd
from lab.common import (
    CACHE,
    CHECKOUT,
    SCRATCH_ROOT,
    LabError,
    process_start,
    read_json,
    run,
    wait_until,
    write,
    write_json,
)
from lab.salt import SaltWorld
from lab.salt_processes import end_processes

#: The names of a fleet's folder and bridge begin with these.
NAME, BRIDGE = "kvmclone-fleet-", "kcf"

_SSHD = """\
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
PidFile /run/sshd.pid
"""


class FleetHost:
    """One KVM host of a fleet.

    :param fleet: The fleet that it belongs to.
    :param name: Its minion id.
    :param number: Its number; part of its address.
    """

    def __init__(self, fleet: Fleet, name: str, number: int) -> None:
        self.fleet = fleet
        self.name = name
        self.address = f"{fleet.subnet}.{10 + number}"
        self.scratch = fleet.folder / name
        #: A folder that this host and the fleet's maker both see.
        self.home = fleet.shared / "hosts" / name
        self.pid = 0
        self._veth = f"{fleet.bridge}{number}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def inside(self) -> list[str]:
        """Return the words that bring a command into the host."""
        return ["nsenter", "-t", str(self.pid), "--mount", "--net", "--pid", "--"]

    def run(self, *command: object, input: str | None = None) -> str:
        """Run a command on the host and return what it printed; see :func:`.common.run`."""
        return run([*self.inside, *command], input=input)

    def tiny_base(self, name: str, **options: Any) -> None:
        """Define a machine that is up within seconds; see ``fleet_host.tiny_base``."""
        self._lab("base", name, *(f"{key}={value}" for key, value in options.items()))

    def debian_base(self, name: str) -> None:
        """Define a Debian machine with a guest agent and an idle Salt minion."""
        self._lab("debian", name)

    def begin(self) -> None:
        """Make the host's namespaces; call it in the thread that lives as long as the fleet."""
        self.scratch.mkdir(mode=0o755, exist_ok=True)
        self.home.mkdir(parents=True, exist_ok=True)
        ready = self.home / "ready"
        ready.unlink(missing_ok=True)
        with (self.home / "host.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid"]
                + [
                    "--fork",
                    "--kill-child",
                    str(CHECKOUT / "lab/apart.sh"),
                    "--inside",
                    str(self.scratch),
                ]
                + ["sh", "-c", 'touch "$1"; exec sleep infinity', "init", str(ready)],
                cwd=self.fleet.shared,
                env={**os.environ, "KVMCLONE_CACHE": str(CACHE), "KVMCLONE_KEEP": str(CHECKOUT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.fleet.note(self.name, self._process.pid)
        try:
            wait_until(ready.exists, f"{self.name} to begin", 10)
        except LabError as error:
            raise LabError(f"{error}: {(self.home / 'host.log').read_text()[-500:]}") from error
        outer = self._process.pid
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text(encoding="ascii")
        self.pid = int(children.split()[0])

    def finish(self) -> None:
        """Connect the host, and start its daemons but for the minion."""
        run(["ip", "link", "add", self._veth, "type", "veth", "peer", "eth0", "netns", self.pid])
        run(["ip", "link", "set", self._veth, "master", self.fleet.bridge, "up"])
        self.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self._own_folders()
        self._lab("prepare")
        self.run("mkdir", "-p", "/run/sshd")
        self.run("/usr/sbin/sshd")

    def _own_folders(self) -> None:
        """Put folders of the host's own over those that would be the machine's."""
        first = not (self.home / "etc-ssh").exists()
        for source, target in _ssh_folders(self.home).items():
            self.run("mount", "--bind", source, target)
        if first:
            settings = self.scratch / "etc/libvirtd.conf"
            with settings.open("a", encoding="utf-8") as file:
                file.write(f'\nhost_uuid = "{uuid.uuid4()}"\n')

    def _lab(self, *words: str) -> str:
        python = [*self.inside, "env", "-C", str(CHECKOUT), sys.executable]
        return run([*python, "-m", "lab.fleet_host", *words])

    def kill(self) -> None:
        """Cut the host off at once with all that runs on it, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            wait_until(lambda: process_start(self.pid) is None, f"{self.name} to be gone", 20)
            self._process = None
            with suppress(LabError):  # it goes with the namespace, a moment later
                run(["ip", "link", "delete", self._veth])

    def switch_on(self) -> None:
        """Start the host again, with the disks that it had, and its minion."""
        self.begin()
        self.finish()
        daemon = self.fleet.salt.minions[self.name]
        self.fleet.salt.stop(daemon)
        daemon.inside = self.inside
        self.fleet.salt.start_minion(self.name)


def _ssh_folders(home: Path) -> dict[Path, str]:
    """Make folders for an ssh server and its keys; return what each is to be mounted over."""
    etc, keys = home / "etc-ssh", home / "root-ssh"
    if not etc.exists():
        write(etc / "sshd_config", _SSHD)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", etc / "ssh_host_ed25519_key"])
        keys.mkdir(mode=0o700)
    return {etc: "/etc/ssh", keys: "/root/.ssh"}


class Fleet:
    """Hosts ``kvm01``, ``kvm02`` … and a master that has them as providers of the same names.

    :param number: How many hosts.
    :param master: Additional settings of the master.
    :param preloads: See :class:`.SaltWorld`.
    """

    def __init__(
        self, number: int = 3, master: dict[str, Any] | None = None, preloads: bool = True
    ) -> None:
        libvirtd.require_root()
        clean()
        token = secrets.token_hex(2)
        self.name = NAME + token
        self.folder = SCRATCH_ROOT / self.name
        self.shared = self.folder / "shared"
        self.bridge = f"{BRIDGE}{token}"
        self.subnet = f"10.232.{secrets.randbelow(250)}"
        self._state: dict[str, Any] = {
            "pid": os.getpid(),
            "start": process_start(os.getpid()),
            "bridge": self.bridge,
            "hosts": {},
        }
        boot = image.boot_files()
        # Both are kept, so that no host need find out.
        libvirtd.domain_type(boot.kernel, boot.initrd)
        domain.tsc_khz()
        self.shared.mkdir(parents=True, mode=0o755)
        self._save()
        self._salt: SaltWorld | None = None
        self._sshd: subprocess.Popen[bytes] | None = None
        numbered = range(1, number + 1)
        self.hosts = {f"kvm{i:02}": FleetHost(self, f"kvm{i:02}", i) for i in numbered}
        try:
            self._make(master or {}, preloads)
        except BaseException:
            self.close()
            raise

    @property
    def salt(self) -> SaltWorld:
        """Return the master, with a minion for each host."""
        assert self._salt is not None
        return self._salt

    def host(self, name: str) -> FleetHost:
        """Return a host by its minion id."""
        return self.hosts[name]

    def _make(self, master: dict[str, Any], preloads: bool) -> None:
        own_keys = Path("/root/.ssh")  # hosts put folders of their own over it
        if not own_keys.exists():
            own_keys.mkdir(mode=0o700)
            self._state["made"] = str(own_keys)
            self._save()
        run(["ip", "link", "add", self.bridge, "type", "bridge", "forward_delay", "0"])
        run(["ip", "address", "add", f"{self.subnet}.1/24", "dev", self.bridge])
        run(["ip", "link", "set", self.bridge, "up"])
        for host in self.hosts.values():
            host.begin()
        with ThreadPoolExecutor() as pool:
            preparing = [pool.submit(host.finish) for host in self.hosts.values()]
            self._salt = SaltWorld(
                self.shared / "salt",
                address=f"{self.subnet}.1",
                owner=self.name,
                master=master,
                preloads=preloads,
            )
            for name in self.hosts:
                provider = {"driver": "libvirt", "url": "qemu:///system", "host": name}
                self.salt.write_cloud("providers", f"{name}.conf", {name: provider})
            for done in preparing:
                done.result()
            list(pool.map(self._add_minion, self.hosts.values()))

    def _add_minion(self, host: FleetHost) -> None:
        self.salt.add_minion(host.name, inside=host.inside)

    def serve_ssh(self) -> None:
        """Start an ssh server beside the master, with its settings in folders of its own."""
        for source, target in _ssh_folders(self.shared / "master").items():
            run(["mount", "--bind", source, target])
        os.makedirs("/run/sshd", exist_ok=True)
        words = ["setpriv", "--pdeathsig", "KILL", "/usr/sbin/sshd", "-D"]
        self._sshd = subprocess.Popen(words, stdin=subprocess.DEVNULL)
        wait_until(lambda: Path("/run/sshd.pid").exists(), "an ssh server", 10)

    def _end_ssh(self) -> None:
        if self._sshd is None:
            return
        self._sshd.kill()
        self._sshd.wait()
        self._sshd = None
        for target in _ssh_folders(self.shared / "master").values():
            run(["umount", target])

    def note(self, host: str, pid: int) -> None:
        """Note the process of a host, so that a later fleet can end it."""
        self._state["hosts"][host] = [pid, process_start(pid)]
        self._save()

    def _save(self) -> None:
        write_json(self.folder / "fleet.json", self._state)

    def close(self) -> None:
        """End every process of the fleet and remove all that it made."""
        if self._salt is not None:
            self._salt.close()
        for host in self.hosts.values():
            host.kill()
        self._end_ssh()
        _remove(self.folder)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def clean() -> list[str]:
    """Remove the fleets whose maker is gone, and return their names."""
    gone = []
    for folder in sorted(SCRATCH_ROOT.glob(f"{NAME}*")):
        state = read_json(folder / "fleet.json")
        if state and process_start(int(state["pid"])) != state["start"]:
            _remove(folder)
            gone.append(folder.name)
    return gone


def _remove(folder: Path) -> None:
    state = read_json(folder / "fleet.json")
    for pid, start in state.get("hosts", {}).values():
        if process_start(pid) == start:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid, start=start: process_start(pid) != start, "a host", 20)
    end_processes(folder.name, folder / "shared/salt")
    with suppress(LabError):
        run(["ip", "link", "delete", state.get("bridge", "")])
    shutil.rmtree(folder, ignore_errors=True)
    if made := state.get("made"):
        with suppress(OSError):
            os.rmdir(made)
