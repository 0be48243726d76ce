"""Remove the key that a clone left on the master."""

from __future__ import annotations

from saltext.kvmclone.errors import HostUnreachable, KvmCloneError
from saltext.kvmclone.master.keys import MinionKeys
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.record import DESTROYING


def remove(keys: MinionKeys, name: str, error: KvmCloneError, force: bool) -> Clone | None:
    """
    Remove the key of a clone that cannot be found, if it is one that we accepted.

    :param error: Why it cannot be found: no host has it, or one that may does not answer.
    :param force: Also where one does not answer.
    :return: What is known of the clone; None where no key was removed.
    """
    ids = keys.ids_of(name)
    down = isinstance(error, HostUnreachable)
    if down and not force:
        if ids:
            error.hint += (
                "   Its key stays for now; to remove it without the host: "
                f"salt-run kvmclone.destroy {name} force=True"
            )
        return None
    if not [one for one in ids if keys.take_back(one, keys.remembered(one))]:
        return None
    warning = f"'{name}' was not found; its key was removed from the master."
    if down:
        warning = (
            f"Only the key of '{name}' was removed from the master. {error.message} When that "
            f"is back: salt-run kvmclone.destroy {name}"
        )
    return Clone(name, "", "", "", "", "", "", DESTROYING, warnings=(warning,))
