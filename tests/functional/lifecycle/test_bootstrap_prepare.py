"""What is wrong with what goes into a guest is said before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.common import write
from saltext.kvmclone.errors import ChannelError, ConfigError, LoginFailed
from saltext.kvmclone.lifecycle import bootstrap
from saltext.kvmclone.master import enrolment
from saltext.kvmclone.master.keys import MinionKeys
from saltext.kvmclone.model.request import Deploy, Request, Secrets
from saltext.kvmclone.reactor.intake import expect_highstate


@pytest.fixture
def opts(tmp_path: Path) -> dict[str, Any]:
    return {"conf_file": str(tmp_path / "master"), "hash_type": "sha256"}


def request(**deploy: Any) -> Request:
    return Request("web1", "base", deploy=Deploy(**deploy))


def prepare(opts: dict[str, Any], wanted: Request, secrets: Secrets = Secrets()) -> None:
    enrolment.Enroller(opts, MinionKeys(opts), expect_highstate).prepare(wanted, secrets)


def test_what_is_right_passes(opts: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path / "cloud.deploy.d/mine.sh", "echo {{ vm.name }} {{ minion }}\n")
    write(tmp_path / "file", "x")
    prepare(opts, request(script="mine", file_map={str(tmp_path / "file"): "/file"}))
    prepare(opts, request())


@pytest.mark.parametrize(
    ("deploy", "word"),
    [
        ({"script": "nowhere"}, "was not found"),
        ({"script": "broken"}, "cannot be rendered"),
        ({"script": "odd"}, "cannot be rendered"),
        ({"script": "misspelt"}, "cannot be rendered"),
        ({"script": "fails"}, "cannot be rendered"),
        ({"script": "binary"}, "cannot be rendered"),
        ({"file_map": {"/no/such/file": "/x"}}, "file_map"),
    ],
)
def test_a_script_or_file_that_cannot_be_had(
    opts: dict[str, Any], tmp_path: Path, deploy: dict[str, Any], word: str
) -> None:
    write(tmp_path / "cloud.deploy.d/broken.sh", "{{ nothing.at.all }}")
    write(tmp_path / "cloud.deploy.d/odd.sh", "{{ vm.name + 1 }}")
    write(tmp_path / "cloud.deploy.d/misspelt.sh", "rm -r /srv/{{ vm.nmae }}")
    write(tmp_path / "cloud.deploy.d/fails.sh", "{{ minion | xmlattr }}")
    (tmp_path / "cloud.deploy.d/binary.sh").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=word):
        prepare(opts, request(**deploy))


def test_a_login_key_that_cannot_be_read(opts: dict[str, Any]) -> None:
    with pytest.raises(LoginFailed):
        prepare(opts, request(), Secrets(private_key="-----BEGIN PRIVATE KEY-----\nx\n"))


def test_keys_alone_need_no_script(opts: dict[str, Any]) -> None:
    prepare(opts, request(bootstrap="keys", script="nowhere"))


def test_a_guest_that_refuses_at_once_is_knocked_at_now_and_then(monkeypatch) -> None:
    knocks: list[float] = []

    class Refused(bootstrap._Bootstrap):
        def _counting(self) -> tuple[Any, ...]:
            return ()

        def _enter(self, deadline: float) -> Any:
            knocks.append(deadline)
            raise ChannelError("its sshd and paramiko share no algorithm")

    monkeypatch.setattr(bootstrap, "SSH_TIMEOUT_S", 1.5)
    refused = Refused(None, None, None, request(), None)  # type: ignore[arg-type]
    with pytest.raises(ChannelError):
        refused._reach(())
    assert len(knocks) == 3
