"""
Find UEFI variable stores of clones that another machine has, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from saltext.kvmclone.inventory.file_usage import FileId, FileUsage
from saltext.kvmclone.inventory.findings import Finding, in_words
from saltext.kvmclone.model.hints import Commands


def find(
    usage: FileUsage, stores: Mapping[str, str], clones: Iterable[str], commands: Commands
) -> Iterator[Finding]:
    """
    Yield a finding for each clone whose variable store is another machine's as well.

    :param stores: The store of each machine that has one, also where libvirt chooses it; it may
        not be there yet.
    """
    users: dict[FileId, list[str]] = {}
    for name, path in stores.items():
        if path:
            users.setdefault(usage.file_id(path), []).append(name)
    for name in clones:
        path = stores.get(name, "")
        others = sorted(set(users.get(usage.file_id(path), ())) - {name}) if path else []
        if others:
            yield Finding(
                "nvram-shared",
                name,
                f"'{name}' has its UEFI variables in '{path}', and so {_have(others)}: a machine "
                f"that was renamed keeps its file. Shut '{name}' off, copy that file to another "
                "name, and name the copy in its <nvram>.",
                commands.terminal("edit", name),
            )


def _have(names: list[str]) -> str:
    return f"{'has' if len(names) == 1 else 'have'} {in_words(names)}"
