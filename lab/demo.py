"""What ``make demo`` shows: one command clones a real machine and makes it a minion.

The commands are run exactly as printed; only the configuration folder is a scratch one.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from lab.common import PASSWORD, LabError, say
from lab.demonstration import Demonstration
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


class Demo(Demonstration):
    """One machine that becomes a minion, and is gone again."""

    lab: Lab | None = None

    def prepare(self, stack: ExitStack) -> None:
        with self.stage("libvirt daemon, network and pool"):
            lab = self.lab = stack.enter_context(Lab())
            _refuse_taken_names()
        say(f"   guests run under {lab.domain_type}; scratch folder {lab.folder}; {lab.subnet}")
        with self.stage(f"a shut-off Debian machine called {BASE}"):
            lab.debian_base(BASE)
        with self.stage("a Salt master and the host's minion"):
            salt = self.salt = stack.enter_context(
                SaltWorld(
                    lab.folder / "salt",
                    address=lab.gateway,
                    owner=lab.name,
                    preloads=False,
                    keysize=0,
                )
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

    def show(self) -> None:
        assert self.salt is not None
        say("== One command: clone, boot, find the address, install, accept, verify")
        self.user(
            "create, until test.version answered", "salt-run", "kvmclone.create", "centos7", CLONE
        )
        say("== It is a minion like any other")
        self.user("salt test.version", "salt", CLONE, "test.version")
        self.user(
            "salt grains.get", "salt", CLONE, "grains.get", "clones-are-awesome", expect="True"
        )
        self.user("kvmclone.list", "salt-run", "kvmclone.list")
        if self.keep:
            return
        say("== And gone again: machine, disk and key")
        self.user("kvmclone.destroy", "salt-run", "kvmclone.destroy", CLONE)
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

    def stay(self, stack: ExitStack) -> None:
        assert self.lab is not None
        self.lab.keep()
        stack.pop_all()
        self._tell_how_to_use()

    def logs(self) -> Iterable[Path]:
        return [*super().logs(), *(self.lab.folder.glob("console/*") if self.lab else ())]

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
