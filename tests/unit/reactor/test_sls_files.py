"""What reactor/README.md and the headers of the SLS files say to paste is right, and the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from saltext.kvmclone.reactor import policy, policy_section

FOLDER = Path(__file__).parents[3] / "reactor"
README = (FOLDER / "README.md").read_text()
MASTER: dict[str, Any] = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", README, re.S)[0])
FILES = sorted(FOLDER.glob("*.sls"))


def test_the_policy_in_the_readme_is_a_policy_that_obeys_what_it_shows() -> None:
    read = policy_section.read(MASTER["kvm_clone"]["reactor"])
    assert all(read.answers(bell) for bell in policy.BELLS)
    assert set(read.rules[0].overrides) == set(policy.OVERRIDABLE)
    assert (read.workers, read.queue, read.patience) == (2, 100, 3600)
    assert policy.Policy(workers=2, queue=100, patience=3600) == policy.Policy(), "the defaults"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_header_shows_the_lines_of_the_readme(path: Path) -> None:
    head = path.read_text().partition("\n{%")[0].splitlines()
    shown = [line[4:] for line in head if line.startswith("#   ")]
    (mapped,) = yaml.safe_load("\n".join(shown))["reactor"]
    assert mapped in MASTER["reactor"]
    assert next(iter(mapped.values())) == [f"salt://reactor/{path.name}"]


def test_every_bell_has_one_file() -> None:
    assert len(FILES) == len(MASTER["reactor"]) == len(policy.BELLS)
    bells = {re.search(r"- bell: (\w+)", path.read_text())[1] for path in FILES}  # type: ignore[index]
    assert bells == set(policy.BELLS)
