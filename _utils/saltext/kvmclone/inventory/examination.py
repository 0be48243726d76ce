"""Read everything of a host that findings are made of, before anything is compared."""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import base_changes, file_usage_scan
from saltext.kvmclone.inventory.file_usage import FileUsage
from saltext.kvmclone.model import domain_xml, libvirt_xml
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import Record
from saltext.kvmclone.model.record_xml import from_definition


@dataclass(frozen=True)
class Machine:
    """
    A domain as it was seen.

    :param saved: Whether a saved memory image waits to be restored.
    :param record: None for a foreign domain, and if the record cannot be read.
    :param damaged: Why the record cannot be read.
    """

    name: str
    uuid: str
    state: str
    saved: bool
    root: etree._Element
    domain: domain_xml.Domain
    record: Record | None
    damaged: Exception | None = None


class Examination:
    """
    A host as it was seen.

    :param commands: How the commands of the hints are typed.
    :ivar ours: The machines with a record that counts, with that; ``clones`` those that are clones,
        and not the saved memory of a base.
    """

    def __init__(self, host: Host, commands: Commands) -> None:
        def look(handle: DomainHandle) -> Machine:
            root = libvirt_xml.parse(handle.definition())
            record, damaged = None, None
            try:
                record = from_definition(root)
            except (ValueError, TypeError) as error:
                damaged = error
            return Machine(
                name=handle.name,
                uuid=handle.uuid,
                state=handle.state(),
                saved=handle.is_saved(),
                root=root,
                domain=domain_xml.facts(root, host.folders.stores),
                record=record,
                damaged=damaged,
            )

        self.host = host
        self.commands = commands
        self.machines = host.each_domain(look)
        self.usage: FileUsage = file_usage_scan.scan(host)
        self.by_uuid = {machine.uuid: machine for machine in self.machines}
        self.by_name = {machine.name: machine for machine in self.machines}
        self.ours = [(one, one.record) for one in self.machines if one.record is not None]
        self.clones = [(machine, record) for machine, record in self.ours if record.is_clone]
        self.committed = {
            machine.uuid: base_changes.committed(
                host, record, self.disks(machine), self.usage.chain
            )
            for machine, record in self.clones
        }

    def disks(self, machine: Machine) -> list[tuple[str, str]]:
        """Return target and path of each disk of a domain that is one to its guest."""
        disks = [disk for disk in machine.domain.disks if disk.device == "disk"]
        return [(d.target, self.usage.path_of(d.path, d.pool, d.volume)) for d in disks]

    def base_of(self, record: Record) -> Machine | None:
        """Return the base of a clone; None if it is gone."""
        if record.base_uuid:
            return self.by_uuid.get(record.base_uuid)
        return self.by_name.get(record.base)
