"""
Find the copies of bases that are under way on a host, or were when somebody died.

Reads only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from saltext.kvmclone.errors import absent
from saltext.kvmclone.hypervisor.constants import (
    AFFECT_CONFIG,
    METADATA_ELEMENT,
    NO_DOMAIN_METADATA,
)
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.base_copy import NAMESPACE, Offered, from_xml
from saltext.kvmclone.model.leftovers import Leftover
from saltext.kvmclone.system import copy_folder, ssh_server

_REASON = "a copy of it to another host did not end properly"


def offered(host: Host, handle: DomainHandle) -> tuple[Offered, ...]:
    """Return the copies of a base that other hosts are making."""
    text = ""
    with absent(NO_DOMAIN_METADATA):
        text = host.call(handle.raw.metadata, METADATA_ELEMENT, NAMESPACE, AFFECT_CONFIG)
    return from_xml(text, handle.uuid) if text else ()


def mark(copy: str) -> str:
    """Return the word that ends the line of a copy's key."""
    return f"kvm_clone-copy-{copy}"


def all_offered(host: Host) -> list[tuple[DomainHandle, Offered]]:
    """Return every copy that some base here is the source of, with that base."""

    def look(handle: DomainHandle) -> list[tuple[DomainHandle, Offered]]:
        return [(handle, whole(one)) for one in offered(host, handle)]

    return [pair for pairs in host.each_domain(look) for pair in pairs]


def whole(copy: Offered) -> Offered:
    """Return a copy with all that was made for it, also if the base lost its metadata since."""
    noted = copy_folder.made(copy.copy)
    staged = tuple(dict.fromkeys((*copy.staged, *noted.staged)))
    return replace(copy, keys=copy.keys or noted.keys, staged=staged)


def dead(host: Host) -> list[tuple[DomainHandle | None, Offered]]:
    """Return the copies that nobody is at work on any more; None for one whose base is not here."""
    if not host.local:
        return []
    sources = all_offered(host)
    known = {one.copy for _handle, one in sources}
    lost = [copy for copy in copy_folder.all_copies() if copy not in known]
    others = [(None, whole(Offered(copy))) for copy in lost]
    return [pair for pair in (*sources, *others) if copy_folder.is_dead(pair[1].copy)]


def base_of(handle: DomainHandle | None, copy: Offered) -> str:
    """
    Return the name of the base that a copy is of.

    :param handle: The base, where this host is the source.
    """
    return handle.name if handle is not None else copy_folder.base_of(copy.copy)


def rows(handle: DomainHandle | None, copy: Offered) -> Iterator[Leftover]:
    """Yield what of a copy is still there."""
    name = base_of(handle, copy)
    if copy.keys and ssh_server.is_let_in(copy.keys, mark(copy.copy)):
        yield Leftover(name, "ssh key", copy.keys, _REASON)
    for path in copy.staged:
        if os.path.lexists(path):
            yield Leftover(name, "volume", path, _REASON)
    if os.path.isdir(copy_folder.path(copy.copy)):
        yield Leftover(name, "copy", copy_folder.path(copy.copy), _REASON)
