"""A real guest is made ready, saved, and goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.common import LIBVIRT_URI
from lab.lab import Lab
from saltext.kvmclone.errors import NotWarmed
from saltext.kvmclone.guest.agent import AgentChannel
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import warm_images
from saltext.kvmclone.model.hints import AT_HOST, Commands
from tests.support.debian_guests import until
from tests.support.hints import Typist, hint, tries
from tests.support.world import World

pytestmark = pytest.mark.guest

TIMER = """[Timer]
OnBootSec=1h
[Install]
WantedBy=timers.target
"""


def with_a_past(root: Path) -> None:
    """A base with a timer, a random seed, and a minion that was one before."""
    unit = root / "etc/systemd/system/work.timer"
    unit.write_text(TIMER)
    unit.with_suffix(".service").write_text("[Service]\nExecStart=/bin/true\n")
    wants = root / "etc/systemd/system/timers.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "work.timer").symlink_to("/etc/systemd/system/work.timer")
    (root / "etc/salt/pki/minion").mkdir(parents=True, exist_ok=True)
    (root / "etc/salt/pki/minion/minion.pem").write_text("canary")


@tries("warm_images.usable")
def test_a_guest_that_is_warmed_sleeps_and_has_nothing_that_is_its_own(
    lab: Lab, world: World, typist: Typist
) -> None:
    base = lab.debian_base(world.name("base"), change=with_a_past)
    with Host(LIBVIRT_URI, commands=Commands(LIBVIRT_URI, AT_HOST)) as opened:
        handle = opened.domain(base)
        typist(hint(NotWarmed, lambda: warm_images.usable(opened, handle), "not warmed"))
        image = warm_images.usable(opened, handle)
        # Nobody does this but a test: what was saved is used up by it.
        for disk in world.disks(image.handle.name):
            disk.chmod(0o600)
        opened.call(opened.raw.restoreFlags, image.path, None, 0)
        channel = AgentChannel(image.handle.agent)
        until(lambda: image.handle.agent_connected())

        def said(command: str) -> str:
            return channel.run(command, timeout=60).output.strip()

        assert said("systemctl list-jobs --no-legend") == ""
        assert said("systemctl is-active work.timer") == "inactive"
        assert said("readlink /run/systemd/system/work.timer") == "/dev/null"
        # A minion waits, as the service's own process, and the service is what it always was.
        waiting = said("cat /run/kvm-clone-preload/waiting")
        assert said("systemctl show -p MainPID --value salt-minion") == waiting
        assert said(f"cat /proc/{waiting}/comm") == "kvm-clone-wait"
        assert said("cat /run/systemd/system/salt-minion.service.d/* 2>/dev/null") == ""
        started = said("systemctl show -p ExecStart salt-minion")
        assert "argv[]=/usr/local/bin/salt-minion ;" in started
        assert said("ls -A /var/cache/salt /etc/salt/minion_id /var/log/salt 2>/dev/null") == (
            "/var/cache/salt:\n\n/var/log/salt:"
        )
        assert said("ls /etc/salt/pki/minion /var/lib/systemd/random-seed 2>/dev/null") == (
            "/etc/salt/pki/minion:"
        )
        assert said("ls /sys/class/net") == "lo"
        assert "was started, and is running" in warm_images.fault(opened, image, handle)
        image.handle.power_off()
    assert LocalHost(LIBVIRT_URI).unwarm(base).removed
