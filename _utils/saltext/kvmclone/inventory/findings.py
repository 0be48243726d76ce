"""
What a doctor can find, and how bad it is. Pure.
"""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone.config.problems import Problems
from saltext.kvmclone.model.request import DEFAULT_URL

#: Data is at risk; something does not work or is left over; worth knowing.
DANGER, PROBLEM, NOTE = "danger", "problem", "note"

#: Every kind of finding with its level, worst first.
KINDS = {
    "base-running": DANGER,
    "committed-into-base": DANGER,
    "base-changed": DANGER,
    "base-shared": DANGER,
    "disk-missing": DANGER,
    "base-saved": DANGER,
    "pool-inactive": PROBLEM,
    "duplicate-mac": PROBLEM,
    "record-damaged": PROBLEM,
    "failed": PROBLEM,
    "unfinished": PROBLEM,
    "volume-unused": PROBLEM,
    "volume-without-clone": PROBLEM,
    "overlay-unused": PROBLEM,
    "protected-without-base": PROBLEM,
    "configuration": PROBLEM,
    "not-checked": PROBLEM,
    "base-differs": NOTE,
    "copied-record": NOTE,
    "adoptable": NOTE,
    "host-uuid-twice": NOTE,
    "daemon-twice": NOTE,
}


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


@dataclass(frozen=True)
class Finding:
    """
    One thing that is not as it should be.

    :param kind: One of :data:`KINDS`; stable, for scripts.
    :param name: The clone, base, pool or file that it is about.
    :param hint: The next command to type, and nothing else, so that it can be pasted.
    """

    kind: str
    name: str
    message: str
    hint: str

    @property
    def level(self) -> str:
        """``danger``, ``problem`` or ``note``."""
        return KINDS[self.kind]

    def as_dict(self) -> dict[str, Any]:
        """The plain form, with the level."""
        return {**dataclasses.asdict(self), "level": self.level}


def of_configuration(problems: Problems, hint: str) -> list[Finding]:
    """Return every problem of a configuration as a finding."""
    return [
        Finding("configuration", problem.section or problem.place, str(problem), hint)
        for problem in dict.fromkeys(problems.found)
    ]


def in_order(found: list[Finding]) -> list[Finding]:
    """Worst first, then by name."""
    rank = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(found, key=lambda finding: (rank[finding.kind], finding.name))


def in_words(names: list[str]) -> str:
    """``'a', 'b' and 'c'``."""
    quoted = [f"'{name}'" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
