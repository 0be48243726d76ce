"""Whoever logs in for a copy gets the files of that copy, whatever they ask for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from saltext.kvmclone.system import copy_folder, export_folder

COPY = "0123456789abcdef"

pytestmark = pytest.mark.skipif(not shutil.which("rsync"), reason="needs rsync")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is offered; its ``shell`` does what sshd does with the one command."""
    monkeypatch.setattr(copy_folder, "ROOT", str(tmp_path / "copies"))
    copy_folder.make(COPY, "base")
    (tmp_path / "disk").write_bytes(b"the disk" * 1000)
    (tmp_path / "secret").write_bytes(b"not offered")
    export_folder.make(COPY, {"vda": str(tmp_path / "disk")}, ("definition", "<domain/>"))
    shell = tmp_path / "shell"
    shell.write_text(
        '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift 2; done; shift\n'
        f'SSH_ORIGINAL_COMMAND="$*" exec {export_folder.command(COPY)}\n'
    )
    shell.chmod(0o755)
    return shell


def rsync(shell: Path, name: str, target: Path, *options: str) -> int:
    words = ["rsync", *(options or export_folder.OPTIONS), "-e", str(shell), f"host:{name}"]
    return subprocess.run([*words, str(target)], capture_output=True, check=False).returncode


def served(command: str) -> int:
    words = export_folder.command(COPY).split()
    environment = {**os.environ, "SSH_ORIGINAL_COMMAND": command}
    done = subprocess.run(
        words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return done.returncode


def test_what_is_offered_can_be_fetched(shell: Path, tmp_path: Path) -> None:
    assert rsync(shell, "vda", tmp_path / "got") == 0
    assert (tmp_path / "got").read_bytes() == b"the disk" * 1000
    assert rsync(shell, "definition", tmp_path / "xml") == 0
    assert (tmp_path / "xml").read_text() == "<domain/>"
    assert (tmp_path / f"copies/{COPY}/export/definition").stat().st_mode & 0o777 == 0o600


def test_a_fetch_goes_on_with_what_is_there(shell: Path, tmp_path: Path) -> None:
    got = tmp_path / "got"
    got.write_bytes((b"the disk" * 1000)[:5000])
    inode = got.stat().st_ino
    assert rsync(shell, "vda", got) == 0
    assert (got.read_bytes(), got.stat().st_ino) == (b"the disk" * 1000, inode)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", ".", "vda/..", "nothing", "lock", ""])
def test_nothing_else_can_be_fetched(shell: Path, tmp_path: Path, name: str) -> None:
    if name.startswith("..") or name == "lock":
        assert (tmp_path / f"copies/{COPY}/{name}").parent.exists()
    assert rsync(shell, name, tmp_path / "got") != 0
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize(
    "command",
    [
        "", "sh", "rsync --server . vda", "rsync --server -e.LsfxCIvu . vda",
        "rsync --server --sender -e.L;id . vda", "rsync --server --sender --daemon . vda",
        "rsync --server --sender -e.LsfxC . $(id)", "rsync --server --sender -e. . *",
    ],
)  # fmt: skip
def test_no_other_command_runs(shell: Path, command: str) -> None:
    assert served(command) == 1


def test_options_of_the_other_end_count_for_nothing(shell: Path, tmp_path: Path) -> None:
    """It cannot have files removed at the source, nor written there."""
    rsync(shell, "vda", tmp_path / "got", "--remove-source-files", "-LtSz", "--inplace")
    assert (tmp_path / "disk").exists()
    sent = ["rsync", "-e", str(shell), str(tmp_path / "secret"), "host:vda"]
    assert subprocess.run(sent, capture_output=True, check=False).returncode != 0
    assert (tmp_path / "disk").read_bytes() == b"the disk" * 1000
