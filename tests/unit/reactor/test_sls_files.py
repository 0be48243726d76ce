"""What reactor/README.md and the headers of the SLS files say to paste is right, and the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jinja2
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


def render(
    answer: dict[str, Any], asked: list[Any], pillar: dict[str, str], test: bool = False
) -> str:
    """
    The text of the orchestration with a spare, with what it asked.

    :param answer: Of the claim.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, extensions=["jinja2.ext.do"])
    environment.filters["json"] = json.dumps

    def runner(function: str, **keys: Any) -> dict[str, Any]:
        asked.append((function, keys["arg"], keys["kwarg"]))
        return answer

    text = (FOLDER / "orchestrate/claimed.sls").read_text()
    told = environment.from_string(text).render(
        salt={"saltutil.runner": runner}, pillar=pillar, opts={"test": test}
    )
    return str(told)


def rendered(answer: dict[str, Any], test: bool = False) -> dict[str, Any]:
    """The orchestration with a spare, as it is after a claim that was answered so."""
    asked: list[Any] = []
    text = render(answer, asked, {"profile": "ci", "sls": "build"}, test)
    assert asked == [("kvmclone.claim", ["ci"], {"ttl": "1h"})] * (not test)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_the_orchestration_works_on_what_it_claimed_and_gives_it_back() -> None:
    states = rendered({"clones": {"ci-00000a": {}}, "retcode": 0})
    assert list(states) == ["a machine", "work on ci-00000a", "give ci-00000a back"]
    assert {"tgt": "ci-00000a"} in states["work on ci-00000a"]["salt.state"]
    given_back = states["give ci-00000a back"]["salt.runner"]
    assert given_back[:2] == [{"name": "kvmclone.release"}, {"arg": ["ci-00000a"]}]


def test_the_orchestration_claims_nothing_where_its_pillar_names_no_state() -> None:
    asked: list[Any] = []
    with pytest.raises(TypeError):
        render({"clones": {"ci-00000a": {}}, "retcode": 0}, asked, {"profile": "ci"})
    assert asked == [], "a machine that is claimed stays until its ttl is over"


def test_the_orchestration_ends_with_the_reason_where_nothing_was_claimed() -> None:
    (state,) = rendered({"error": {"message": "no spare: 0"}, "retcode": 1}).values()
    assert {"result": False} in state["test.configurable_test_state"]
    assert {"comment": "no spare: 0"} in state["test.configurable_test_state"]


def test_the_orchestration_claims_nothing_where_it_is_only_tried() -> None:
    (state,) = rendered({"clones": {"ci-00000a": {}}, "retcode": 0}, test=True).values()
    assert {"changes": True} in state["test.configurable_test_state"]
    assert {"comment": "one would be claimed"} in state["test.configurable_test_state"]
