"""
Keep track of the clones that became ``ready`` while ``finish`` was on, until their highstate.

Each such clone gets one highstate. The clones are files, named by uuid, in a folder beside the
request store. The folder exists exactly while ``finish`` is on, so it also tells what the policy
last said when that cannot be read for a while. No clock is involved: a clone is noted by the
process that makes it ``ready``, and one that is not noted gets nothing.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping
from typing import Any

import salt.utils.jid

from saltext.kvmclone.reactor.request_store import RequestStore

log = logging.getLogger(__name__)

_UUID = re.compile(r"[0-9a-fA-F-]{36}")

#: Most clones that are noted; of more the oldest are forgotten.
MAX_AWAITED = 5000

#: Under this word the request store keeps which clones got their highstate.
DONE = "finished"


class Highstates:
    """
    The clones that are still to get their highstate.

    :param store: The request store, whose folder and lock are used.
    """

    def __init__(self, store: RequestStore) -> None:
        self.store = store
        self.folder = os.path.join(store.folder, "awaited")

    @property
    def is_on(self) -> bool:
        """Return True if ``finish`` was on when the policy was last read."""
        return os.path.isdir(self.folder)

    def switch(self, on: bool) -> None:
        """Note what the policy says of ``finish``; off forgets every clone that still waits."""
        with self.store.held():
            if on:
                os.makedirs(self.folder, mode=0o700, exist_ok=True)
            elif self.is_on:
                shutil.rmtree(self.folder)

    def expect(self, uuid: str) -> bool:
        """
        Note that a clone becomes ``ready`` now.

        :param uuid: By its host's word, and becomes a file's name.
        :return: False where ``finish`` is off, or the clone had its highstate.
        """
        if not isinstance(uuid, str) or not _UUID.fullmatch(uuid):
            log.warning("kvm_clone reactor: %.80r is no uuid; no highstate for that", uuid)
            return False
        with self.store.held():
            if not self.is_on or self.store.was_done(DONE, uuid):
                return False
            os.close(os.open(self._path(uuid), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            noted = sorted(os.scandir(self.folder), key=lambda entry: entry.stat().st_mtime)
            for entry in noted[: max(0, len(noted) - MAX_AWAITED)]:
                os.unlink(entry.path)
        return True

    def job_for(self, uuid: str, opts: Mapping[str, Any]) -> str:
        """
        Return the number of the job that is to bring a clone its highstate.

        It is written down before the job is published, and stays the same: a minion that is sent
        one number twice, since the worker was killed in between, runs it once.

        :return: Empty where the clone is to get none.
        """
        with self.store.held():
            try:
                with open(self._path(uuid), "r+", encoding="ascii") as noted:
                    job = noted.read().strip()
                    if not job:
                        job = str(salt.utils.jid.gen_jid(opts))
                        noted.write(job)
                    return job
            except (FileNotFoundError, NotADirectoryError):
                return ""

    def done(self, uuid: str) -> None:
        """Note that a clone got its highstate; it does not get another."""
        self.store.done(DONE, uuid)
        with self.store.held():
            if os.path.lexists(self._path(uuid)):
                os.unlink(self._path(uuid))

    def _path(self, uuid: str) -> str:
        return os.path.join(self.folder, uuid)
