"""A Salt master and minions in a scratch folder, on free ports, next to whatever else runs here.

with Lab() as lab, SaltWorld(lab.folder / "salt", address=lab.gateway, owner=lab.name) as salt:
    salt.add_minion("kvm01")
    salt.run("test.arg", 1)            # salt-run
    salt.salt("kvm01", "test.ping")    # salt
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from lab import programs
from lab.common import CACHE, CHECKOUT, LabError, run, wait_until, write
from lab.salt_processes import MARK, end_processes


@dataclass
class Answer:
    """What a Salt command returned and printed."""

    retcode: int
    stdout: str
    stderr: str

    @property
    def data(self) -> Any:
        """Return the answer to ``--out=json``; several documents (``salt``'s minions) are merged.

        :raises LabError: It is not JSON.
        """
        decoder, text, merged = json.JSONDecoder(), self.stdout.strip(), None
        while text:
            try:
                value, end = decoder.raw_decode(text)
            except ValueError as error:
                raise LabError(f"not JSON: {self.stdout}\n{self.stderr}") from error
            merged = {**merged, **value} if isinstance(merged, dict) else value
            text = text[end:].strip()
        return merged


@dataclass
class Daemon:
    """A salt-master or salt-minion that we started."""

    name: str
    conf: Path
    log: Path
    process: subprocess.Popen[bytes] | programs.Program | None = field(default=None)
    #: What its command line begins with: the way into namespaces that it runs in.
    inside: Sequence[str] = ()


class SaltWorld:
    """A master (started at once) and the minions that :meth:`add_minion` adds.

    :param folder: Where to keep everything.
    :param address: The address on which the master listens.
    :param owner: The mark of its processes; random by default.
    :param venv: The environment, and with it the Salt line (``CACHE / "venv-3006"``).
    :param modules: The ``module_dirs`` of master and minions; empty for tests of a synced or
        installed project.
    :param user: Who the master, and the commands on it, run as.
    :param master: Additional settings of the master.
    :param ports: Publish port and return port; by default free ones.
    :param preloads: Daemons and commands are forked from a process that has imported Salt already,
        and the library of a checkout; False where it is a promise how a program starts.
    :param keysize: Bits of the keys of new minions, as ``/etc/salt/cloud`` has them; 0 for what
        kvm_clone makes by itself. A minion tests its key at each start, and under emulation that
        takes 13 s for 4096 bits.
    """

    def __init__(
        self,
        folder: Path,
        *,
        address: str = "127.0.0.1",
        owner: str | None = None,
        venv: Path | None = None,
        modules: Sequence[Path] = (CHECKOUT,),
        user: str = "root",
        master: Mapping[str, Any] | None = None,
        ports: tuple[int, int] | None = None,
        preloads: bool = True,
        keysize: int = 2048,
    ) -> None:
        self.folder = folder
        self.address = address
        self.owner = owner or f"salt-{secrets.token_hex(4)}"
        self.venv = venv or CACHE / "venv"
        self.modules = [str(path) for path in modules]
        self.user = user
        self._preloads = preloads and user == "root"
        self.publish_port, self.ret_port = ports or _free_ports(address, 2)
        self.conf = folder / "conf"
        self.minions: dict[str, Daemon] = {}
        self.master = Daemon("master", self.conf, folder / "log/master")
        for part in ("conf", "log", "srv/salt", "srv/pillar", "pki/master/minions"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for kind in ("providers", "profiles", "deploy", "maps"):
            (self.conf / f"cloud.{kind}.d").mkdir(exist_ok=True)
        (folder / "pki").chmod(0o700)
        write(self.conf / "master", _yaml({**self._master_settings(), **(master or {})}))
        write(self.conf / "cloud", f"keysize: {keysize}\n" if keysize else "{}\n")
        if user != "root":
            run(["chown", "-R", f"{user}:", folder])
        try:
            self.start_master()
        except BaseException:
            self.close()
            raise

    def _master_settings(self) -> dict[str, Any]:
        return self._paths("master") | {
            "user": self.user,
            "interface": self.address,
            "publish_port": self.publish_port,
            "ret_port": self.ret_port,
            "worker_threads": 3,
            # How long ``salt`` waits; its default of 5 s is short for a guest under emulation.
            "timeout": 30,
            "gather_job_timeout": 30,
            "file_roots": {"base": [str(self.folder / "srv/salt")]},
            "pillar_roots": {"base": [str(self.folder / "srv/pillar")]},
        }

    # --- daemons -------------------------------------------------------------------------------

    def start_master(self) -> None:
        self._start(self.master, "salt-master")
        for port in (self.publish_port, self.ret_port):
            self._wait(self.master, partial(_listens, self.address, port), "to listen")

    def add_minion(
        self,
        name: str = "kvm01",
        config: Mapping[str, Any] | None = None,
        accepted: bool = True,
        inside: Sequence[str] = (),
    ) -> None:
        """Start a minion, and wait until it answers.

        :param config: Additional settings of the minion.
        :param accepted: The master knows its key already; otherwise it waits to be accepted.
        :param inside: Words before its command line: the way into namespaces that it runs in.
        """
        home = self.folder / "minions" / name
        daemon = Daemon(name, home, self.folder / f"log/{name}", inside=inside)
        (home / "pki").mkdir(parents=True, mode=0o700, exist_ok=True)
        settings = self._paths(name) | {
            "user": "root",
            "id": name,
            "pki_dir": str(home / "pki"),
            "master": self.address,
            "master_port": self.ret_port,
            "publish_port": self.publish_port,
            "enable_fqdns_grains": False,  # they ask the name server once per address
            "acceptance_wait_time": 1,
            "recon_default": 100,
            "recon_max": 1000,
            **(config or {}),
        }
        write(home / "minion", _yaml(settings))
        private, public = home / "pki/minion.pem", home / "pki/minion.pub"
        if not private.exists():
            run(["openssl", "genrsa", "-out", private, "2048"])  # for its owner alone
            run(["openssl", "rsa", "-in", private, "-pubout", "-out", public])
        if accepted:
            there = shutil.copy(public, self.folder / "pki/master/minions" / name)
            if self.user != "root":
                shutil.chown(there, self.user)
        self.minions[name] = daemon
        self.start_minion(name, accepted)

    def start_minion(self, name: str = "kvm01", accepted: bool = True) -> None:
        daemon = self.minions[name]
        known = daemon.log.stat().st_size if daemon.log.exists() else 0

        def ready() -> bool:
            if not daemon.log.exists():
                return False
            with daemon.log.open("rb") as log:
                log.seek(known)
                return b"Minion is ready to receive requests" in log.read()

        self._start(daemon, "salt-minion")
        if not accepted:
            pending = self.folder / "pki/master/minions_pre" / name
            self._wait(daemon, pending.exists, "to hand in its key")
            return
        self._wait(daemon, ready, "to be ready")
        self._wait(daemon, lambda: self.salt(name, "test.ping").retcode == 0, "to answer a ping")

    def stop_minion(self, name: str = "kvm01") -> None:
        self.stop(self.minions[name])

    def close(self) -> None:
        """Stop all daemons; the folder stays (it is the lab's, or the test's)."""
        end_processes(self.owner, self.folder)
        for daemon in [*self.minions.values(), self.master]:
            self.stop(daemon)

    def _start(self, daemon: Daemon, program: str) -> None:
        daemon.log.parent.mkdir(parents=True, exist_ok=True)
        words = [str(self.venv / "bin" / program), "-c", str(daemon.conf), "-l", "warning"]
        environment = self.environment(daemon.name)
        with daemon.log.with_suffix(".out").open("ab") as output:
            # Where nothing gives processes their titles, a daemon would not be found again.
            if self.forks and self.venv == CACHE / "venv" and not daemon.inside:
                daemon.process = self.forks.start(words, environment, output, output)
                return
            daemon.process = subprocess.Popen(
                [*daemon.inside, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=environment,
                start_new_session=True,
            )

    def _wait(self, daemon: Daemon, check: Any, what: str) -> None:
        def checked() -> Any:
            assert daemon.process is not None
            if daemon.process.poll() is not None:
                raise LabError(f"{daemon.name} ended ({daemon.process.returncode}): {daemon.log}")
            return check()

        wait_until(checked, f"{daemon.name} {what}", 90, hint=f"its log: {daemon.log}")

    def stop(self, daemon: Daemon) -> None:
        """End a daemon, with all its processes."""
        end_processes(f"{self.owner}:{daemon.name}", daemon.conf)
        if daemon.process is not None:
            daemon.process.wait()
            daemon.process = None
        # A daemon that was killed leaves these, and the next may think that it runs already.
        for pidfile in (self.folder / "state" / daemon.name).glob("*.pid"):
            pidfile.unlink()

    # --- commands ------------------------------------------------------------------------------

    def command(self, program: str, *words: Any) -> list[str]:
        """Return the full command line of a Salt program on this master."""
        runas = [] if self.user == "root" else ["runuser", "-u", self.user, "--"]
        return [*runas, str(self.venv / "bin" / program), "-c", str(self.conf), *map(str, words)]

    def execute(self, command: Sequence[str], timeout: float = 600) -> Answer:
        """Run a command to its end.

        :param timeout: Seconds that it may take.
        """
        if self.forks and command[0].startswith(str(self.venv / "bin/salt")):
            return Answer(*self.forks.run(command, self.environment("command"), timeout))
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env=self.environment("command"),
            timeout=timeout,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    @property
    def forks(self) -> programs.Programs | None:
        """Return what this world's programs are forked from; None where each starts by itself."""
        if not self._preloads:
            return None
        is_checkout = self.modules == [str(CHECKOUT)]
        return programs.of(self.venv, CHECKOUT / "_utils" if is_checkout else None)

    def run(self, function: str, *arguments: Any, timeout: float = 600) -> Answer:
        """Run ``salt-run FUNCTION ARGUMENTS``.

        :param timeout: Seconds that it may take.
        """
        return self.execute(
            self.command("salt-run", "--out=json", "-l", "error", function, *arguments), timeout
        )

    def salt(self, target: str, function: str, *arguments: Any, timeout: float = 60) -> Answer:
        """Run ``salt TARGET FUNCTION ARGUMENTS``.

        :param timeout: Seconds to wait for the minions.
        """
        words = ["--out=json", "-l", "error", "-t", int(timeout), target, function, *arguments]
        return self.execute(self.command("salt", *words), timeout + 60)

    def cloud(self, *words: Any, timeout: float = 600) -> Answer:
        """Run ``salt-cloud WORDS``.

        :param timeout: Seconds that it may take.
        """
        return self.execute(
            self.command("salt-cloud", "--out=json", "-l", "error", *words), timeout
        )

    def call(self, minion: str, function: str, *arguments: Any, timeout: float = 600) -> Answer:
        """Run ``salt-call FUNCTION ARGUMENTS`` on one of the minions here.

        :param timeout: Seconds that it may take.
        """
        words = [str(self.venv / "bin/salt-call"), "-c", str(self.minions[minion].conf)]
        words += ["--out=json", "-l", "error", function, *map(str, arguments)]
        return self.execute(words, timeout)

    def environment(self, part: str) -> dict[str, str]:
        """Return the environment of one part's processes.

        Without the caller's variables that would change what Salt loads, and without third-party
        warnings.
        """
        dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        kept = {key: value for key, value in os.environ.items() if key not in dropped}
        return kept | {MARK: f"{self.owner}:{part}", "PYTHONWARNINGS": "ignore"}

    # --- configuration -------------------------------------------------------------------------

    def write_cloud(self, kind: str, file: str, content: Mapping[str, Any] | str) -> Path:
        """Write a file in ``cloud.KIND.d``: ``providers``, ``profiles``, ``maps`` or ``deploy``."""
        text = content if isinstance(content, str) else _yaml(content)
        path = write(self.conf / f"cloud.{kind}.d" / file, text, 0o600)
        if self.user != "root":
            shutil.chown(path, self.user)
        return path

    def _paths(self, name: str) -> dict[str, Any]:
        place = self.folder / "state" / name
        place.mkdir(parents=True, exist_ok=True)
        return {
            # Salt prepends this to every path outside it, so all paths must be inside.
            "root_dir": str(self.folder),
            "pki_dir": str(self.folder / "pki" / name),
            "cachedir": str(place / "cache"),
            "sock_dir": str(place / "run"),
            "extension_modules": str(place / "cache/extmods"),
            "pidfile": str(place / "salt.pid"),
            "log_file": str(self.folder / "log" / name),
            "log_level_logfile": "info",
            "module_dirs": self.modules,
        }

    def __enter__(self) -> SaltWorld:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _yaml(data: Mapping[str, Any]) -> str:
    return str(yaml.safe_dump(dict(data), sort_keys=False))


def _free_ports(address: str, number: int) -> list[int]:
    with ExitStack() as stack:
        ports = []
        for _ in range(number):
            probe = stack.enter_context(socket.socket())
            probe.bind((address, 0))
            ports.append(int(probe.getsockname()[1]))
        return ports


def _listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0
