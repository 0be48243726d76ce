"""
Name the commands of hints so that they work as pasted where they are read.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlsplit

from saltext.kvmclone.model.request import DEFAULT_URL

#: The first words of our commands on the master, and on the KVM host.
AT_MASTER, AT_HOST = "salt-run kvmclone.", "salt-call kvm_clone."

#: What virsh calls the end of a state in which a machine is suspended.
GO_ON = {"paused": "resume", "pmsuspended": "dompmwakeup"}

#: libvirt's transports that log in over ssh.
_SSH = ("ssh", "libssh", "libssh2")


@dataclass(frozen=True)
class Commands:
    """
    The commands that hints name, so that they work as pasted where they are read.

    :param url: libvirt URI, as seen from there.
    :param ours: :data:`AT_MASTER` or :data:`AT_HOST`.
    :param minion: Minion id of the KVM host, where it is reached through that.
    """

    url: str = DEFAULT_URL
    ours: str = AT_MASTER
    minion: str = ""

    @property
    def far(self) -> bool:
        """Return True if they are read on the master and have to run on the KVM host's minion."""
        return self.ours == AT_MASTER and bool(self.minion)

    @property
    def near(self) -> Commands:
        """Return the same commands as they are typed on the machine that this library runs on."""
        return replace(self, minion="")

    def virsh(self, *words: str) -> str:
        """Return a ``virsh`` command, quoted for the shell."""
        return self.line(shlex.join(["virsh", "-c", self.url, *words]))

    def terminal(self, *words: str) -> str:
        """
        Return a ``virsh`` command that needs a terminal, which a Salt job does not have.

        A minion id is the host's name as a rule, so ssh leads there.
        """
        command = self.near.virsh(*words)
        return shlex.join(["ssh", "-t", self.minion, command]) if self.far else command

    def beside(self, *words: str) -> str:
        """Return a command for the machine that this library runs on, where its processes are."""
        return self.line(shlex.join(words))

    def there(self, *words: str) -> str:
        """Return a command for the machine of the daemon, where its files are."""
        return self.script(shlex.join(words))

    def script(self, text: str) -> str:
        """
        Return a line of shell for the machine of the daemon.

        :param text: The line as it would be typed there.
        """
        parts = urlsplit(self.url)
        if parts.hostname and parts.scheme.partition("+")[2] in _SSH:
            options = dict(parse_qsl(parts.query))
            words = [options.get("command", "ssh")]
            words += ["-i", options["keyfile"]] if "keyfile" in options else []
            words += ["-p", str(parts.port)] if parts.port else []
            user = f"{parts.username}@" if parts.username else ""
            text = shlex.join([*words, f"{user}{parts.hostname}", text])
        return self.line(text)

    def line(self, command: str) -> str:
        """Return a line of shell for the machine that this library runs on."""
        return shlex.join(["salt", self.minion, "cmd.run", command]) if self.far else command

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
        virsh = self.near.virsh
        dumped = virsh("dumpxml", name, "--security-info")
        return self.line(f"{dumped} | {virsh('define', '/dev/stdin')}")

    def shut_off(self, name: str, state: str) -> str:
        """
        Return the command that shuts a domain off as gently as its state allows.

        :param state: libvirt's state of it, in the words of docs/answers.md.
        """
        virsh = self.near.virsh
        if state not in ("running", *GO_ON):
            return self.virsh("destroy", name)
        first = [virsh(GO_ON[state], name)] if state in GO_ON else []
        return self.line(" && ".join([*first, virsh("shutdown", name)]))

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
