"""What ``make test`` forgives, and what it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.common import CHECKOUT
from tests.twice import FEW

#: The plugins of Salt and hypothesis take longer to load than these tests to run.
ENVIRONMENT = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

#: Fails as often as its argument says, over all processes that run it.
FICKLE = """\
import pathlib
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_fickle(number):
    tries = pathlib.Path("tries-" + str(number))
    before = len(tries.read_text()) if tries.exists() else 0
    tries.write_text("x" * (before + 1))
    assert before >= {fails}

@pytest.fixture
def leaving():
    yield
    tries = pathlib.Path("left")
    first = not tries.exists()
    tries.touch()
    assert not ({leaves} and first)

def test_steady(leaving):
    pass
"""


def tried(folder: Path, count: int = 1, fails: int = 0, leaves: bool = False) -> tuple[int, str]:
    text = FICKLE.format(count=count, fails=fails, leaves=leaves)
    (folder / "test_fickle.py").write_text(text)
    for name in ("one", "two"):  # folders with a conftest of their own, as ours are
        (folder / name).mkdir()
        (folder / name / "conftest.py").touch()
        (folder / name / f"test_{name}.py").write_text("def test_it():\n    pass\n")
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
    words = [sys.executable, CHECKOUT / "tests/twice.py", "."]
    done = subprocess.run(
        words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


def test_a_test_that_fails_once_is_forgiven_and_named(tmp_path: Path) -> None:
    code, said = tried(tmp_path, fails=1)
    assert code == 0
    assert "FLICKERED" in said and "test_fickle.py::test_fickle[0]" in said.splitlines()[-1]
    assert "test_steady" not in said.splitlines()[-1]


def test_a_test_that_fails_while_it_tidies_up_is_tried_again_as_well(tmp_path: Path) -> None:
    code, said = tried(tmp_path, leaves=True)
    assert code == 0
    assert "test_fickle.py::test_steady" in said.splitlines()[-1]


def test_a_test_that_fails_twice_has_failed(tmp_path: Path) -> None:
    code, said = tried(tmp_path, fails=2)
    assert code == 1
    assert "FLICKERED" not in said


def test_many_failures_are_not_tried_again(tmp_path: Path) -> None:
    code, said = tried(tmp_path, count=FEW + 1, fails=1)
    assert code == 1
    assert "once more" not in said


@pytest.mark.parametrize(("words", "code"), [("-k nothing", 5), ("--no-such-word", 4)])
def test_other_endings_stay_as_they_are(tmp_path: Path, words: str, code: int) -> None:
    (tmp_path / "test_fickle.py").write_text("def test_one():\n    pass\n")
    command = [sys.executable, CHECKOUT / "tests/twice.py", "test_fickle.py", *words.split()]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, check=False)
    assert done.returncode == code
