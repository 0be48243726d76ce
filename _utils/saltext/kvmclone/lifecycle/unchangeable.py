"""
Say what of a request an existing clone cannot be given any more. Pure.
"""

from __future__ import annotations

from lxml import etree

from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.domain_xml import Interface
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import INSTANT, Record
from saltext.kvmclone.model.request import InterfaceChanges, Request
from saltext.kvmclone.plan.rewrite.leave_out import left_out


def reasons(
    root: etree._Element, record: Record, request: Request, commands: Commands
) -> list[str]:
    """
    Return a sentence for everything that is asked of a clone and that only a new one can have.

    :param root: The clone's definition.
    :param commands: How the commands in the sentences are typed.
    """
    domain, refused = domain_xml.facts(root), []
    again = f"Destroy it and make it again: {commands.clone('destroy', domain.name)}"
    if request.base_domain != record.base:
        refused.append(
            f"It was made from '{record.base}' and cannot become a clone of "
            f"'{request.base_domain}'. {again}"
        )
    if request.clone_strategy != record.strategy and not _in_place_of_a_fork(record, request):
        refused.append(
            f"It was made with 'clone_strategy: {record.strategy}' and cannot become "
            f"'{request.clone_strategy}'. {again}"
        )
    reserved = [reservation.address for reservation in record.reservations]
    if request.address and request.address not in reserved:
        has_now = f"'{reserved[0]}' is reserved for it" if reserved else "None is reserved for it"
        refused.append(f"Only a new clone can get 'address: {request.address}'. {has_now}. {again}")
    disks = {disk.target: disk for disk in domain.disks}
    for target, asked in request.disks.items():
        for key in ("serial", "wwn"):
            wanted = getattr(asked, key)
            if wanted and target not in disks:
                refused.append(
                    f"'disks' names {target} and its {key}, but there is no such disk. {again}"
                )
            elif wanted and getattr(disks[target], key) != wanted:
                has = getattr(disks[target], key) or "none"
                refused.append(
                    f"'disks: {target}' asks for the {key} '{wanted}', and the disk has {has}; its "
                    f"guest may look for it by that. {again}"
                )
    for number, wish in enumerate(request.networks):
        has = domain.interfaces[number] if number < len(domain.interfaces) else None
        if has is None or not _fits(wish, has):
            refused.append(
                f"Interface {number} is not as 'networks' wants it; the interfaces of an existing "
                f"clone are left alone. {again}"
            )
    if left := left_out(root, request.leave_out):
        refused.append(f"It has {', '.join(left)}, which 'leave_out' names. {again}")
    return refused


def _in_place_of_a_fork(record: Record, request: Request) -> bool:
    """Return whether the clone is the quick one that was made where a fork was asked for."""
    wanted = request.clone_strategy == INSTANT and request.may_be_quick
    return wanted and record.strategy == "quick"


def _fits(wish: InterfaceChanges, has: Interface) -> bool:
    return (
        has.stays(wish.network, wish.bridge)
        and wish.mac in ("", has.mac)
        and wish.model in ("", has.model)
        and wish.portgroup in (None, has.portgroup)
    )
