"""Both ends of the wire between master and KVM host, without a Salt job in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.common import LIBVIRT_URI
from saltext.kvmclone.hosts import remote_server
from saltext.kvmclone.master import keys, signed_call
from saltext.kvmclone.master.remote import RemoteHost


class Wire(RemoteHost):
    """
    A remote host whose jobs are done right here; what was published and answered is kept.

    ``before`` is called with the name of each operation before it is done.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__({}, "kvm01", LIBVIRT_URI)
        pair = keys.generate(2048)
        (folder / "minion.pem").write_text(pair.private)
        self.folder = folder
        self.published: list[str] = []
        self.answered: list[str] = []
        self.before: Callable[[str], None] = lambda _operation: None
        monkeypatch.setattr(signed_call, "ask", self._do)
        monkeypatch.setattr(signed_call, "accepted_key", lambda *_: pair.public)

    def _do(self, _opts: Any, _minion_id: str, _function: str, asked: Any, patient: bool) -> Any:
        self.published.append(json.dumps(asked))
        self.before(asked["operation"])
        opts = {"id": "kvm01", "pki_dir": str(self.folder)}
        told = remote_server.serve(opts, **json.loads(self.published[-1]))
        self.answered.append(json.dumps(told))
        return json.loads(self.answered[-1])
