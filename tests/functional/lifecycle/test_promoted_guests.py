"""One real guest becomes a base, and two clones of that come up beside each other."""

from __future__ import annotations

import pytest

from lab.common import LIBVIRT_URI
from lab.lab import Lab
from saltext.kvmclone.hosts.local import LocalHost
from tests.support.debian_guests import Guest, boot
from tests.support.world import World, at_once

pytestmark = [pytest.mark.guest, pytest.mark.long]

#: What makes a guest a machine of its own, one line each.
IDENTITY = (
    "cat /etc/machine-id; cat /etc/ssh/ssh_host_ed25519_key.pub; hostname -I | cut -d' ' -f1; "
    "hostname"
)

#: Where the name of a machine may be left, but for what the system logs.
PLACES = "/etc /var/lib /var/cache/salt /var/log/salt /root"


def test_two_clones_of_a_promoted_minion_are_two_machines(lab: Lab, world: World) -> None:
    host = LocalHost(LIBVIRT_URI, label="kvm01")
    first = boot(lab, host, lab.debian_base(world.name("base")), world.name("minion"))
    first.bootstrap("keys")
    marks = (first.name, *first.said(IDENTITY).splitlines()[:2])
    host.power(first.name, "stop")
    base = world.name("golden")
    told = host.promote(first.name, base)
    assert told["warnings"] == []
    assert not world.exists(first.name)

    def made(word: str) -> Guest:
        return boot(lab, host, base, world.name(word))

    guests = at_once(lambda: made("one"), lambda: made("two"))
    try:
        seen = [guest.said(IDENTITY).splitlines() for guest in guests]
        for lines, guest in zip(seen, guests, strict=True):
            assert lines[3] == guest.name
            assert lines[2] == host.show(guest.name).address
            assert not set(lines) & set(marks)
            words = " ".join(f"-e '{mark}'" for mark in marks)
            left = guest.said(f"grep -rsF {words} {PLACES} || true")
            assert left == "", f"of the first one is left: {left}"
            assert guest.said("systemctl is-enabled salt-minion") == "enabled"
            assert guest.said("systemctl is-active ssh") == "active"
        assert not set(seen[0]) & set(seen[1])
        guests[0].bootstrap("keys")
        assert guests[0].said("cat /etc/salt/minion_id") == guests[0].name
    finally:
        for guest in guests:
            host.destroy(guest.name)
