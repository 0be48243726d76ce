"""
Read what a base was made from, where it is one that we made.
"""

from __future__ import annotations

from saltext.kvmclone.errors import absent
from saltext.kvmclone.hypervisor.constants import (
    AFFECT_CONFIG,
    METADATA_ELEMENT,
    NO_DOMAIN_METADATA,
)
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.model.base_record import NAMESPACE, BaseRecord, from_xml


def base_record(handle: DomainHandle) -> BaseRecord | None:
    """Return the record of a base that we made; None for any other domain. Makes one call."""
    text = ""
    with absent(NO_DOMAIN_METADATA):
        metadata = handle.raw.metadata
        text = handle.connection.call(metadata, METADATA_ELEMENT, NAMESPACE, AFFECT_CONFIG)
    return from_xml(text, handle.uuid) if text else None
