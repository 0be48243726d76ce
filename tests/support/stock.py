"""
A master whose profile ``ci`` wants spares, over libvirt's test driver, which has no guests.

Its machines are domains in this process's memory, as long as one connection stays open.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt
import salt.config
import salt.loader

from lab import programs
from lab.common import CHECKOUT
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.master import spares_make
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.master.keys import generate
from saltext.kvmclone.model.record import Minion, Record
from tests.support import hints
from tests.support.hints import Typist

URL = "test:///default"
TTL_S = 3600

PROFILE: dict[str, Any] = {
    "provider": "here",
    "base_domain": "base",
    "clone_strategy": "quick",
    "spares": 5,
    "spare_names": "ci-{id}",
    "ttl": TTL_S,
}


@dataclass
class Master:
    """A master's configuration, and the test driver behind its only provider."""

    folder: Path
    connection: Any

    def __post_init__(self) -> None:
        self.key = generate(2048).public
        self.write()

    def write(self, **profiles: Any) -> None:
        """Write the configuration, with profiles that replace or join ``ci``."""
        known = {"ci": PROFILE, **profiles}
        written = {name: keys for name, keys in known.items() if keys is not None}
        configuration = {
            "root_dir": str(self.folder),
            "pki_dir": str(self.folder / "pki"),
            "cachedir": str(self.folder / "cache"),
            "sock_dir": str(self.folder / "run"),
            "extension_modules": str(self.folder / "none"),
            "module_dirs": [str(CHECKOUT)],
            "kvm_clone": {
                "providers": {"here": {"driver": "libvirt", "url": URL}},
                "profiles": written,
            },
        }
        (self.folder / "master").write_text(json.dumps(configuration))
        for needed in ("pki/minions", "cache/proc", "run"):
            (self.folder / needed).mkdir(parents=True, exist_ok=True)

    @property
    def opts(self) -> dict[str, Any]:
        return dict(salt.config.master_config(str(self.folder / "master")))

    def run(self, function: str, *arguments: Any, **keys: Any) -> dict[str, Any]:
        """What a function of the runner answers."""
        runners = salt.loader.runner(self.opts, context={})
        answer: dict[str, Any] = runners[f"kvmclone.{function}"](*arguments, **keys)
        return answer

    def typist(self) -> Typist:
        """A shell on this master; what it types sees the test driver without any spare."""
        conf, venv = self.folder, Path(sys.prefix)
        words = f"-c {conf} --out=json -l error"
        (conf / "bin").mkdir()
        hints._programs(conf / "bin", {"salt-run": hints.line(venv, "salt-run", words)})
        return Typist(conf, forks=programs.of(venv, CHECKOUT / "_utils"))

    def fleet(self) -> Fleet:
        return Fleet(self.opts, lambda *_: None)

    def digest(self, profile: str = "ci") -> str:
        request, secrets = spares_make.of_profile(self.fleet(), profile)
        return secrets.profile_digest_of(request)

    def add(self, name: str, running: bool = True, **record: Any) -> str:
        """Put a machine there; unless told otherwise a spare in stock. Return its uuid."""
        made = str(uuid.uuid4())
        domain = (
            f"<domain type='test'><name>{name}</name><uuid>{made}</uuid><memory>1024</memory>"
            "<os><type>hvm</type></os></domain>"
        )
        raw = self.connection.defineXML(domain)
        if running:
            raw.create()
        keys: dict[str, Any] = {
            "spare": self.digest() if "spare" not in record else "",
            "minion": Minion(name, "3008", self.fleet().keys.fingerprint(self.key), "uuid"),
            "stage": "ready",
            "created": time.time(),
        }
        with Host(URL) as host:
            host.domain(name).save_record(
                Record(
                    made, "base", "", "quick", name, "ci",
                    goal="ready", **{**keys, **record},
                )
            )  # fmt: skip
        (self.folder / "pki/minions" / name).write_text(self.key)
        return made

    def record(self, name: str) -> Record:
        with Host(URL) as host:
            found = host.domain(name).record()
        assert found is not None
        return found

    def names(self) -> set[str]:
        return {raw.name() for raw in self.connection.listAllDomains()} - {"test"}


@contextmanager
def master(folder: Path) -> Iterator[Master]:
    connection = libvirt.open(URL)
    try:
        made = Master(folder, connection)
        yield made
        for raw in connection.listAllDomains():
            if raw.name() != "test":
                if raw.isActive():
                    raw.destroy()
                raw.undefine()
    finally:
        connection.close()
