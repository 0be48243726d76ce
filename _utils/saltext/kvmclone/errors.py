"""
Define the errors of kvm_clone; every one says what to do next.

Every refusal and every failure that a user can meet is a :class:`KvmCloneError`. It carries a
*type* (the class name, stable, for scripts), a *message* (what happened) and a *hint* (what to type
next). The Salt entry points turn it into an error of the job; the runner shows it as ``{"type",
"message", "hint"}``. Code branches on the class, never on the text.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class KvmCloneError(Exception):
    """
    The base class of all errors of kvm_clone.

    :param message: What happened, one sentence, with the names involved.
    :param hint: What the operator should do or type next.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = readable(message)
        self.hint = readable(hint)
        super().__init__(self.message)

    @property
    def type(self) -> str:
        """Return the stable name of this error: the class it was raised as."""
        return type(self).__name__

    def as_dict(self) -> dict[str, Any]:
        """Return the shape of an ``error``; see docs/answers.md."""
        return {"type": self.type, "message": self.message, "hint": self.hint}

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" + (f" Hint: {self.hint}" if self.hint else "")


def readable(text: str) -> str:
    """
    Return a text with everything escaped that UTF-8 cannot encode.

    A message may name a file whose name is not valid UTF-8. Salt could not send it as it stands,
    and the job would never answer.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def named(error: BaseException) -> str:
    """
    Return an unexpected exception as text for a message.

    Of an encoding error only the type: its ``repr`` quotes the whole text, which may be a secret.
    """
    return type(error).__name__ if isinstance(error, UnicodeError) else repr(error)


# --- what the user wrote ------------------------------------------------------------


class InvalidName(KvmCloneError):
    """A clone name that the naming rules refuse."""


class ConfigError(KvmCloneError):
    """One or more problems in providers, profiles or arguments, all listed at once."""


def no_host() -> ConfigError:
    """
    Return the error to raise where all hosts are to be queried and none is configured.

    "The domain is gone" would be wrong there: nobody has looked, and a minion key may be deleted on
    such an answer.
    """
    return ConfigError(
        "No KVM host is configured on this master, so it is not known what exists.",
        "Check its providers: salt-run kvmclone.profiles",
    )


class Interrupted(KvmCloneError):
    """Somebody pressed Ctrl-C or ended the process; the message says what became of the work."""


class SecretInArgument(KvmCloneError):
    """A secret was typed as an argument and now stands in the job cache."""


class MissingPackage(KvmCloneError):
    """A Python package that this operation needs is not installed."""


# --- what the host says -------------------------------------------------------------


class HostUnreachable(KvmCloneError):
    """The libvirt daemon, or the minion on the KVM host, does not answer."""


class NeverConnected(HostUnreachable):
    """A host that was not reached before anything was sent, so nothing can have been made there."""

    @property
    def type(self) -> str:
        return HostUnreachable.__name__


class NotAccepted(NeverConnected):
    """A host whose minion has no accepted key, so that this master never made anything there."""


class OtherVersion(NeverConnected):
    """A host whose modules are of another version than the master's; nothing was done there."""


class HostError(KvmCloneError):
    """
    A refusal or failure of libvirt for which there is no more specific class.

    :param code: libvirt's error number (``virErrorNumber``); what callers branch on.
    :param errno: The kernel's error number, where it was the kernel that refused.
    """

    def __init__(self, message: str, hint: str = "", code: int = 0, errno: int = 0) -> None:
        super().__init__(message, hint)
        self.code = code
        self.errno = errno

    def with_message(self, message: str) -> HostError:
        """Return a copy of this error with another message."""
        return HostError(message, self.hint, self.code, self.errno)

    @property
    def no_room(self) -> bool:
        """Return whether a file system, or somebody's quota on it, is full."""
        return self.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def absent(code: int) -> Iterator[None]:
    """
    Suppress the libvirt error which says that something does not exist.

    :param code: Its number (``virErrorNumber``).
    :raises HostError: libvirt failed with another number.
    """
    try:
        yield
    except HostError as error:
        if error.code != code:
            raise


class NotFound(KvmCloneError):
    """There is no domain of that name."""


class Renamed(KvmCloneError):
    """The clone that was made under that name is called something else now."""


class ForeignDomain(KvmCloneError):
    """A domain of that name exists and is not one of our clones."""


class AlreadyExists(KvmCloneError):
    """
    The clone that was to be made exists already.

    :param clone: The CLONE, as :meth:`saltext.kvmclone.model.clone.Clone.as_dict` gives it.
    """

    def __init__(self, message: str, hint: str = "", clone: dict[str, Any] | None = None) -> None:
        super().__init__(message, hint)
        self.clone = clone

    def as_dict(self) -> dict[str, Any]:
        answer = super().as_dict()
        if self.clone is not None:
            answer["clone"] = self.clone
        return answer


class CreateInProgress(KvmCloneError):
    """
    Another worker is making or destroying a clone of that name, or left it half-made.

    :param work: Its work as plain data (see :class:`saltext.kvmclone.model.record.Work`).
    """

    def __init__(self, message: str, hint: str = "", work: dict[str, Any] | None = None) -> None:
        super().__init__(message, hint)
        self.work = work

    def as_dict(self) -> dict[str, Any]:
        answer = super().as_dict()
        if self.work is not None:
            answer["work"] = self.work
        return answer


class KeptAfterFailure(KvmCloneError):
    """An earlier create of that name failed and was kept, as ``on_failure`` wanted it."""


class DamagedRecord(KvmCloneError):
    """The record in a domain's metadata cannot be read; it was edited, or is of a later version."""


class PlanRefused(KvmCloneError):
    """The plan has conflicts; all of them are in the message."""


class CloneInUse(KvmCloneError):
    """Something else uses a disk of this clone."""


class OwnSnapshots(CloneInUse):
    """Only the clone's own snapshots use its disks; ``force`` removes it and keeps their files."""

    @property
    def type(self) -> str:
        return CloneInUse.__name__


class SnapshotRefused(KvmCloneError):
    """A snapshot of the clone cannot be taken, rolled back to or deleted now; nothing was done."""


class NoSnapshot(KvmCloneError):
    """The clone has no snapshot of that label; the message lists those that it has."""


class OutOfReach(KvmCloneError):
    """
    A file may exist that only the clone's record knows of, so that stays.

    The file cannot be looked at: its pool is not started, or its file system is not mounted.
    """


class PoolFull(KvmCloneError):
    """The storage pool has too little free space for what the plan needs."""


class MissingProgram(KvmCloneError):
    """A program that this operation needs is not installed on the KVM host."""

    @classmethod
    def of(cls, program: str, debian: str, redhat: str) -> MissingProgram:
        """
        Return the error for a program that was not found on this machine.

        :param debian: The package that has it on Debian and Ubuntu; ``redhat`` on others.
        """
        return cls(
            f"'{program}' is not installed on this KVM host.",
            f"Install it there: apt install {debian}   Or: dnf install {redhat}",
        )


class CopyFailed(KvmCloneError):
    """A base could not be copied from one host to another; nothing of the copy is left."""


class HostFull(KvmCloneError):
    """The host has promised too much already to take this clone; nothing was made."""


class TooLate(KvmCloneError):
    """The host was to begin by a certain time, which is over; nothing was made."""


class NoSpare(KvmCloneError):
    """There is no such spare in stock, or somebody else has claimed it."""


# --- where a clone goes -------------------------------------------------------------


class NoHostFits(KvmCloneError):
    """None of the hosts that may be chosen can take the clone; each is there with its reason."""


class BaseMissing(KvmCloneError):
    """None of the hosts that may be chosen has the base."""


class BaseDiffers(KvmCloneError):
    """Bases of one name have different contents."""


# --- what an image is ---------------------------------------------------------------


class DownloadFailed(KvmCloneError):
    """An image, or its checksum file, cannot be downloaded; nothing of it was kept."""


class ChecksumMismatch(KvmCloneError):
    """An image is not the one that its checksum names."""


class BadImage(KvmCloneError):
    """A file is no disk image that can be taken: it is something else, damaged, or names files."""


class NotWarmed(KvmCloneError):
    """A fork was asked for, and its base has no saved memory that one could be made of."""


class WarmImageUnusable(KvmCloneError):
    """What a warmed base was saved with, or from, is not what it was; no fork is made of it."""


class ForkFailed(KvmCloneError):
    """A fork did not become a machine of its own in time; it was destroyed before it served."""


# --- what the guest does ------------------------------------------------------------


class GuestStopped(KvmCloneError):
    """The guest crashed or shut off while we waited for it."""


class AddressTimeout(KvmCloneError):
    """No usable address within ``wait_for_ip_timeout``."""


class ChannelError(KvmCloneError):
    """The guest cannot be talked to: there is no connection, or it broke."""


class LoginFailed(ChannelError):
    """The guest answered and refused the login."""


class WrongGuest(KvmCloneError):
    """The machine at that address is not the clone."""


class CommandFailed(KvmCloneError):
    """A command in the guest ended with a failure."""


class DeployFailed(KvmCloneError):
    """The deploy script, or starting the minion, failed in the guest."""


# --- what the master finds ----------------------------------------------------------


class KeyConflict(KvmCloneError):
    """Another key is already known for that minion id."""


class MinionTimeout(KvmCloneError):
    """The minion never answered ``test.version``."""


class VerificationFailed(KvmCloneError):
    """A minion answered, but it is not the machine that we made."""


class Unverifiable(KvmCloneError):
    """A minion answered, and may not read what would show which machine it is."""


class Unsealable(KvmCloneError):
    """A sealed message that this host cannot open, or that was meant for another."""


def _family(of: type[KvmCloneError] = KvmCloneError) -> dict[str, type[KvmCloneError]]:
    members = {of.__name__: of}
    for below in of.__subclasses__():
        members |= _family(below)
    return members


def from_dict(data: dict[str, Any]) -> KvmCloneError:
    """
    Rebuild the error that :meth:`KvmCloneError.as_dict` described, on the other side of a job.

    :param data: ``{"type", "message", "hint"}``; an unknown type becomes a
        :class:`HostError`, so that a newer host can still be understood.
    """
    cls = _family().get(str(data.get("type")), HostError)
    error = cls(str(data.get("message", "")), str(data.get("hint", "")))
    if isinstance(error, AlreadyExists):
        error.clone = data.get("clone")
    if isinstance(error, CreateInProgress):
        error.work = data.get("work")
    return error
