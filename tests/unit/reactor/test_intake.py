"""Which bells are worth an answer, and what comes of one where the requests cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import salt.config
import yaml

from saltext.kvmclone.master import progress
from saltext.kvmclone.master.keys import MinionKeys, generate
from saltext.kvmclone.reactor import intake, worker
from saltext.kvmclone.reactor.policy import DESTROYED, EXPIRED
from saltext.kvmclone.reactor.request_entry import MADE, RequestEntry
from saltext.kvmclone.reactor.request_store import RequestStore


def master(folder: Path, policy: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a master with a policy, which knows no minion."""
    path = folder / "master"
    folders = {"root_dir": str(folder), "pki_dir": str(folder / "pki")}
    config = {"kvm_clone": {"reactor": policy}, **folders, "cachedir": str(folder / "cache")}
    path.write_text(yaml.safe_dump(config))
    (folder / "pki/minions").mkdir(parents=True)
    return dict(salt.config.master_config(str(path)))


@pytest.mark.parametrize("name", ["requests.db", "requests.json"])
def test_a_bell_is_refused_and_told_while_the_requests_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    opts = master(tmp_path, {"expire": True})
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


def test_that_a_machine_was_destroyed_is_looked_into_where_it_was_made_for_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = {"minions": ["ci*"], "profiles": ["web"], "names": "*", "at_once": 1, "per_hour": 1}
    opts = master(tmp_path, {"allow": [rule]})
    monkeypatch.setattr(intake, "start_worker", lambda _opts: True)
    with RequestStore(opts).requests() as requests:
        requests.put(RequestEntry("0" * 32, "ci01", "web1", "web", state=MADE))
    told = {name: intake.answer(opts, DESTROYED, name)["noted"] for name in ("web1", "web2")}
    assert told == {"web1": True, "web2": False}
    assert [one.about for one in RequestStore(opts).notifications()] == ["web1"]
