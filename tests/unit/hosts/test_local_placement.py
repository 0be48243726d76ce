"""A host checks again what the master decided, before it defines a clone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from saltext.kvmclone.errors import HostFull
from saltext.kvmclone.hosts import local_placement
from saltext.kvmclone.hosts.local_placement import admitted
from saltext.kvmclone.model.placement import HostOffer, Need, Placed
from saltext.kvmclone.model.request import Request


def test_a_clone_that_must_be_apart_is_refused_beside_one_that_came_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer = HostOffer(2**40, 64, tags={"db": 1})
    monkeypatch.setattr(local_placement.promises, "look", lambda _host: offer)
    monkeypatch.setattr(local_placement.host_offer, "need_of", lambda _plan: Need())
    host: Any = SimpleNamespace(url="test:///apart", node_name=lambda: "kvm01")
    request = Request("web1", "base", placed=Placed(apart="db"))
    plan: Any = SimpleNamespace(request=request)
    refused = pytest.raises(HostFull, match="has a clone with the tag 'db' already")
    with refused, admitted(host, plan):
        raise AssertionError("it is refused before")
    for placed in (Placed(apart="web"), Placed()):
        plan.request = replace(request, placed=placed)
        with admitted(host, plan):
            pass
