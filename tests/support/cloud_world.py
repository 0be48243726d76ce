"""A master, a provider of this machine's libvirtd, and profiles of tiny guests, for salt-cloud."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt
import yaml

from lab.lab import Lab, connection
from lab.leftovers import take_away
from lab.salt import Answer, SaltWorld

ALIAS = "local-kvm"


@dataclass
class CloudWorld:
    """
    :param base: A tiny machine, shut off; it is nobody's clone.
    """

    lab: Lab
    salt: SaltWorld
    base: str
    #: Machines of this world begin so.
    token: str

    def name(self, word: str) -> str:
        return f"{self.token}-{word}"

    def cloud(self, *words: Any) -> Answer:
        return self.salt.cloud(*words)

    def listed(self, query: str = "-Q", alias: str = ALIAS) -> dict[str, Any]:
        """What a query tells of one provider's machines, as far as they are of this world."""
        told = self.cloud(query)
        assert told.retcode == 0, told
        return self.ours((told.data or {}).get(alias, {}).get("libvirt", {}))

    def ours(self, machines: dict[str, Any]) -> dict[str, Any]:
        """Those of this world: there may be others on this machine."""
        return {name: told for name, told in machines.items() if name.startswith(self.token)}

    def provider(self, alias: str, **keys: Any) -> Path:
        entry = {"driver": "libvirt", "url": "qemu:///system", **keys}
        return self.salt.write_cloud("providers", f"{alias}.conf", {alias: entry})

    def profile(self, name: str, **keys: Any) -> str:
        common = {"provider": ALIAS, "base_domain": self.base, "clone_strategy": "quick"}
        self.salt.write_cloud("profiles", f"{name}.conf", {name: {**common, **keys}})
        return name

    def map_file(self, name: str, content: Mapping[str, Any]) -> Path:
        return self.salt.write_cloud("maps", f"{name}.map", content)

    def settings(self, **keys: Any) -> None:
        """The cloud file itself."""
        (self.salt.conf / "cloud").write_text(yaml.safe_dump({"log_level": "warning", **keys}))

    def accept(self, minion_id: str, key: str) -> Path:
        path = self.key(minion_id)
        path.write_text(key)
        return path

    def key(self, minion_id: str) -> Path:
        return self.salt.folder / "pki/master/minions" / minion_id

    def keys(self) -> set[str]:
        return {path.name for path in (self.salt.folder / "pki/master").glob("minions*/*")}

    def domains(self) -> set[str]:
        with connection() as conn:
            return {domain.name() for domain in conn.listAllDomains()}

    def state(self, name: str) -> str:
        with connection() as conn:
            state = conn.lookupByName(name).state()[0]
        words = {libvirt.VIR_DOMAIN_RUNNING: "running", libvirt.VIR_DOMAIN_PAUSED: "paused"}
        return words.get(state, "off")

    def files(self) -> set[str]:
        return {path.name for path in Path(self.lab.pool_path).iterdir()}

    def left(self) -> dict[str, set[str]]:
        """Everything that a create could leave behind."""
        return {"domains": self.domains(), "files": self.files(), "keys": self.keys()}

    def tidy(self) -> None:
        """Take away what a test left, past the code under test."""
        (self.salt.conf / "cloud").write_text("log_level: warning\n")
        for path in (self.salt.conf / "cloud.providers.d").iterdir():
            if path.stem != ALIAS:
                path.unlink()
        for path in (self.salt.conf / "cloud.profiles.d").iterdir():
            if path.stem != "tiny":
                path.unlink()
        with connection() as conn:
            for domain in conn.listAllDomains():
                if domain.name().startswith(f"{self.token}-") and domain.name() != self.base:
                    take_away(domain)
        for path in Path(self.lab.pool_path).iterdir():
            if path.name.startswith(f"{self.token}-") and not path.name.startswith(self.base):
                path.unlink()
        with connection() as conn:
            conn.storagePoolLookupByName(self.lab.pool).refresh()
        for path in (self.salt.folder / "pki/master").glob(f"minions*/{self.token}-*"):
            path.unlink()


@contextmanager
def cloud_world(
    lab: Lab, token: str, venv: Path | None = None, **options: Any
) -> Iterator[CloudWorld]:
    base = lab.tiny_base(f"{token}-base")
    with SaltWorld(
        lab.folder / f"salt-{token}", address=lab.gateway, owner=lab.name, venv=venv, **options
    ) as salt:
        world = CloudWorld(lab, salt, base, token)
        world.provider(ALIAS)
        world.profile("tiny", deploy=False, ip_source="ip-learning")
        yield world
