"""
Take a spare out of the stock, so that nobody else can have it, from whatever machine.

Of the processes of one machine one at a time claims a spare, or begins to destroy it. Those of
several machines, which reach one daemon by its url, do not see each other's locks. So each writes
an attempt beside the record, in a namespace of its own, which no other writes over: libvirt puts it
behind those that are there. Then it looks at the record and the attempts at once, and only the
first attempt is written into the record.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from lxml import etree

from saltext.kvmclone.errors import ForeignDomain, NoSpare, NotFound, absent
from saltext.kvmclone.hypervisor.constants import AFFECT_CONFIG, METADATA_ELEMENT, NO_DOMAIN
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.lifecycle.record_store import clone_record
from saltext.kvmclone.model import libvirt_xml, record_xml
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import STAGES, Record
from saltext.kvmclone.model.spares import Claim
from saltext.kvmclone.system import processes

#: Seconds after which the process of an attempt that is not in the record yet counts as dead.
ATTEMPT_TIMEOUT_S = 60.0

#: The namespace of an attempt, without its token.
_NAMESPACE = "urn:saltext:kvmclone:claim:1:"
_PREFIX = "kvmclone-claim"


@dataclass(frozen=True)
class _Attempt:
    """
    One attempt to claim a spare.

    :param token: A random word that only this attempt has.
    :param expires: When the machine's ``ttl`` ends, seconds since the epoch.
    :param tags: Words recorded with it besides its own.
    """

    token: str
    claim: Claim
    expires: float
    tags: tuple[str, ...]

    @property
    def namespace(self) -> str:
        return _NAMESPACE + self.token

    def to_xml(self) -> str:
        """Return it as ``setMetadata`` takes it."""
        root = etree.Element("claim", by=record_xml.written(self.claim.by), at=repr(self.claim.at))
        root.set("expires", repr(self.expires))
        for tag in self.tags:
            etree.SubElement(root, "tag").text = record_xml.written(tag)
        return etree.tostring(root, encoding="unicode")

    def taken(self, record: Record) -> Record:
        """Return the record of a spare that this attempt has claimed."""
        tags = tuple(dict.fromkeys((*record.tags, *self.tags)))
        return replace(record, claim=self.claim, expires=self.expires, tags=tags)


def claim(
    host: Host, name: str, uuid: str, who: Claim, expires: float, tags: Sequence[str]
) -> tuple[DomainHandle, Record]:
    """
    Record who has a spare from now on.

    :param uuid: The spare's.
    :param expires: When its ``ttl`` ends, seconds since the epoch.
    :param tags: Words recorded with it besides its own.
    :return: The spare and its record as it stands now.
    :raises NoSpare: It is not in stock, or somebody else was first.
    """
    mine = _Attempt(secrets.token_hex(8), who, expires, tuple(tags))
    with processes.name_lock(name):
        try:
            handle, record = clone_record(host, name)
        except NotFound as error:
            raise _no_spare(name, "it is not there any more", host.commands) from error
        except ForeignDomain as error:
            raise _no_spare(name, "it is no clone", host.commands) from error
        _require_in_stock(handle, record, uuid, host.commands)
        host.call(
            handle.raw.setMetadata, METADATA_ELEMENT, mine.to_xml(), _PREFIX, mine.namespace,
            AFFECT_CONFIG,
        )  # fmt: skip
        try:
            return handle, _decided(handle, uuid, mine, host.commands)
        finally:
            with absent(NO_DOMAIN):
                host.call(
                    handle.raw.setMetadata, METADATA_ELEMENT, None, None, mine.namespace,
                    AFFECT_CONFIG,
                )  # fmt: skip


def _decided(handle: DomainHandle, uuid: str, mine: _Attempt, commands: Commands) -> Record:
    """
    Write the first attempt into the record, and return that, if the first one is this.

    :raises NoSpare: It is another one, or the spare is no more in stock.
    """
    definition = libvirt_xml.parse(handle.definition())
    record = record_xml.from_definition(definition)
    if record is None:
        raise _no_spare(handle.name, "its record is gone", commands)
    _require_in_stock(handle, record, uuid, commands)
    first = next(iter(_attempts(definition)), mine)
    if first.token == mine.token:
        record = mine.taken(record)
        handle.save_record(record)
        return record
    if first.claim.at + ATTEMPT_TIMEOUT_S < time.time():
        # Whoever was first may know of it, or died before the answer: nobody else gets it.
        handle.save_record(first.taken(record))
    raise _no_spare(handle.name, f"{first.claim.by} has claimed it", commands)


def _attempts(definition: etree._Element) -> list[_Attempt]:
    """Return every attempt that is not withdrawn, in the order in which they were made."""
    found = []
    for element in definition.iterfind("./metadata/*"):
        namespace = str(etree.QName(element).namespace or "")
        if not namespace.startswith(_NAMESPACE):
            continue
        with suppress(ValueError):  # somebody edited it
            who = Claim(element.get("by", ""), float(element.get("at", "")))
            tags = tuple(tag.text or "" for tag in element)
            token = namespace.removeprefix(_NAMESPACE)
            found.append(_Attempt(token, who, float(element.get("expires", "")), tags))
    return found


def _require_in_stock(handle: DomainHandle, record: Record, uuid: str, commands: Commands) -> None:
    """
    Refuse what cannot be claimed.

    :raises NoSpare: It cannot; says why.
    """
    if record.uuid != uuid:
        why = "another machine is called so by now"
    elif record.claim.at:
        why = f"{record.claim.by} has claimed it"
    elif not record.spare:
        why = "it was not made as one"
    elif record.stage != STAGES[-1] or not record.complete or record.failed:
        why = f"it is at stage '{record.stage}'"
    elif record.under_way:
        why = f"it is being changed ({record.under_way})"
    elif record.name != handle.name:
        why = f"it was made as '{record.name}'"
    elif not handle.is_persistent():
        why = "it was undefined by hand"
    else:
        return
    raise _no_spare(handle.name, why, commands)


def _no_spare(name: str, why: str, commands: Commands) -> NoSpare:
    return NoSpare(
        f"'{name}' is no spare in stock: {why}.", f"Look at it: {commands.clone('show', name)}"
    )
