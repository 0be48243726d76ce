"""What comes of a bell where the reactor's requests cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import salt.config
import yaml

from saltext.kvmclone.master import progress
from saltext.kvmclone.master.keys import MinionKeys, generate
from saltext.kvmclone.reactor import intake, worker
from saltext.kvmclone.reactor.policy import EXPIRED


@pytest.mark.parametrize("name", ["requests.db", "requests.json"])
def test_a_bell_is_refused_and_told_while_the_requests_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "master"
    policy = {"kvm_clone": {"reactor": {"expire": True}}}
    folders = {"root_dir": str(tmp_path), "pki_dir": str(tmp_path / "pki")}
    path.write_text(yaml.safe_dump({**policy, **folders, "cachedir": str(tmp_path / "cache")}))
    (tmp_path / "pki/minions").mkdir(parents=True)
    opts: dict[str, Any] = dict(salt.config.master_config(str(path)))
    MinionKeys(opts).accept("kvm01", generate(2048).public)
    fired: list[tuple[str, Any]] = []
    monkeypatch.setattr(progress, "fire", lambda _opts, tag, data: fired.append((tag, data)))
    store = tmp_path / "cache/kvm_clone/reactor" / name
    store.parent.mkdir(parents=True)
    store.write_text("")

    answer = intake.answer(opts, EXPIRED, "kvm01")

    assert answer["refused"]["type"] == "HostError"
    ((tag, about),) = fired
    assert (tag, about["error"]) == ("refused", answer["refused"])
    with pytest.raises(intake.KvmCloneError, match="damaged"):
        worker.work_off(opts)
    assert fired[1:] == [("refused", {"error": answer["refused"]})]
    assert store.read_text() == ""
