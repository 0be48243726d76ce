"""
Read over what versions before the database stored in JSON files, in the same folder.

Everything is copied once and then kept under another name. What the database has already counts
for more, so a copy that was interrupted can be repeated.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3

from saltext.kvmclone.reactor.request_entry import RequestEntry, Requests, damaged

_REQUESTS, _NOTIFICATIONS, _DONE, _AWAITED = "requests.json", "bells", "finished", "awaited"


#: What is raised for an entry of another form. SQLite checks the types of its values: those that it
#: cannot store at all are an InterfaceError up to Python 3.10, and a ProgrammingError since.
_WRONG = (
    ValueError, TypeError, AttributeError, sqlite3.IntegrityError, sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)  # fmt: skip


def path(folder: str) -> str:
    """Return the path of the old file with the requests."""
    return os.path.join(folder, _REQUESTS)


def _paths(folder: str) -> list[str]:
    paths = (os.path.join(folder, name) for name in (_REQUESTS, _NOTIFICATIONS, _DONE, _AWAITED))
    return list(filter(os.path.lexists, paths))


def is_in(folder: str) -> bool:
    """Return True if something in a folder was stored by an older version."""
    return bool(_paths(folder))


def put_away(folder: str) -> None:
    """Keep what was copied under other names, for people."""
    for found in _paths(folder):
        kept = f"{found}.old"
        if os.path.isdir(kept):
            shutil.rmtree(kept)
        os.replace(found, kept)


def copy(folder: str, requests: Requests) -> None:
    """
    Copy everything into the database.

    :param requests: The requests, in the transaction to copy in.
    :raises HostError: The old requests are damaged.
    """
    known = RequestEntry.__dataclass_fields__
    try:
        with contextlib.suppress(FileNotFoundError), open(path(folder), encoding="utf-8") as source:
            for item in json.load(source):
                entry = RequestEntry(**{key: value for key, value in item.items() if key in known})
                if requests.find(entry.minion_id, entry.token) is None:
                    requests.put(entry)
    except _WRONG as error:
        raise damaged(path(folder), error) from error
    _copy_notifications(folder, requests.connection)
    _copy_highstates(folder, requests.connection)


def _copy_notifications(folder: str, connection: sqlite3.Connection) -> None:
    for _name, text in _files(folder, _NOTIFICATIONS):
        # A file of another form is passed over, as it always was.
        with contextlib.suppress(ValueError, TypeError, KeyError, sqlite3.Error):
            found = json.loads(text)
            connection.execute(
                "INSERT OR IGNORE INTO notifications VALUES (?, ?, ?, ?, ?, ?)",
                [found[key] for key in ("bell", "about", "after", "tries", "since", "stamp")],
            )


def _copy_highstates(folder: str, connection: sqlite3.Connection) -> None:
    for uuid, _text in _files(folder, _DONE):
        connection.execute(
            "INSERT INTO highstates (uuid, done) VALUES (?, 1) "
            "ON CONFLICT (uuid) DO UPDATE SET done = 1",
            (uuid,),
        )
    if os.path.isdir(os.path.join(folder, _AWAITED)):
        connection.execute("INSERT OR IGNORE INTO switches VALUES ('finish', 1)")
    for uuid, job in _files(folder, _AWAITED):
        connection.execute(
            "INSERT OR IGNORE INTO highstates (uuid, job) SELECT ?, ? FROM switches "
            "WHERE name = 'finish' AND is_on",
            (uuid, job.strip()),
        )


def _files(folder: str, name: str) -> list[tuple[str, str]]:
    """Return name and text of the files of a folder in the store, oldest first."""
    inner = os.path.join(folder, name)
    found = sorted(os.scandir(inner) if os.path.isdir(inner) else (), key=_changed)
    texts = []
    for entry in found:
        with open(entry.path, encoding="utf-8", errors="replace") as source:
            texts.append((entry.name, source.read()))
    return texts


def _changed(entry: os.DirEntry[str]) -> float:
    return entry.stat().st_mtime
