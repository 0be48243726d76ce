"""Find the warmed bases of which no fork can be made any more."""

from __future__ import annotations

from collections.abc import Iterator

from saltext.kvmclone.inventory import warm_images
from saltext.kvmclone.inventory.examination import Examination
from saltext.kvmclone.inventory.findings import Finding


def find(seen: Examination) -> Iterator[Finding]:
    """
    Yield what was saved of a base and cannot be used, with the reason.

    Of several generations only the newest is used; one that is unfinished is a finding of its own.
    """
    if all(record.is_clone for _machine, record in seen.ours):
        return
    told: set[str] = set()
    for image in warm_images.find(seen.host):
        record = image.record
        if not record.complete or record.base_uuid in told:
            continue
        told.add(record.base_uuid)
        base = seen.host.with_uuid(record.base_uuid)
        if why := warm_images.fault(seen.host, image, base):
            verb = "warm" if base is not None else "unwarm"
            name = base.name if base is not None else record.base
            yield Finding(
                "warm-unusable",
                name,
                f"No fork of '{name}' can be made any more of its saved memory: {why}.",
                seen.commands.clone(verb, name),
            )
