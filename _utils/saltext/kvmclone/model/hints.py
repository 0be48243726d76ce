"""
Name the commands of hints so that they work as pasted where they are read.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from saltext.kvmclone.model.request import DEFAULT_URL

#: How our commands begin for who sits at the master, and at the KVM host.
AT_MASTER, AT_HOST = "salt-run kvmclone.", "salt-call kvm_clone."


@dataclass(frozen=True)
class Commands:
    """
    The commands that hints name, so that they work as pasted where they are read.

    :param url: libvirt URI, as seen from there.
    :param ours: :data:`AT_MASTER` or :data:`AT_HOST`.
    :param minion: Minion id of the KVM host, where it is reached through that.
    """

    url: str
    ours: str = AT_MASTER
    minion: str = ""

    def virsh(self, *words: str) -> str:
        """A command of virsh."""
        return shlex.join(["virsh", "-c", self.url, *words])

    @property
    def plain_virsh(self) -> str:
        """How virsh is called, the url left out where that is its own default."""
        words = [] if self.url == DEFAULT_URL else ["-c", self.url]
        return shlex.join(("virsh", *words))

    def clone(self, verb: str, *words: str) -> str:
        """One of our commands that master and host both have."""
        if self.ours == AT_MASTER:
            return f"{AT_MASTER}{verb} {shlex.join(words)}".rstrip()
        return f"{AT_HOST}{verb} {shlex.join(words)}".rstrip() + self._where()

    def on_host(self, verb: str, *words: str) -> str:
        """One of our commands that only the host has."""
        begin = AT_HOST
        if self.ours == AT_MASTER and self.minion:
            begin = f"salt {shlex.quote(self.minion)} kvm_clone."
        return f"{begin}{verb} {shlex.join(words)}{self._where()}"

    def redefine(self, name: str) -> str:
        """Define a machine again that runs without a definition."""
        dumped = self.virsh("dumpxml", name, "--security-info")
        return f"{dumped} | {self.virsh('define', '/dev/stdin')}"

    def listing(self) -> str:
        """List the clones; master and host call it by different names."""
        return self.clone("list" if self.ours == AT_MASTER else "list_clones")

    def forced(self, name: str) -> str:
        """Destroy a machine by force; the master's force is about the key alone."""
        return self.on_host("destroy", name, "force=True")

    def _where(self) -> str:
        return "" if self.url == DEFAULT_URL else f" {shlex.quote(f'url={self.url}')}"
