"""Where there can be no fork, the plan says why, or is that of a quick clone which says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from saltext.kvmclone.errors import NotWarmed, WarmImageUnusable
from saltext.kvmclone.inventory import clone_planning
from saltext.kvmclone.model.facts import HostFacts
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan.clone_plan import ClonePlan
from tests.support.plans import BASE, FACTS
from tests.unit.plan.test_fork import WITH_AGENT, warmed_xml

REQUIRED = Request(name="web1", base_domain="base", clone_strategy="instant")
PREFERRED = replace(REQUIRED, instant="prefer")
AUTO = replace(REQUIRED, warm="auto")


class Host:
    """A host with a base that may be warmed."""

    url = "qemu:///system"

    def __init__(self, base: str = WITH_AGENT, fault: Exception | None = None) -> None:
        self.local = True
        self.base = base
        self.fault = fault
        self.memory = Path("base.warm1-memory.save")

    def domain(self, name: str) -> Any:
        xml = warmed_xml() if name == "base.warm1" else self.base
        return SimpleNamespace(
            name=name, uuid="b" * 36, was_off=True, definition=lambda: xml, state=lambda: "shutoff"
        )

    def usable(self, *_: Any) -> Any:
        if self.fault is not None:
            raise self.fault
        return SimpleNamespace(handle=self.domain("base.warm1"), path=str(self.memory))

    def facts(self, host: Any, request: Request, _taken: Any, definition: str = "") -> HostFacts:
        xml = definition or self.domain(request.base_domain).definition()
        return replace(FACTS, base_xml=xml, local=self.local)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The plan that a host makes for a request."""

    def compute(host: Host, request: Request, **how: Any) -> ClonePlan:
        host.memory = tmp_path / host.memory.name
        host.memory.touch()
        monkeypatch.setattr(clone_planning.warm_images, "usable", host.usable)
        monkeypatch.setattr(clone_planning.host_facts, "facts", host.facts)
        told: Any = host
        return clone_planning.compute(told, request, **how)

    return compute


def test_a_warmed_base_is_forked(planned: Any) -> None:
    for request in (REQUIRED, PREFERRED, AUTO):
        plan = planned(Host(), request)
        assert (plan.warmed, plan.record.strategy, plan.conflicts) == ("base.warm1", "instant", ())


@pytest.mark.parametrize("fault", [NotWarmed("not warmed"), WarmImageUnusable("other QEMU")])
def test_without_a_memory_a_fork_that_is_required_is_an_error(
    planned: Any, fault: Exception
) -> None:
    with pytest.raises(type(fault)):
        planned(Host(fault=fault), REQUIRED)
    for request in (PREFERRED, AUTO):
        plan = planned(Host(fault=fault), request)
        assert (plan.warmed, plan.record.strategy, plan.conflicts) == ("", "quick", ())
        assert str(fault.args[0] if fault.args else fault) in plan.warnings[0]
        assert plan.record.warnings == plan.warnings
        assert plan.record.request == request.digest()


def test_why_a_base_cannot_even_be_warmed_is_said_at_once(planned: Any) -> None:
    tpm = "<tpm model='tpm-crb'><backend type='emulator'/></tpm></devices>"
    host = Host(WITH_AGENT.replace("</devices>", tpm), NotWarmed("not warmed"))
    for request in (REQUIRED, AUTO):
        plan = planned(host, request)
        assert any("<tpm>" in why for why in plan.conflicts)
        assert plan.request.clone_strategy == "instant"


def test_over_a_remote_url_there_are_no_forks(planned: Any) -> None:
    host = Host()
    host.local = False
    assert any("'host:'" in why for why in planned(host, REQUIRED).conflicts)


def test_what_would_make_another_machine_of_it_is_refused_or_made_as_a_quick_clone(
    planned: Any,
) -> None:
    asked = {"cpus": 2}
    assert "'cpus'" in planned(Host(), replace(REQUIRED, **asked)).conflicts[0]
    assert "'cpus'" in planned(Host(), replace(AUTO, **asked)).conflicts[0]
    plan = planned(Host(), replace(PREFERRED, **asked))
    assert plan.record.strategy == "quick" and "'cpus'" in plan.warnings[0]


def test_a_clone_that_is_left_off_is_no_fork(planned: Any) -> None:
    assert "start=False" in planned(Host(), REQUIRED, starts=False).conflicts[0]
    assert planned(Host(), PREFERRED, starts=False).record.strategy == "quick"


def test_other_strategies_ask_for_no_memory(planned: Any) -> None:
    plan = planned(Host(BASE, NotWarmed("asked")), replace(REQUIRED, clone_strategy="quick"))
    assert (
        plan.record.strategy == "quick"
        and plan.warnings == planned(Host(), replace(REQUIRED, clone_strategy="quick")).warnings
    )
