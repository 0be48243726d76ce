"""What the tests of bootstrapping share: Debian guests, and looking past the code under test."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import paramiko

from lab.common import LIBVIRT_URI, PASSWORD
from lab.lab import Lab
from saltext.kvmclone.guest.agent import AgentChannel
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.master import keys
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.enrolment import Enrolment
from saltext.kvmclone.model.record import Record
from saltext.kvmclone.model.request import Deploy, Login, Request, Secrets, Wait

PAIR = keys.generate(2048)


@dataclass
class Guest:
    """A running clone, and how it was asked for."""

    lab: Lab
    host: LocalHost
    request: Request

    @property
    def name(self) -> str:
        return self.request.name

    def record(self) -> Record:
        with Host(LIBVIRT_URI) as host:
            record = host.domain(self.name).record()
        assert record is not None
        return record

    def save(self, **fields: Any) -> None:
        """Change the clone's record by hand."""
        record = replace(self.record(), **fields)
        with Host(LIBVIRT_URI) as host:
            host.domain(self.name).save_record(record)

    def bootstrap(self, way: str, request: Request | None = None, **fields: Any) -> Clone:
        """Enrol it, or try to."""
        request = request or self.request
        request = replace(request, deploy=replace(request.deploy, bootstrap=way))
        return self.host.bootstrap(request, enrolment(self.name, bootstrap=way, **fields))

    def said(self, command: str) -> str:
        """What a command in the guest says, over its agent."""
        with Host(LIBVIRT_URI) as host:
            channel = AgentChannel(host.domain(self.name).agent)
            result = channel.run(command, timeout=30)
        assert result.status == 0, result
        return result.output.strip()

    def spawn(self, command: str) -> None:
        """Start something in the guest that outlives its agent."""
        self.said(f"systemd-run --quiet --collect sh -c '{command}'")

    def shell(self, command: str) -> str:
        """What a command in the guest says, as root over ssh, whatever host key it shows."""
        with paramiko.SSHClient() as client:
            client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
            address = self.host.show(self.name).address
            until(lambda: _listens(address))
            client.connect(
                address, username="root", password=PASSWORD, allow_agent=False, look_for_keys=False
            )
            _stdin, stdout, _stderr = client.exec_command(command, timeout=60)
            return stdout.read().decode().strip()


def enrolment(name: str, **fields: Any) -> Enrolment:
    """What goes into a guest that has its minion already; nobody listens to that."""
    return Enrolment(
        **{
            "minion_id": name,
            "minion_config": {"master": "192.0.2.1"},
            "grains": {"made-by": "kvm_clone"},
            "private_key_pem": PAIR.private,
            "public_key_pem": PAIR.public,
            "fingerprint": "aa:bb",
            "secrets": Secrets(password=PASSWORD, sudo_password=PASSWORD),
            **fields,
        }
    )


def boot(lab: Lab, host: LocalHost, base: str, name: str, **keys: Any) -> Guest:
    """A clone that has its address, and has not been bootstrapped."""
    request = Request(
        **{
            "name": name,
            "base_domain": base,
            "clone_strategy": "quick",
            "wait": Wait(timeout=240),
            "login": Login("root"),
            "deploy": Deploy(),
            **keys,
        }
    )
    host.clone(request, goal="addressed")
    host.boot(name)
    host.wait_for_address(request)
    return Guest(lab, host, request)


def until(check: Callable[[], Any], seconds: float = 180) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it never did"
        time.sleep(0.2)


def _listens(address: str) -> bool:
    try:
        socket.create_connection((address, 22), timeout=2).close()
    except OSError:
        return False
    return True


def mask(root: Path, *units: str) -> None:
    """Switch services of a mounted system off for good."""
    for unit in units:
        path = root / f"etc/systemd/system/{unit}"
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/null")


def without_salt(root: Path) -> None:
    """A system that never heard of Salt."""
    for path in ("etc/systemd/system/salt-minion.service", "usr/local/bin/salt-minion"):
        (root / path).unlink()


def fingerprints(lines: tuple[str, ...]) -> set[str]:
    """Of known_hosts lines, as ssh-keygen has them."""
    text = "\n".join(lines)
    done = subprocess.run(
        ["ssh-keygen", "-lf", "-"], input=text, text=True, capture_output=True, check=True
    )
    return {line.split()[1] for line in done.stdout.splitlines()}
