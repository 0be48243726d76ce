"""A warming that was interrupted, or whose answer was lost, is taken back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    CommandFailed,
    HostError,
    HostUnreachable,
    Interrupted,
    NotFound,
    PlanRefused,
)
from saltext.kvmclone.hosts import rollback, warm_base
from saltext.kvmclone.model.record import Owner
from saltext.kvmclone.model.warmed_base import WarmedBase

WARMED = WarmedBase("debian12", "kvm01", 1, "debian12.warm1", "/pool/x.save")


class Host:
    """A host that fails so, with what that left, and how its removal fails."""

    url = "qemu:///system"

    def __init__(self, error: BaseException | None = None, left: bool = False) -> None:
        self.error, self.left = error, left
        self.refuses: BaseException | None = None
        self.token = ""
        self.cleared: list[str] = []

    def warm(self, base: str, worker: Owner) -> WarmedBase:
        self.token = worker.token
        if self.error is not None:
            raise self.error
        return WARMED

    def unfinished(self) -> list[Any]:
        mine, other = (SimpleNamespace(worker=Owner(token=one)) for one in (self.token, "other"))
        items = [SimpleNamespace(name="web1", work=other)]
        return items + [SimpleNamespace(name="debian12.warm1", work=mine)] * self.left

    def clear(self, name: str, token: str) -> list[Any]:
        if self.refuses is not None:
            raise self.refuses
        assert token == self.token
        self.cleared.append(name)
        return []


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback, "ROLLBACK_RETRY_TIMEOUT_S", 0.0)


def warmed(host: Host) -> WarmedBase:
    return warm_base.warm(host, "debian12")  # type: ignore[arg-type]


def test_what_was_warmed_is_told() -> None:
    assert warmed(Host()) == WARMED


@pytest.mark.parametrize("error", [PlanRefused("no"), NotFound("no"), CommandFailed("no")])
def test_the_host_undoes_its_own_failures(error: BaseException) -> None:
    host = Host(error, left=True)
    with pytest.raises(type(error), match=r"^\w+: no$"):
        warmed(host)
    assert host.cleared == []


@pytest.mark.parametrize("left", [True, False])
def test_an_interrupt_leaves_nothing(left: bool) -> None:
    host = Host(interrupts.Interrupt(), left)
    with pytest.raises(Interrupted) as caught:
        warmed(host)
    assert host.cleared == ["debian12.warm1"] * left
    assert ("was removed" if left else "Nothing unfinished") in caught.value.message


def test_where_the_answer_was_lost_what_was_made_is_removed() -> None:
    host = Host(HostUnreachable("No answer.", "Look."), left=True)
    with pytest.raises(HostUnreachable, match=r"No answer\. What was made of it was removed"):
        warmed(host)
    assert host.cleared == ["debian12.warm1"]


def test_what_cannot_be_removed_is_named() -> None:
    host = Host(interrupts.Interrupt(), left=True)
    host.refuses = HostError("It does not work.", "Mend it.")
    with pytest.raises(Interrupted, match=r"could not be removed: It does.*kvmclone\.gc"):
        warmed(host)
