"""Look at all hosts, and write what was seen as one HTML page."""

from __future__ import annotations

import os
import shlex
import stat
import time
from collections.abc import Callable, Sequence
from typing import Any

from saltext.kvmclone.display.page.picture import Picture
from saltext.kvmclone.display.page.render import page
from saltext.kvmclone.display.page.template import HEAD
from saltext.kvmclone.errors import ConfigError, HostError, HostUnreachable, KvmCloneError, readable
from saltext.kvmclone.inventory.findings import Finding
from saltext.kvmclone.master import at_once, base_copies, fleet_doctor, host_list
from saltext.kvmclone.master.all_hosts import with_failures
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.system import files

#: Who may read the page: it names every machine, file and address.
_MODE = 0o600


def write(fleet: Fleet, file: Any, also: Sequence[Finding] = ()) -> dict[str, Any]:
    """
    Write the page, and return ``{"report": PATH, "retcode"}``.

    :param file: Its path. A file that is there is only overwritten if it is such a page.
    :param also: What is wrong on the master besides what is seen here.
    :raises ConfigError: It cannot be written there, or something else is there already.
    :raises HostError: It could not be written.
    """
    path = os.path.abspath(os.path.expanduser(str(file)))
    _is_report(path)
    picture = look(fleet, path, also)
    at_once.require_no_interrupt(path)
    html = page(picture)
    try:
        files.write(path, html, _MODE, overwrite=_is_report(path))
    except FileExistsError:
        raise _other_file(path) from None  # it was made in the meantime
    except OSError as error:
        folder = shlex.join(["ls", "-ld", os.path.dirname(path)])
        raise HostError(
            f"'{path}' could not be written: {error.strerror}.", f"Look at its folder: {folder}"
        ) from error
    return with_failures({"report": readable(path), "retcode": 0}, dict(picture.unseen))


def look(fleet: Fleet, path: str, also: Sequence[Finding] = ()) -> Picture:
    """
    Return what all hosts say, and what did not answer.

    :param path: The file that is to show it.
    """
    unseen: dict[str, Any] = {}

    def ask(what: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return an answer; where the whole of it failed, an empty one, and note the error."""
        try:
            answer = work()
        except KvmCloneError as error:
            unseen[what] = error.as_dict()
            return {}
        unseen.update(answer.get("unreachable", {}))
        return answer

    def clones() -> dict[str, Any]:
        found, failed = fleet.everywhere.clones()
        return {"clones": found, "unreachable": failed}

    made = time.time()
    reached = frozenset(label for label, way in fleet.everywhere.ways.items() if way[0])
    hosts = ask("the hosts", lambda: host_list.listing(fleet)).get("hosts", {})
    unseen |= {label: one["error"] for label, one in hosts.items() if not one["reachable"]}
    silent = [label for label, error in unseen.items() if error["type"] == HostUnreachable.__name__]
    fleet.everywhere.leave_out(silent)
    return Picture(
        master=_name(fleet),
        made=made,
        path=path,
        hosts=hosts,
        clones=ask("the clones", clones).get("clones", {}),
        bases=ask("the bases", lambda: base_copies.bases(fleet.everywhere)).get("bases", {}),
        tree=ask("the lineage", fleet.tree).get("bases", {}),
        findings=ask("the doctor", lambda: fleet_doctor.examine(fleet, also)).get("findings", ()),
        unseen=unseen,
        reached=reached,
    )


def _name(fleet: Fleet) -> str:
    """Return what this master is called: its id without what Salt adds."""
    return str(fleet.opts.get("id") or "this master").removesuffix("_master")


def _is_report(path: str) -> bool:
    """
    Return True if one of our pages is there, and False if nothing is.

    :raises ConfigError: Something else is there, or there is no such folder.
    """
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise ConfigError(
            f"There is no folder '{folder}' for the report.",
            f"Make it: {shlex.join(['mkdir', '-p', folder])}",
        )
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:  # such as a name that is too long
        raise ConfigError(f"'{path}' cannot be the name of a report: {error}.") from error
    if not stat.S_ISREG(there.st_mode):
        raise _other_file(path)
    try:
        with open(path, "rb") as found:
            ours = found.read(len(HEAD)) == HEAD.encode()
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read: {error.strerror}.") from error
    if not ours:
        raise _other_file(path)
    return True


def _other_file(path: str) -> ConfigError:
    if os.path.isdir(path):
        return ConfigError(
            f"'{path}' is a folder.",
            f"Name a file in it: {Commands().clone('report', os.path.join(path, 'fleet.html'))}",
        )
    moved = shlex.join(["mv", "-n", path, f"{path}.old"])
    return ConfigError(
        f"'{path}' is there, and is no report of kvm_clone; it stays as it is.",
        f"Name another file, or move this one away: {moved}",
    )
