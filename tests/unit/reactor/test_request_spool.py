"""What waits on a minion for the master: in order, within bounds, and nobody else's to write."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.errors import ConfigError, HostError, InvalidName, SecretInArgument
from saltext.kvmclone.reactor import request_spool
from saltext.kvmclone.reactor.request_spool import RequestSpool
from tests.support.hints import Typist, tries


@pytest.fixture
def minion(tmp_path: Path) -> RequestSpool:
    return RequestSpool({"cachedir": str(tmp_path)})


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["name"] for item in items]


def test_a_request_waits_until_it_is_answered_and_is_kept_for_people(minion: RequestSpool) -> None:
    tokens = [minion.ask("request", name, "runner", {"cpus": 2}) for name in ("a", "b")]
    assert names(minion.pending()) == ["a", "b"]
    assert minion.pending()[0]["keys"] == {"cpus": 2}
    assert minion.told({tokens[0]: {"verdict": "queued"}, "0" * 32: {"verdict": "made"}}) == [
        tokens[0]
    ]
    assert names(minion.pending()) == ["b"]
    assert minion.all()[0]["answer"] == {"verdict": "queued"}


@pytest.mark.parametrize("late", ["queued", "making"])
def test_that_it_waits_is_no_news_once_it_ended(minion: RequestSpool, late: str) -> None:
    """Two jobs bring the two answers, in whichever order."""
    token = minion.ask("request", "a", "runner")
    for verdict in ("failed", late):
        assert minion.told({token: {"verdict": verdict}}) == [token]
    assert minion.all()[0]["answer"] == {"verdict": "failed"}
    minion.told({token: {"verdict": "gone"}})
    assert minion.all()[0]["answer"] == {"verdict": "gone"}


def test_what_no_policy_can_allow_is_not_even_asked(minion: RequestSpool) -> None:
    with pytest.raises(SecretInArgument, match="must be changed"):  # salt-call tells the master
        minion.ask("request", "a", "runner", {"password": "x", "cpus": 2})
    for key in ("url", "script", "private_key", "host", "pool"):
        with pytest.raises(ConfigError, match=key):
            minion.ask("request", "a", "runner", {key: "x"})
    with pytest.raises(ConfigError, match="too long"):
        minion.ask("request", "a", "runner", {"ttl": "x" * 20_000})
    with pytest.raises(ConfigError, match="written down"):
        minion.ask("request", "a", "runner", {"ttl": {1, 2}})
    assert minion.all() == []


def test_there_is_an_end_to_what_waits_and_to_what_is_kept(
    minion: RequestSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_spool, "MAX_PENDING", 3)
    monkeypatch.setattr(request_spool, "MAX_ANSWERED", 1)
    tokens = [minion.ask("request", name, "runner") for name in "abc"]
    with pytest.raises(ConfigError, match="wait for the master already"):
        minion.ask("request", "d", "runner")
    minion.told({token: {"verdict": "refused"} for token in tokens})
    assert names(minion.all()) == ["c"]


def test_what_waited_for_a_day_does_not_come_as_a_surprise(
    minion: RequestSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    minion.ask("request", "a", "runner")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + request_spool.PENDING_TIMEOUT_S + 1)
    minion.ask("request", "b", "runner")
    assert names(minion.pending()) == names(minion.all()) == ["b"]


@pytest.mark.parametrize("junk", ["", "[]", "7", '{"token": "x"}', '{"token": 7, "at": 1}', "\x00"])
def test_files_that_are_none_of_ours_are_passed_over(minion: RequestSpool, junk: str) -> None:
    minion.ask("request", "a", "runner")
    for name in ("x.json", "y.json.12ab", "z"):
        (Path(minion.folder) / name).write_text(junk)
    assert names(minion.all()) == ["a"]


def edited(minion: RequestSpool, token: str, **fields: Any) -> Path:
    """Write something else into the file of a request; None takes a field out."""
    path = Path(minion.folder) / f"{token}.json"
    item = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({key: item[key] for key in item if item[key] is not None}))
    return path


def test_a_request_has_a_version_and_one_without_is_of_the_first(minion: RequestSpool) -> None:
    token = minion.ask("request", "a", "runner")
    path = edited(minion, token)
    assert json.loads(path.read_text())["version"] == minion.pending()[0]["version"] == 1
    shown = minion.all()
    assert "version" not in shown[0]
    edited(minion, token, version=None)
    assert minion.all() == shown
    minion.told({token: {"verdict": "made"}})
    assert minion.all()[0]["answer"] == {"verdict": "made"}


@tries("request_spool.RequestSpool.all")
def test_a_request_of_a_later_version_is_left_alone_and_said_so(
    minion: RequestSpool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    later = minion.ask("request", "a", "runner")
    path = edited(minion, later, version=2, at="at noon", name=None)
    before = path.read_bytes()
    token = minion.ask("request", "b", "runner")
    assert names(minion.pending()) == ["b"]
    assert str(path) in caplog.text
    assert minion.told({token: {"verdict": "made"}, later: {"verdict": "made"}}) == [token]
    assert path.read_bytes() == before
    with pytest.raises(HostError, match="a later version of kvm_clone") as refused:
        minion.all()
    Typist(tmp_path)(refused.value.hint)
    assert names(minion.all()) == ["b"]


def test_a_file_under_a_name_that_is_not_its_token_does_not_count(minion: RequestSpool) -> None:
    token = minion.ask("request", "a", "runner")
    item = json.loads((Path(minion.folder) / f"{token}.json").read_text())
    (Path(minion.folder) / f"{'f' * 32}.json").write_text(json.dumps(item))
    assert len(minion.all()) == 1


def test_a_folder_that_others_can_write_counts_for_nothing(minion: RequestSpool) -> None:
    minion.ask("request", "a", "runner")
    Path(minion.folder).chmod(0o777)
    with pytest.raises(HostError, match="written by others"):
        minion.pending()


def test_any_spare_is_asked_for_by_its_profile_alone(minion: RequestSpool) -> None:
    minion.request(None, "runner", {"ttl": "2h"})
    (waiting,) = minion.pending()
    assert (waiting["name"], waiting["profile"], waiting["keys"]) == ("", "runner", {"ttl": "2h"})
    with pytest.raises(ConfigError, match="cpus cannot be set") as refused:
        minion.request(None, "runner", {"cpus": 2})
    assert refused.value.hint.endswith("salt-call kvm_clone.ask NAME runner cpus=2")
    for name, words in ((None, "No profile is named."), ("runner", "'runner' alone")):
        with pytest.raises(ConfigError, match=words):
            minion.request(name, None, {})
    with pytest.raises(InvalidName):
        minion.request("", "runner", {})
