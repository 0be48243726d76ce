"""paramiko is missing, or too old: ssh says so, and nothing else notices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]

ENTER = """
import sys
from saltext.kvmclone import errors
from saltext.kvmclone.hosts import local, provision
from saltext.kvmclone.lifecycle import bootstrap
from saltext.kvmclone.guest import ssh
from saltext.kvmclone.model.request import Login, Secrets
try:
    ssh.connect("192.0.2.1", Login(), Secrets(password="x"), deadline=0)
except errors.MissingPackage as error:
    print(error.message)
    print(error.hint)
"""

#: What a package of that name does when it is imported.
PACKAGES = {
    "missing": "raise ModuleNotFoundError(\"No module named 'paramiko'\", name='paramiko')",
    "too old": "class SSHException(Exception): ...\n",
    "too old for cryptography": "import cryptography\ncryptography.gone\n",
}


def said(tmp_path: Path, package: str) -> list[str]:
    (tmp_path / "paramiko").mkdir()
    (tmp_path / "paramiko/__init__.py").write_text(package)
    described = tmp_path / "paramiko-2.12.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: paramiko\nVersion: 2.12.0\n")
    done = subprocess.run(
        [sys.executable, "-c", ENTER],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{CHECKOUT}/_utils"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_paramiko_that_cannot_serve_is_named_with_the_line_that_installs_it(
    tmp_path: Path, kind: str
) -> None:
    message, hint = said(tmp_path, PACKAGES[kind])
    assert "3.2 or newer" in message
    assert "2.12.0" in message
    assert "salt-pip install 'paramiko>=3.2'" in hint


def test_a_wheel_and_the_hint_ask_for_the_same_paramiko() -> None:
    assert "\n    paramiko>=3.2\n" in (CHECKOUT / "setup.cfg").read_text()
    assert "'paramiko>=3.2'" in (CHECKOUT / "README.md").read_text()
