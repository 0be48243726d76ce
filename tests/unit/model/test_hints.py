"""A command in a hint is one that works where the hint is read."""

from __future__ import annotations

import pytest

from saltext.kvmclone.model.hints import AT_HOST, AT_MASTER, Commands
from saltext.kvmclone.model.request import DEFAULT_URL


@pytest.mark.parametrize(
    ("commands", "profile", "command"),
    [
        (Commands(DEFAULT_URL, AT_MASTER, "kvm01"), "web", "salt-run kvmclone.resume web1"),
        (Commands(DEFAULT_URL, AT_MASTER, "kvm01"), "", "salt kvm01 kvm_clone.resume web1"),
        (Commands(DEFAULT_URL, AT_MASTER), "", "salt-call kvm_clone.resume web1"),
        (Commands("x:///", AT_MASTER), "", "salt-call kvm_clone.resume web1 url=x:///"),
        (Commands(DEFAULT_URL, AT_HOST), "web", "salt-call kvm_clone.resume web1"),
        (Commands(DEFAULT_URL, AT_HOST), "", "salt-call kvm_clone.resume web1"),
    ],
)
def test_a_create_without_a_profile_is_resumed_on_its_host(
    commands: Commands, profile: str, command: str
) -> None:
    assert commands.resume("web1", profile) == command
