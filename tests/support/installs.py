"""Throw-away environments: everything of a cached one, and a place of its own to install into."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from lab.common import CACHE, CHECKOUT, LabError, run, write

#: Environments by Salt line; ``lab/setup.sh all`` makes them.
LINES = {"3008": CACHE / "venv", "3007": CACHE / "venv-3007", "3006": CACHE / "venv-3006"}

#: What a user gets by ``git clone``, as far as Salt and pip look at it.
DOORS = ("_modules", "_runners", "_states", "_clouds", "_beacons", "_output")
PROJECT = ("_utils", *DOORS, "setup.py", "setup.cfg", "pyproject.toml", "LICENSE", "README.md")

_PURELIB = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def cached(line: str) -> Path:
    """The environment of a Salt line."""
    venv = LINES[line]
    if not (venv / "bin/salt-master").exists():
        raise LabError(f"there is no environment for Salt {line}; make it: lab/setup.sh all")
    return venv


def site_packages(venv: Path) -> Path:
    return venv / _PURELIB


def export(folder: Path, parts: tuple[str, ...] = PROJECT) -> Path:
    """A copy of the checkout without anything that Python or pip left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        source = CHECKOUT / part
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pyc")
            shutil.copytree(source, folder / part, ignore=ignored, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy(source, folder / part)
    return folder


def environment(folder: Path, base: Path) -> Path:
    """A virtual environment that sees ``base`` and can be installed into; nothing is downloaded."""
    run([base / "bin/python", "-m", "venv", "--without-pip", folder])
    write(site_packages(folder) / "base.pth", f"{site_packages(base)}\n")
    for program in (base / "bin").glob("salt*"):
        first, _, rest = program.read_text(encoding="utf-8").partition("\n")
        assert first.startswith("#!"), program
        write(folder / "bin" / program.name, f"#!{folder}/bin/python\n{rest}", 0o755)
    return folder


def install(venv: Path, *words: str | Path) -> None:
    """``pip install WORDS``, without dependencies and without a network."""
    options = ["--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
    run([venv / "bin/python", "-m", "pip", "install", *options, *words])


def wheel(project: Path, folder: Path) -> Path:
    """The project's wheel, built as ``pip wheel`` does it, with the tools that are here."""
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    pip = [cached("3008") / "bin/python", "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "wheel", *options, "--wheel-dir", folder, project])
    (built,) = folder.glob("*.whl")
    return built


def without(venv: Path, *packages: str) -> None:
    """From now on, importing these packages fails there as if they were not installed."""
    blocker = f"""\
import sys


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {set(packages)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Blocker())
"""
    write(site_packages(venv) / "not_installed.py", blocker)
    write(site_packages(venv) / "not_installed.pth", "import not_installed\n")
