"""A request is recognized when it is repeated, also after an upgrade."""

from __future__ import annotations

from dataclasses import replace

from saltext.kvmclone.model.request import Request, Secrets

REQUEST = Request("web1", "base", clone_strategy="quick", tags=("a",))


def test_a_request_keeps_its_digest_over_versions() -> None:
    """
    A create that an earlier version began is gone on with only where the digest is the same: leave
    a new field out of the digest while it has its default.
    """
    assert REQUEST.digest() == "7622b1d2869ca612"
    assert Secrets(seed=(("user-data", "x"),)).digest_of(REQUEST) == "2387c480d5148da4"


def test_another_request_has_another_digest() -> None:
    assert replace(REQUEST, cpus=2).digest() != REQUEST.digest()
    assert Secrets(seed=(("user-data", "y"),)).digest_of(REQUEST) != Secrets().digest_of(REQUEST)
