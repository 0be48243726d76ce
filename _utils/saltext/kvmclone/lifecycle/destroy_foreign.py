"""
Remove a foreign domain by force: its definition goes, and every file stays.

libvirt keeps more beside a definition than its disks: a saved memory image, snapshots, variable
store, TPM. What libvirt can keep is kept and named; where it would delete or forget something,
the domain is refused before anything is touched.
"""

from __future__ import annotations

from saltext.kvmclone.errors import ForeignDomain, absent
from saltext.kvmclone.hypervisor.constants import NO_DOMAIN
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import deletion_plan, snapshots
from saltext.kvmclone.inventory.base_protection import protection
from saltext.kvmclone.lifecycle import protect
from saltext.kvmclone.model import domain_xml, libvirt_xml

#: The libvirt versions from which an undefine can keep these.
_KEEPS_NVRAM = 2_003_000
_KEEPS_TPM = 8_009_000


def destroy(host: Host, handle: DomainHandle, force: bool) -> tuple[str, ...]:
    """
    Remove the definition of a domain that is not one of our clones.

    :return: What stays, one sentence each.
    :raises ForeignDomain: Not forced, or libvirt would delete or forget something with it.
    :raises CloneInUse: Another image depends on its disks.
    """
    stays, keeps = _judge(host, handle, force)
    if protection(host, handle) is not None:
        protect.unprotect(host, handle)
    handle.power_off()
    with absent(NO_DOMAIN):  # a domain without a definition is gone once it stops
        handle.undefine_only(*keeps)
    return stays


def examine(host: Host, handle: DomainHandle, force: bool) -> tuple[str, ...]:
    """
    Return what :func:`destroy` would keep, one sentence each; touch nothing.

    :raises KvmCloneError: What :func:`destroy` would raise before it touches anything.
    """
    return _judge(host, handle, force)[0]


def _judge(
    host: Host, handle: DomainHandle, force: bool
) -> tuple[tuple[str, ...], tuple[bool, bool]]:
    """
    Return what stays, one sentence each, and what libvirt must be asked to keep for that.

    :return: The sentences; then whether to ask for the TPM's state and for the variable store.
    :raises ForeignDomain: Not forced, or libvirt would delete or forget something.
    :raises CloneInUse: Another image depends on its disks.
    """
    name, commands = handle.name, host.commands
    if not force:
        raise ForeignDomain(
            f"'{name}' was not made by kvm_clone, so it is not destroyed.",
            f"A clone of Salt's old driver: {commands.on_host('adopt', name)}   Anything "
            f"else, if you are sure; every one of its files stays: {commands.forced(name)}",
        )
    deletion = deletion_plan.plan_deletion(host, handle, None)
    _require_nothing_lost(handle)
    root = libvirt_xml.parse(handle.definition())
    has_tpm = root.find("./devices/tpm/backend[@type='emulator']") is not None
    keeps = _keeps(host, handle, has_tpm, domain_xml.facts(root).nvram is not None)
    tpm = f"The state of its emulated TPM stays where libvirt keeps it, under {handle.uuid}."
    return (*deletion.sentences(), *[tpm] * has_tpm), keeps


def _keeps(host: Host, handle: DomainHandle, has_tpm: bool, has_store: bool) -> tuple[bool, bool]:
    """
    Return what libvirt must be asked to keep beside the definition, as far as it can.

    :return: Whether to ask for the TPM's state and for the variable store.
    :raises ForeignDomain: libvirt would delete the one or the other.
    """
    version = host.version()
    knows_tpm, knows_store = version >= _KEEPS_TPM, version >= _KEEPS_NVRAM
    too_old = has_tpm > knows_tpm or has_store > knows_store
    # When a domain without a definition stops, libvirt deletes its TPM's state.
    if too_old or (has_tpm and not handle.is_persistent()):
        why = "this libvirt is too old" if too_old else "it runs without a definition"
        raise ForeignDomain(
            f"'{handle.name}' is not ours, and libvirt would delete the state of its TPM or its "
            f"NVRAM with it, since {why}. Nothing was touched.",
            "Copy these first (/var/lib/libvirt), then: "
            + host.commands.virsh(
                "undefine", handle.name, "--keep-nvram" if knows_store else "--nvram"
            )
            if too_old
            else f"Define it first: {host.commands.redefine(handle.name)}   "
            "Then repeat the command.",
        )
    return knows_tpm, knows_store


def _require_nothing_lost(handle: DomainHandle) -> None:
    """
    Refuse a domain whose undefine would lose what libvirt remembers of it.

    :raises ForeignDomain: It has a saved memory image, snapshots or checkpoints.
    """
    name, commands = handle.name, handle.connection.commands
    virsh, near = commands.virsh, commands.near.virsh
    if handle.is_saved():
        raise ForeignDomain(
            f"'{name}' is not ours and has a saved memory image, which would be lost with its "
            "definition. Nothing was touched.",
            f"Start it, and shut it down properly: {virsh('start', name)}   Or, if what it "
            f"had in memory may be lost: {virsh('managedsave-remove', name)}   "
            "Then repeat the command.",
        )
    memories = [
        path
        for text in handle.snapshot_definitions()
        for path in snapshots.memory_files(libvirt_xml.element(text))
    ]
    stay = f"the files stay, with the memory of snapshots in {', '.join(memories)}"
    stay = stay if memories else "the files stay"
    for word, found in (("snapshot", handle.snapshots()), ("checkpoint", handle.checkpoints())):
        if found:
            forget = (
                f"{near(f'{word}-list', name, '--name')} | grep . | while read -r s; do "
                f'{near(f"{word}-delete", name)} "$s" --metadata; done'
            )
            raise ForeignDomain(
                f"'{name}' is not ours and has {word}s, which libvirt would forget with its "
                f"definition: {', '.join(found)}. Nothing was touched.",
                f"If they may be forgotten ({stay}): {commands.line(forget)}   "
                "Then repeat the command.",
            )
