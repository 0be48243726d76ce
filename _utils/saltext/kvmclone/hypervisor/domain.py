"""
Handle one domain of a libvirt daemon: its definition, our record in it, power, guest agent.

Every call goes through :meth:`.connection.Connection.call`; libvirt's flags are the numbers of
:mod:`.constants`, so that this file does not import libvirt.
"""

from __future__ import annotations

import json
import time
from typing import Any

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    ChannelError,
    DamagedRecord,
    HostError,
    NotFound,
    PlanRefused,
    absent,
)
from saltext.kvmclone.guest.agent import AgentError
from saltext.kvmclone.hypervisor.connection import Connection
from saltext.kvmclone.hypervisor.constants import (
    AFFECT_CONFIG,
    AFFECT_LIVE,
    AGENT_UNRESPONSIVE,
    INVALID_ARG,
    METADATA_ELEMENT,
    NO_DOMAIN,
    NO_DOMAIN_METADATA,
    NO_DOMAIN_SNAPSHOT,
    NO_SUPPORT,
    OPERATION_INVALID,
    STATES,
    UNDEFINE_KEEP_NVRAM,
    UNDEFINE_KEEP_TPM,
    UNDEFINE_NVRAM,
    UNDEFINE_TPM,
    UNDEFINE_WITH_EVERYTHING,
    XML_INACTIVE,
    XML_SECURE,
)
from saltext.kvmclone.model import domain_xml, redaction
from saltext.kvmclone.model.facts import AgentInterface
from saltext.kvmclone.model.record import Record
from saltext.kvmclone.model.record_xml import NAMESPACE, PREFIX, LaterRecord, from_xml, to_xml

#: Seconds that a guest agent gets to list its network interfaces.
AGENT_TIMEOUT_S = 5.0


class DomainHandle:
    """
    One domain of a libvirt daemon.

    :param connection: The connection that it was looked up over.
    :param raw: libvirt's own object, void after a reconnect.
    """

    def __init__(self, connection: Connection, raw: Any) -> None:
        self.connection = connection
        self.raw = raw

    @property
    def name(self) -> str:
        """Return the domain's present name; costs no call."""
        return str(self.raw.name())

    @property
    def uuid(self) -> str:
        """Return the domain's uuid as libvirt writes it, with hyphens; costs no call."""
        return str(self.raw.UUIDString())

    @property
    def was_off(self) -> bool:
        """Return whether the domain was off at the moment it was looked up; costs no call."""
        return bool(self.raw.ID() < 0)

    def look_up_again(self) -> None:
        """
        Look the domain up again, after the connection was opened anew.

        :raises NotFound: The domain is gone.
        """
        try:
            lookup = self.connection.raw.lookupByUUIDString
            self.raw = self.connection.call(lookup, self.uuid)
        except HostError as error:
            if error.code != NO_DOMAIN:
                raise
            raise NotFound(
                f"'{self.name}' was removed while kvm_clone was working on it.",
                f"List them: {self.connection.commands.virsh('list', '--all')}",
            ) from error

    def definition(self) -> str:
        """Return the XML that the next start will use, console passwords included."""
        flags = XML_INACTIVE | XML_SECURE
        return str(self.connection.call(self.raw.XMLDesc, flags))

    def live(self) -> str:
        """Return the XML of the running domain, which also says if the agent is connected."""
        return str(self.connection.call(self.raw.XMLDesc, 0))

    def state(self) -> str:
        """Return libvirt's state in the words of docs/answers.md."""
        return STATES.get(self.connection.call(self.raw.state)[0], "running")

    def is_saved(self) -> bool:
        """Return whether a managed save image waits to be restored at the next start."""
        try:
            return bool(self.connection.call(self.raw.hasManagedSaveImage, 0))
        except HostError as error:
            if error.code == NO_SUPPORT:
                return False
            raise

    def record(self) -> Record | None:
        """
        Return our record, None for a domain that has none.

        :raises DamagedRecord: There is a record, but it cannot be read.
        """
        try:
            return self._record(AFFECT_CONFIG)
        except HostError as error:
            if error.code != OPERATION_INVALID:
                raise
            # Transient: it was undefined while it runs. The live XML still has the record.
            return self._record(AFFECT_LIVE)

    def _record(self, flags: int) -> Record | None:
        with absent(NO_DOMAIN_METADATA):
            xml = self.connection.call(self.raw.metadata, METADATA_ELEMENT, NAMESPACE, flags)
            try:
                return from_xml(xml, self.uuid)
            except LaterRecord as error:
                raise DamagedRecord(
                    f"The record of '{self.name}' cannot be read: {error}; the domain was left "
                    "alone.",
                    f"Install that version here: {self.connection.commands.sync()}",
                ) from error
            except (ValueError, TypeError) as error:
                raise DamagedRecord(
                    f"The record of '{self.name}' cannot be read ({error}); the domain was left "
                    "alone.",
                    "Look at it: "
                    + self.connection.commands.virsh("metadata", self.name, NAMESPACE)
                    + "   If it cannot be fixed, remove it; the machine is then no longer "
                    "ours, and its files stay: "
                    + self.connection.commands.virsh(
                        "metadata", self.name, NAMESPACE, "--remove", "--config"
                    ),
                ) from error
        return None

    def is_persistent(self) -> bool:
        """Return whether the domain has a definition, which outlives its run."""
        return bool(self.connection.call(self.raw.isPersistent))

    def save_record(self, record: Record) -> None:
        """Write the record into the definition, and into the running domain too."""
        if self.state() != "shutoff":
            with absent(OPERATION_INVALID):  # it stopped since then, as at the end of a save
                self._set_metadata(record, AFFECT_CONFIG | AFFECT_LIVE)
                return
        self._set_metadata(record, AFFECT_CONFIG)

    def save_record_offline(self, record: Record) -> None:
        """Write the record of a domain that is known to be off: one call instead of two."""
        self._set_metadata(record, AFFECT_CONFIG)

    def _set_metadata(self, record: Record, flags: int) -> None:
        self.connection.call(
            self.raw.setMetadata,
            METADATA_ELEMENT,
            to_xml(record),
            PREFIX,
            NAMESPACE,
            flags,
        )

    def start(self, definition: str = "") -> None:
        """
        Boot the domain.

        :param definition: Another definition of this very domain, for this one run; what is defined
            stays as it is, and is what the next start uses.
        :raises HostError: libvirt or QEMU refused; the message names no secret of the definition.
        """
        connection = self.connection
        try:
            if definition:
                connection.call(connection.raw.createXML, definition, 0)
            else:
                connection.call(self.raw.create)
        except HostError as told:
            error = told.with_message(self._without_secrets(told.message))
            if not error.no_room:
                error.hint = (
                    "Is a disk missing, or in use elsewhere? See: "
                    f"{self.connection.commands.clone('doctor')}   What QEMU said: "
                    f"/var/log/libvirt/qemu/{self.name}.log"
                )
            raise error from None

    def _without_secrets(self, message: str) -> str:
        """Return QEMU's error message without the secrets of the definition, which QEMU quotes."""
        try:
            return redaction.without(message, redaction.hidden_values(self.definition()))
        except (HostError, PlanRefused):  # the domain was removed since
            return f"libvirt does not start '{self.name}'."

    def attach_live(self, device: str) -> None:
        """Plug a device into the running domain; its definition stays as it is."""
        self.connection.call(self.raw.attachDeviceFlags, device, AFFECT_LIVE)

    def update_live(self, device: str) -> None:
        """Change a device of the running domain to what this XML of it says."""
        self.connection.call(self.raw.updateDeviceFlags, device, AFFECT_LIVE)

    def resume(self) -> None:
        """Resume a paused domain."""
        self.connection.call(self.raw.resume)

    def wake_up(self) -> None:
        """Wake up a guest that suspended itself to RAM."""
        self.connection.call(self.raw.pMWakeup)

    def shut_down(self) -> None:
        """Ask the guest to shut down; do nothing if it is off already."""
        with absent(OPERATION_INVALID):
            self.connection.call(self.raw.shutdown)

    def stop(self, patience: float) -> None:
        """
        Ask the guest to shut down, repeatedly in case it was still booting; switch it off at last.

        :param patience: Seconds until it is switched off.
        """
        deadline, ask_at = time.monotonic() + patience, 0.0
        while (now := time.monotonic()) < deadline:
            state = self.state()
            if state == "shutoff":
                return
            if state == "crashed":  # such a guest cannot shut down
                break
            if now >= ask_at:
                self.shut_down()
                ask_at = now + 8
            interrupts.pause(0.2)
        self.power_off()

    def reboot(self) -> None:
        """Ask the guest to reboot."""
        self.connection.call(self.raw.reboot, 0)

    def power_off(self) -> None:
        """Stop the domain at once; do nothing if it is off already."""
        with absent(OPERATION_INVALID):
            self.connection.call(self.raw.destroy)

    def save_memory(self, path: str) -> None:
        """Save the running domain's memory into a file of the host; it is off afterwards."""
        self.connection.call(self.raw.saveFlags, path, None, 0)

    def set_autostart(self, on: bool) -> None:
        """Set whether libvirt starts the domain with the host."""
        self.connection.call(self.raw.setAutostart, 1 if on else 0)

    def undefine(self, with_nvram: bool, keep_tpm: bool = False) -> None:
        """
        Remove the definition with everything that libvirt keeps for it.

        :param with_nvram: Delete the variable store too.
        :param keep_tpm: Leave the state of its TPM where it is.
        """
        flags = UNDEFINE_WITH_EVERYTHING | (UNDEFINE_NVRAM if with_nvram else UNDEFINE_KEEP_NVRAM)
        for known in (flags | (UNDEFINE_KEEP_TPM if keep_tpm else UNDEFINE_TPM), flags):
            try:
                self.connection.call(self.raw.undefineFlags, known)
                return
            except HostError as error:
                if error.code not in (NO_SUPPORT, INVALID_ARG):  # a flag this driver does not know
                    raise
        self.connection.call(self.raw.undefine)

    def undefine_only(self, keep_tpm: bool, keep_nvram: bool) -> None:
        """
        Remove the definition and nothing that libvirt keeps beside it.

        :param keep_tpm: Tell libvirt to keep the TPM state; unknown to a libvirt before 8.9.
        :param keep_nvram: Tell libvirt to keep the variable store; unknown to a libvirt before 2.3.
        :raises HostError: libvirt refused, for instance because of a managed save image.
        """
        flags = UNDEFINE_KEEP_TPM * keep_tpm | UNDEFINE_KEEP_NVRAM * keep_nvram
        self.connection.call(self.raw.undefineFlags, flags)

    def snapshots(self) -> list[str]:
        """Return the names of the domain's snapshots, sorted."""
        with absent(NO_SUPPORT):
            return sorted(self.connection.call(self.raw.snapshotListNames, 0))
        return []

    def snapshot_definitions(self) -> list[str]:
        """Return the XML of each snapshot, with the domain's definition at that time in it."""
        found: list[Any] = []
        with absent(NO_SUPPORT):
            found = self.connection.call(self.raw.listAllSnapshots, 0)
        texts = []
        for snapshot in found:
            with absent(NO_DOMAIN_SNAPSHOT):  # deleted since it was listed
                texts.append(str(self.connection.call(snapshot.getXMLDesc, 0)))
        return texts

    def checkpoints(self) -> list[str]:
        """Return the names of the domain's checkpoints, sorted."""
        listing = getattr(self.raw, "listAllCheckpoints", None)  # libvirt-python before 5.6
        with absent(NO_SUPPORT):
            return sorted(
                one.getName() for one in (self.connection.call(listing, 0) if listing else ())
            )
        return []

    def agent_connected(self) -> bool:
        """Return whether a guest agent has opened its end of the channel."""
        return domain_xml.read(self.live()).agent_connected

    def agent(self, request: dict[str, Any], timeout: float) -> Any:
        """
        Send one request to the guest agent and return its answer.

        The signature is what :class:`.agent.AgentChannel` calls.

        :param request: ``{"execute": …, "arguments": …}``.
        :param timeout: Seconds to wait for the answer.
        :return: The answer's ``return`` value.
        :raises AgentError: The agent refused the request.
        :raises ChannelError: There is no agent, or it does not answer.
        """
        try:
            answer = self.connection.agent_command(self.raw, json.dumps(request), timeout)
        except HostError as error:
            if error.code in (AGENT_UNRESPONSIVE, OPERATION_INVALID):
                raise ChannelError(
                    f"The guest agent of '{self.name}' does not answer.",
                    "In the guest: systemctl status qemu-guest-agent",
                ) from error
            raise AgentError(_agent_error_class(error), error.message) from error
        return json.loads(answer)["return"]

    def agent_interfaces(self) -> list[AgentInterface]:
        """
        Return the guest's network interfaces, as its agent lists them.

        Asked with a timeout: ``interfaceAddresses`` has none, and an agent that takes the request
        and stays silent would block everybody who lists the clones of its host.

        :raises HostError: There is no agent, or it does not answer, or the answer cannot be
            understood.
        """
        question = json.dumps({"execute": "guest-network-get-interfaces"})
        answer = self.connection.agent_command(self.raw, question, AGENT_TIMEOUT_S)
        try:
            return [_interface(card) for card in json.loads(answer)["return"]]
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise HostError(
                f"What the guest agent of '{self.name}' tells of its network cannot be understood."
            ) from error


def _interface(card: dict[str, Any]) -> AgentInterface:
    return AgentInterface(
        name=str(card["name"]).partition(":")[0],  # eth0:1 is another address of eth0
        mac=str(card.get("hardware-address") or "").lower(),
        addresses=tuple(
            (
                str(one["ip-address"]),
                max(0, min(int(one.get("prefix") or 0), 128)),
                "ipv6" if one.get("ip-address-type") == "ipv6" else "ipv4",
            )
            for one in card.get("ip-addresses") or ()
        ),
    )


def _agent_error_class(error: HostError) -> str:
    """Return the agent's error class, which libvirt passes on in its message only."""
    return "CommandNotFound" if "CommandNotFound" in error.message else "GenericError"
