"""What ``make demo`` shows: one command clones a real machine and makes it a minion.

The commands are run exactly as printed; only the configuration folder is a scratch one.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from lab.common import PASSWORD, LabError, say
from lab.lab import Lab, connection
from lab.salt import SaltWorld

BASE = "base-centos7-64"
CLONE = "my-centos7-clone"
HOST = "kvm01"

PROVIDER = f"""\
local-kvm:
  driver: libvirt
  url: qemu:///system
  host: {HOST}
"""

PROFILE = """\
centos7:
  provider: local-kvm
  base_domain: {base}
  ip_source: ip-learning
  ssh_username: root
  password: {password}
  clone_strategy: quick
  deploy_command: sh /tmp/.saltcloud/deploy.sh
  script: place-and-start
  script_args: -F
  grains: {{clones-are-awesome: true}}
  minion: {{master: {master}, master_port: {port}, publish_port: {publish}}}
"""

#: Salt's bootstrap script would install Salt from the internet; the lab's base has it already.
DEPLOY_SCRIPT = """\
#!/bin/sh
# Places what lies beside this script and starts the minion that the base has installed.
set -e
here=$(dirname "$0")
mkdir -p /etc/salt/pki/minion
chmod 700 /etc/salt/pki/minion
cp "$here/minion" "$here/grains" /etc/salt/
cp "$here/minion.pub" "$here/minion.pem" /etc/salt/pki/minion/
chmod 644 /etc/salt/minion /etc/salt/grains /etc/salt/pki/minion/minion.pub
chmod 400 /etc/salt/pki/minion/minion.pem
ln -sf /etc/systemd/system/salt-minion.service /etc/systemd/system/multi-user.target.wants/
systemctl start --no-block salt-minion.service
"""


class Demo:
    """The stages of the demo, each timed; the summary is printed however it ends.

    :param keep: Leave everything running.
    """

    def __init__(self, keep: bool) -> None:
        self.keep = keep
        self.times: list[tuple[str, float]] = []
        self.lab: Lab | None = None
        self.salt: SaltWorld | None = None

    def play(self) -> int:
        """Run the demo and return the exit code."""
        stack = ExitStack()
        try:
            with _terminable():
                self._prepare(stack)
                self._show()
                if self.keep:
                    assert self.lab is not None
                    self.lab.keep()
                    stack.pop_all()
            self._summary("the demo worked")
        except KeyboardInterrupt:
            self._summary("interrupted")
            return 130
        except LabError as error:
            say(f"\n!! {error}")
            self._tell_logs()
            self._summary("the demo FAILED")
            return 1
        finally:
            with _undisturbed():
                stack.close()
        if self.keep:
            self._tell_how_to_use()
        return 0

    # --- stages --------------------------------------------------------------------------------

    def _prepare(self, stack: ExitStack) -> None:
        say("== Preparing a scratch world (nothing that is here already is touched)")
        started = os.environ.get("KVMCLONE_STARTED")
        if started:
            self.times.append(
                ("system packages and Python environment", time.time() - float(started))
            )
        with self._stage("libvirt daemon, network and pool"):
            lab = self.lab = stack.enter_context(Lab())
            _refuse_taken_names()
        say(f"   guests run under {lab.domain_type}; scratch folder {lab.folder}; {lab.subnet}")
        with self._stage(f"a shut-off Debian machine called {BASE}"):
            lab.debian_base(BASE)
        with self._stage("a Salt master and the host's minion"):
            salt = self.salt = stack.enter_context(
                SaltWorld(lab.folder / "salt", address=lab.gateway, owner=lab.name)
            )
            salt.add_minion(HOST)
        profile = PROFILE.format(
            base=BASE,
            password=PASSWORD,
            master=salt.address,
            port=salt.ret_port,
            publish=salt.publish_port,
        )
        salt.write_cloud("deploy", "place-and-start.sh", DEPLOY_SCRIPT)
        for kind, name, text in (
            ("providers", "local-kvm", PROVIDER),
            ("profiles", "centos7", profile),
        ):
            path = salt.write_cloud(kind, f"{name}.conf", text)
            say(f"\n-- {path}\n{text}")

    def _show(self) -> None:
        assert self.salt is not None
        say("== One command: clone, boot, find the address, install, accept, verify")
        self._user(
            "create, until test.version answered", "salt-run", "kvmclone.create", "centos7", CLONE
        )
        say("== It is a minion like any other")
        self._user("salt test.version", "salt", CLONE, "test.version")
        self._user(
            "salt grains.get", "salt", CLONE, "grains.get", "clones-are-awesome", expect="True"
        )
        self._user("kvmclone.list", "salt-run", "kvmclone.list")
        if self.keep:
            return
        say("== And gone again: machine, disk and key")
        self._user("kvmclone.destroy", "salt-run", "kvmclone.destroy", CLONE)
        self._nothing_left()

    def _nothing_left(self) -> None:
        assert self.lab is not None and self.salt is not None
        if CLONE in _domains():
            raise LabError(f"the domain {CLONE} is still there")
        if (self.salt.folder / "pki/master/minions" / CLONE).exists():
            raise LabError(f"the key of {CLONE} is still accepted")
        volumes = sorted(path.name for path in self.lab.pool_path.iterdir())
        if volumes != [f"{BASE}.qcow2"]:
            raise LabError(f"volumes were left in the pool: {volumes}")

    def _user(self, what: str, program: str, *words: str, expect: str = "") -> None:
        """Run a command as a person would; its output goes to the terminal as it comes.

        :param what: What the command does, for the summary.
        :param expect: Text that the answer must contain.
        :raises LabError: It failed, or the answer does not contain that.
        """
        assert self.salt is not None
        command = self.salt.command(program, *words)
        say("\n$ " + shlex.join([Path(command[0]).name, *command[1:]]))
        with self._stage(what, quiet=True):
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if expect else None,
                text=True,
                cwd="/",
                env=self.salt.environment("command"),
                check=False,
            )
            if expect:  # the answer goes to stdout; live progress is on stderr
                print(done.stdout, end="", flush=True)
            if done.returncode:
                raise LabError(f"{what}: exit code {done.returncode}")
            if expect not in (done.stdout or ""):
                raise LabError(f"{what}: the answer does not contain {expect!r}")

    # --- telling -------------------------------------------------------------------------------

    @contextmanager
    def _stage(self, what: str, quiet: bool = False) -> Iterator[None]:
        if not quiet:
            say(f"-- {what} ...")
        start = time.monotonic()
        try:
            yield
        finally:
            self.times.append((what, time.monotonic() - start))
        if not quiet:
            say(f"-- {what}: {self.times[-1][1]:.1f} s")

    def _summary(self, verdict: str) -> None:
        width = max((len(what) for what, _ in self.times), default=0)
        say(f"\n== Summary: {verdict}")
        for what, seconds in self.times:
            say(f"   {what:<{width}}  {seconds:6.1f} s")
        say(f"   {'in all':<{width}}  {sum(seconds for _, seconds in self.times):6.1f} s")

    def _tell_logs(self) -> None:
        """Print the ends of the logs, since a failure's scratch folder is removed."""
        if self.salt is None or self.lab is None:
            return
        for path in [
            *sorted((self.salt.folder / "log").iterdir()),
            *self.lab.folder.glob("console/*"),
        ]:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            worth = [line for line in lines if "INFO" not in line][-15:]
            if worth:
                say(f"\n-- the end of {path.name}:\n" + "\n".join(worth))

    def _tell_how_to_use(self) -> None:
        assert self.salt is not None and self.lab is not None
        say(
            f"""
== It stays as it is. To use it:
   export PATH={self.salt.venv}/bin:$PATH
   salt -c {self.salt.conf} '*' test.ping
   salt-run -c {self.salt.conf} kvmclone.list
   salt-run -c {self.salt.conf} kvmclone.create centos7 another-clone
   ssh root@ADDRESS         # password: {PASSWORD}
   Logs: {self.salt.folder}/log
   To end it: make demo-clean"""
        )


def _domains() -> list[str]:
    with connection() as conn:
        return [domain.name() for domain in conn.listAllDomains()]


def _refuse_taken_names() -> None:
    taken = sorted({BASE, CLONE} & set(_domains()))
    if taken:
        raise LabError(
            f"there are domains called {' and '.join(taken)} on this machine, and the demo would "
            "need the names; rename or remove them (or, after KEEP=1, run 'make demo-clean')"
        )


@contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C, so that everything is removed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore another Ctrl-C, which must not interrupt the removal."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
