"""What is wrong stands first, the worst before all else, each with the command that mends it."""

from __future__ import annotations

from saltext.kvmclone.display.page.problems import Step, problems
from tests.support import pictures
from tests.support.pictures import picture


def test_what_was_not_looked_at_comes_after_danger_and_before_the_rest() -> None:
    found = problems(picture())
    assert list(found) == ["danger", "unseen", "problem", "note"]
    assert [one.name for some in found.values() for one in some] == [
        "web2", "kvm04", "web3", "old1",
    ]  # fmt: skip


def test_a_finding_has_its_command_alone_so_that_it_can_be_pasted() -> None:
    (found,) = problems(picture())["problem"]
    assert found.steps == (Step("", "salt-run kvmclone.resume web3"),)


def test_of_the_hint_of_an_error_the_commands_stand_apart_from_the_words() -> None:
    hint = (
        "Is it up? salt kvm04 test.ping   Set 'host:' in its provider.   "
        "Update it: salt kvm04 saltutil.sync_all"
    )
    ((found,),) = problems(
        picture(findings=(), unseen={"kvm04": pictures.error(hint=hint)})
    ).values()
    assert found.steps == (
        Step("Is it up?", "salt kvm04 test.ping"),
        Step("Set 'host:' in its provider.", ""),
        Step("Update it:", "salt kvm04 saltutil.sync_all"),
    )


def test_an_error_without_a_hint_has_nothing_to_type() -> None:
    told = {"type": "HostError", "message": "It failed."}
    assert problems(picture(findings=(), unseen={"kvm04": told}))["unseen"][0].steps == ()


def test_a_finding_of_a_level_that_is_not_known_is_shown_all_the_same() -> None:
    (found,) = problems(picture(findings=[pictures.finding("x", level="?")], unseen={})).values()
    assert [one.name for one in found] == ["x"]
