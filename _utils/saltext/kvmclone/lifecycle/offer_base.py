"""
Offer a base to another host, which then fetches it, and take everything of that back.

What is made for a copy is recorded in the base's own ``<metadata>`` before it is made: the line
that lets a key in, and the files into which a chain of images is flattened. So after a crash at
any point it says what may exist.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import replace

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    CopyFailed,
    HostError,
    KvmCloneError,
    MissingProgram,
    PlanRefused,
    PoolFull,
    absent,
)
from saltext.kvmclone.hypervisor import pools
from saltext.kvmclone.hypervisor.constants import (
    AFFECT_CONFIG,
    METADATA_ELEMENT,
    NO_DOMAIN_METADATA,
)
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import base_content, base_copies
from saltext.kvmclone.inventory.base_content import BaseImage
from saltext.kvmclone.lifecycle import hash_base
from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.base_content import Content
from saltext.kvmclone.model.base_copy import (
    DEFINITION,
    NAMESPACE,
    NVRAM,
    PREFIX,
    BaseOffer,
    CopyKey,
    Offered,
    OfferedFile,
    is_id,
    to_xml,
)
from saltext.kvmclone.model.leftovers import Leftover
from saltext.kvmclone.system import (
    copy_folder,
    copying,
    export_folder,
    fetching,
    processes,
    ssh_server,
)
from saltext.kvmclone.system.ssh_server import BadKey, NoAccess, Server


def offer(host: Host, handle: DomainHandle, copy: str) -> BaseOffer:
    """
    Make a base ready to be fetched by another host; nobody is let in yet.

    :param copy: Id of the copy.
    :raises KvmCloneError: It cannot be offered; what was made for the copy is removed again.
    """
    _require_id(copy)
    _require_programs()
    content = hash_base.known_or_hashed(host, handle)
    server = _server()
    try:
        copy_folder.make(copy, handle.name)
        _record(host, handle, Offered(copy))
        found = _offered(host, handle, copy, content, server)
        length = sum(file.length for file in found.files)
        copy_folder.note_lasts(copy, ssh_server.key_lasts(length))
        copy_folder.wait_for_other(copy)
    except OSError as error:
        end(host, copy)
        raise HostError(
            f"'{handle.name}' cannot be offered: {error.strerror}: '{error.filename}'.",
            f"Look at it: {host.commands.there('ls', '-ld', str(error.filename))}",
        ) from error
    except BaseException:
        end(host, copy)
        raise
    return found


def _offered(
    host: Host, handle: DomainHandle, copy: str, content: Content, server: Server
) -> BaseOffer:
    definition = handle.definition()
    disks = {disk.target: disk for disk in base_content.disks(host, handle, definition)}
    paths: dict[str, str] = {}
    files: list[OfferedFile] = []
    for known in content.disks:
        disk = disks[known.target]
        path = disk.path if disk.is_whole else _flattened(host, handle, copy, disk, known.size)
        paths[disk.target] = path
        raw = pools.holder(host, disk.path)
        file = OfferedFile(
            disk.target, disk.format, known.size, known.digest, *_sizes(path),
            str(raw.name()) if raw is not None else "", os.path.dirname(disk.path),
        )  # fmt: skip
        files.append(file)
    if store := base_content.store(host, definition):
        paths[NVRAM] = store
        digest, (length, allocation) = content.others[NVRAM], _sizes(store)
        file = OfferedFile(
            NVRAM, "", length, digest, length, allocation, "", os.path.dirname(store)
        )
        files.append(file)
    export_folder.make(copy, paths, (DEFINITION, definition))
    return BaseOffer(
        copy=copy,
        base=handle.name,
        digest=content.digest,
        files=tuple(files),
        needs=_needs(definition, content),
        user=server.user,
        port=server.port,
        addresses=_addresses(),
        host_keys=server.host_keys,
    )


def _needs(definition: str, content: Content) -> dict[str, str]:
    """Return the digests of files that a machine only names, by path; empty where any will do."""
    named = {
        path: content.others.get(what, "")
        for what, path in base_content.boot_files(definition).items()
    }
    loader = (libvirt_xml.parse(definition).findtext("./os/loader") or "").strip()
    return {**named, **({loader: ""} if loader else {})}


def _sizes(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_blocks * 512


def _flattened(host: Host, handle: DomainHandle, copy: str, disk: BaseImage, size: int) -> str:
    """
    Write what the guest sees of a chain of images into one, beside the first of them.

    :raises PoolFull: There is too little room for that.
    :raises HostError: ``qemu-img`` failed.
    """
    folder = os.path.dirname(disk.path)
    path = os.path.join(folder, f".kvm_clone-{copy}-{disk.target}.{disk.format}")
    room = os.statvfs(folder)
    if room.f_bavail * room.f_frsize < min(disk.allocation, size) + 2**20:
        raise PoolFull(
            f"'{folder}' has too little room to flatten the disk '{disk.target}' of "
            f"'{handle.name}', which is copied as one image.",
            f"Make room there. See: {host.commands.there('df', '-h', folder)}",
        )
    _note(host, handle, copy, staged=(path,))
    try:
        create = ["qemu-img", "create", "-q", "-f", disk.format, path, str(size)]
        subprocess.run(create, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        os.chmod(path, 0o600)
        copying.convert(disk.path, disk.format, path, disk.format)
    except (copying.ConvertFailed, subprocess.CalledProcessError, FileNotFoundError) as error:
        raise HostError(
            f"Flattening '{disk.path}' of '{handle.name}' failed: {error}.",
            f"Look at it: {host.commands.there('qemu-img', 'check', disk.path)}",
        ) from error
    return path


def admit(host: Host, handle: DomainHandle, copy: str, key: CopyKey) -> str:
    """
    Let the host that made this key fetch what was offered, and nothing else.

    :return: The file that holds the key from now on.
    :raises PlanRefused: Nothing is offered under that id, or what should be a key is none.
    :raises CopyFailed: The ssh server lets nobody in.
    """
    _require_id(copy)
    server = _server()
    mark, command = base_copies.mark(copy), export_folder.command(copy)
    lasts = copy_folder.lasts(copy) or ssh_server.KEY_LASTS_S
    with contextlib.ExitStack() as undo:
        undo.callback(_shut_out, server.keys, mark)
        try:
            _note(host, handle, copy, keys=server.keys)
            ssh_server.let_in(server, key.public, mark, key.addresses, command, lasts)
            # Whoever ended the copy in between found no key yet.
            _under_way(base_copies.offered(host, handle), handle, copy)
            copy_folder.wait_for_other(copy, lasts)
        except BadKey as error:
            raise PlanRefused(
                f"The key that the other host made for a copy of '{handle.name}' is refused: "
                f"{error}.",
                "That host's minion sent it: look at that one, then repeat the push.",
            ) from error
        except OSError as error:
            raise CopyFailed(
                f"The key of the other host cannot be let in by '{server.keys}': {error}.",
                f"Look at it: {host.commands.there('ls', '-ld', server.keys)}",
            ) from error
        undo.pop_all()
    return server.keys


def _shut_out(keys: str, mark: str) -> None:
    """Take a key out again that was perhaps let in, behind an error that tells more."""
    with interrupts.shield(), contextlib.suppress(OSError, KvmCloneError):
        ssh_server.shut_out(keys, mark)


def end(host: Host, copy: str) -> list[Leftover]:
    """
    Remove everything that was made here for a copy. Can be repeated.

    :return: What was there.
    """
    _require_id(copy)
    sources = [pair for pair in base_copies.all_offered(host) if pair[1].copy == copy]
    if not sources:
        return _removed(host, None, base_copies.whole(Offered(copy)))
    return [row for handle, one in sources for row in _removed(host, handle, one)]


def _removed(host: Host, handle: DomainHandle | None, copy: Offered) -> list[Leftover]:
    there = list(base_copies.rows(handle, copy))
    if handle is None:
        _unmake(copy)
        copy_folder.remove(copy.copy)
    else:
        with _changing(host, handle) as copies:
            # Somebody may have let a key in since that was looked at.
            for one in (copy, *(now for now in copies if now.copy == copy.copy)):
                _unmake(one)
            copy_folder.remove(copy.copy)
            copies[:] = [one for one in copies if one.copy != copy.copy]
    return [replace(row, removed=True) for row in there]


def _unmake(copy: Offered) -> None:
    if copy.keys:
        ssh_server.shut_out(copy.keys, base_copies.mark(copy.copy))
    for path in copy.staged:
        if copy.copy in os.path.basename(path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def end_dead(host: Host, name: str, apply: bool) -> list[Leftover]:
    """
    Return what copies left that nobody is at work on any more.

    :param name: Only copies of this base; empty for all.
    :param apply: Remove it.
    """
    found: list[Leftover] = []
    for handle, copy in base_copies.dead(host):
        if name and name != base_copies.base_of(handle, copy):
            continue
        found += _removed(host, handle, copy) if apply else base_copies.rows(handle, copy)
    return found


# --- the record of copies -----------------------------------------------------------


def _record(host: Host, handle: DomainHandle, copy: Offered) -> None:
    with _changing(host, handle) as copies:
        copies.append(copy)


def _note(
    host: Host, handle: DomainHandle, copy: str, keys: str = "", staged: tuple[str, ...] = ()
) -> None:
    """Put on record, in the metadata and in the copy's folder, what is about to be made."""
    with _changing(host, handle) as copies:
        now = _under_way(copies, handle, copy)
        new = replace(now, keys=keys or now.keys, staged=(*now.staged, *staged))
        copy_folder.note_made(new)
        copies[:] = [new if one.copy == copy else one for one in copies]


def _under_way(copies: Iterable[Offered], handle: DomainHandle, copy: str) -> Offered:
    """
    Return the copy of that id.

    :raises PlanRefused: There is none, or none any more.
    """
    for one in copies:
        if one.copy == copy:
            return one
    raise PlanRefused(f"No copy '{copy}' of '{handle.name}' is under way.", "Repeat the push.")


@contextlib.contextmanager
def _changing(host: Host, handle: DomainHandle) -> Iterator[list[Offered]]:
    """Yield the copies on a base's record, to be changed; several hosts may copy it at once."""
    with processes.name_lock(f"copies of {handle.uuid}"):
        copies = list(base_copies.offered(host, handle))
        yield copies
        text = to_xml(handle.uuid, tuple(copies)) if copies else None
        prefix = PREFIX if copies else None
        with absent(NO_DOMAIN_METADATA):
            host.call(
                handle.raw.setMetadata, METADATA_ELEMENT, text, prefix, NAMESPACE, AFFECT_CONFIG
            )


# --- what it takes ------------------------------------------------------------------


def _require_id(copy: str) -> None:
    if not is_id(copy):
        raise PlanRefused(f"{copy!r} is not the id of a copy.")


def _require_programs() -> None:
    if not ssh_server.is_installed():
        raise MissingProgram.of("sshd", "openssh-server", "openssh-server")
    if "rsync" in fetching.missing():
        raise MissingProgram.of("rsync", *fetching.PROGRAMS["rsync"])


def _server() -> Server:
    try:
        return ssh_server.look()
    except NoAccess as error:
        raise _no_access(error) from error


def _addresses() -> tuple[str, ...]:
    try:
        return ssh_server.addresses()
    except NoAccess as error:
        raise _no_access(error) from error


def _no_access(error: NoAccess) -> CopyFailed:
    return CopyFailed(
        f"No other host can fetch a base from here: {error}.",
        "Another host copies it over ssh, with a key that expires and may only read "
        "the base. 'PermitRootLogin forced-commands-only' in sshd_config is enough.",
    )
