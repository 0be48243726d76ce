"""
Read the mark of a protected base.
"""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone.errors import absent
from saltext.kvmclone.hypervisor.constants import (
    AFFECT_CONFIG,
    METADATA_ELEMENT,
    NO_DOMAIN_METADATA,
)
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.record import BASE_NAMESPACE, Record


@dataclass(frozen=True)
class ProtectedFile:
    """
    A file that was made read-only.

    :param mode: Its permission bits before that.
    """

    path: str
    mode: int


@dataclass(frozen=True)
class Protection:
    """
    The mark on a protected base.

    :param uuid: Uuid of the base; a mark that was copied into another domain is void.
    :param since: When it was protected, seconds since the epoch.
    :param files: Its files that were made read-only.
    :param holders: Uuids of the clones whose creates put it there, as long as none of them is known
        to have succeeded; empty if it stays until somebody takes it away.
    """

    uuid: str
    since: float
    files: tuple[ProtectedFile, ...]
    holders: tuple[str, ...] = ()


def protection(host: Host, base: DomainHandle) -> Protection | None:
    """Return the mark on a base; None if it is not protected. Makes one libvirt call."""
    text = ""
    with absent(NO_DOMAIN_METADATA):
        text = host.call(base.raw.metadata, METADATA_ELEMENT, BASE_NAMESPACE, AFFECT_CONFIG)
    if not text:
        return None
    mark = _read(libvirt_xml.element(text))
    return mark if mark.uuid == base.uuid else None


def held_for(host: Host, record: Record) -> str:
    """Return the base that :func:`.protect.withdraw` would make writable again; empty for none."""
    base, mark = held(host, record)
    alone = base is not None and mark is not None and mark.holders == (record.uuid,)
    return base.name if base is not None and alone else ""


def held(host: Host, record: Record) -> tuple[DomainHandle | None, Protection | None]:
    """Return a clone's base and the mark on it, if that is there for this clone's sake."""
    base = host.with_uuid(record.base_uuid) if host.local and record.base_uuid else None
    mark = protection(host, base) if base is not None else None
    return (base, mark) if mark is not None and record.uuid in mark.holders else (None, None)


def _read(root: etree._Element) -> Protection:
    children = [(etree.QName(child).localname, child) for child in root]
    return Protection(
        uuid=root.get("uuid", ""),
        since=float(root.get("since", 0)),
        files=tuple(
            ProtectedFile(child.get("path", ""), int(child.get("mode", "0"), 8))
            for name, child in children
            if name == "file"
        ),
        holders=tuple(child.get("uuid", "") for name, child in children if name == "holder"),
    )
