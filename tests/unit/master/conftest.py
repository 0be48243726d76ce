"""What tests of several files of this folder share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from saltext.kvmclone.errors import KvmCloneError
from saltext.kvmclone.hosts.create_state import Turn
from saltext.kvmclone.hosts.outcome import Outcome
from saltext.kvmclone.master import placing
from saltext.kvmclone.model.clone import CloneDisk
from saltext.kvmclone.model.request import Request


@pytest.fixture
def creating(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a create be one call of the host's ``clone``."""

    def create(host: Any, request: Request, *_more: Any, turn: Turn) -> Outcome:
        try:
            with turn(request) as told:
                clone = host.clone(told)
        except KvmCloneError as error:
            return Outcome(request.name, "", None, error)
        if error := host.failures.get("boot"):  # begun, and what there is of it not known
            there = replace(clone, state="", disks=(CloneDisk("vda", "/x", "qcow2", "overlay"),))
            return Outcome(request.name, "cloned", there, error)
        return Outcome(request.name, clone.stage, clone)

    monkeypatch.setattr(placing.provision, "create", create)
