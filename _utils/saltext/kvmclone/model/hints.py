"""
Name the commands of hints so that they work as pasted where they are read.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from saltext.kvmclone.model.request import DEFAULT_URL

#: The first words of our commands on the master, and on the KVM host.
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
        """Return a ``virsh`` command, quoted for the shell."""
        return shlex.join(["virsh", "-c", self.url, *words])

    @property
    def plain_virsh(self) -> str:
        """Return how virsh is called, without the url where that is its own default."""
        words = [] if self.url == DEFAULT_URL else ["-c", self.url]
        return shlex.join(("virsh", *words))

    def clone(self, verb: str, *words: str) -> str:
        """Return one of our commands that both the master and the KVM host have."""
        if self.ours == AT_MASTER:
            return f"{AT_MASTER}{verb} {shlex.join(words)}".rstrip()
        return f"{AT_HOST}{verb} {shlex.join(words)}".rstrip() + self._where()

    def on_host(self, verb: str, *words: str) -> str:
        """Return one of our commands that only the KVM host has."""
        begin = AT_HOST
        if self.ours == AT_MASTER and self.minion:
            begin = f"salt {shlex.quote(self.minion)} kvm_clone."
        return f"{begin}{verb} {shlex.join(words)}{self._where()}"

    def resume(self, name: str, profile: str) -> str:
        """
        Return the command that resumes a create.

        :param profile: Its profile; of one without, only the host knows what it was to become.
        """
        return self.clone("resume", name) if profile else self.on_host("resume", name)

    def redefine(self, name: str) -> str:
        """Return the command that defines a domain again which runs without a definition."""
        dumped = self.virsh("dumpxml", name, "--security-info")
        return f"{dumped} | {self.virsh('define', '/dev/stdin')}"

    def sync(self) -> str:
        """Return the command that brings our modules to the KVM host, or to where we are."""
        if self.ours != AT_MASTER:
            return "salt-call saltutil.sync_all"
        begin = f"salt {shlex.quote(self.minion)}" if self.minion else "salt-run"
        return f"{begin} saltutil.sync_all"

    def listing(self) -> str:
        """Return the command that lists the clones; master and host call it by different names."""
        return self.clone("list" if self.ours == AT_MASTER else "list_clones")

    def forced(self, name: str) -> str:
        """
        Return the command that destroys a domain by force.

        It runs on the host, since the master's ``force`` is about the minion key alone.
        """
        return self.on_host("destroy", name, "force=True")

    def where(self) -> str:
        """Return what :meth:`clone` adds for another daemon than the default; "" on the master."""
        return "" if self.ours == AT_MASTER else self._where()

    def _where(self) -> str:
        return "" if self.url == DEFAULT_URL else f" {shlex.quote(f'url={self.url}')}"
