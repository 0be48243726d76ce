"""A host's own state is a finding where it is certain and costs something, and only there."""

from __future__ import annotations

import pytest

from saltext.kvmclone.inventory import host_findings
from saltext.kvmclone.inventory.findings import Finding
from saltext.kvmclone.inventory.host_findings import Surroundings
from saltext.kvmclone.model.facts import HostEntry, Lease, NetworkFacts, Subnet
from saltext.kvmclone.model.hints import Commands

HOST = Commands(minion="kvm01")


def found(**seen: object) -> list[Finding]:
    return list(host_findings.find(Surroundings(**seen), HOST))  # type: ignore[arg-type]


def network(last: int, leased: int, *entries: int) -> NetworkFacts:
    """A network that hands out 10.0.0.1 to 10.0.0.LAST, of which the first are leased."""
    return NetworkFacts(
        "lan",
        subnets=(
            Subnet(0, "10.0.0.254/24", True, (("10.0.0.1", f"10.0.0.{last}"),)),
            Subnet(1, "fd00::1/64", True, (("fd00::2", "fd00::3"),)),
        ),
        leases=tuple(Lease(f"m{n}", f"10.0.0.{n}", 24, "ipv4", 0, "") for n in range(1, leased + 1))
        + (Lease("m", "fd00::2", 64, "ipv6", 0, ""),),
        # One that gives its machine a name, and no address.
        live=(
            *(HostEntry(f"e{n}", f"10.0.0.{n}") for n in entries),
            HostEntry("e", "", "web1"),
        ),
    )


def test_a_healthy_host_has_nothing() -> None:
    assert found() == []
    libvirts_own = {"virbr0": host_findings.DELAY_S, "br0": 0.0}
    assert found(latency=0.1, delays=libvirts_own, networks=(network(200, 20),)) == []


@pytest.mark.parametrize(
    ("last", "leased", "entries", "room"),
    [
        (200, 179, (), None),
        (200, 180, (), (20, 200)),
        (200, 170, (171, 172, 172, 100), None),
        (200, 170, (*range(171, 181), 250), (20, 200)),  # 250 is outside of what is handed out
        (20, 15, (), None),
        (20, 16, (), (4, 20)),
        (3, 1, (), None),
        (3, 2, (), (1, 3)),
        (1, 0, (), None),
        (1, 1, (), (0, 1)),
    ],
)
def test_few_addresses_are_left_counted_as_libvirt_hands_them_out(
    last: int, leased: int, entries: tuple[int, ...], room: tuple[int, int] | None
) -> None:
    one = network(last, leased, *entries)
    told = found(networks=(one,))
    if room is None:
        assert told == []
        return
    assert host_findings.room(one) == room
    (finding,) = told
    assert (finding.kind, finding.name, finding.level) == ("dhcp-range-full", "lan", "problem")
    assert f"{room[0]} of" in finding.message
    assert finding.hint == ("salt kvm01 cmd.run 'virsh -c qemu:///system net-dhcp-leases lan'")


def test_a_network_without_a_range_hands_out_nothing_that_could_be_few() -> None:
    assert found(networks=(NetworkFacts("isolated"),)) == []


def test_a_bridge_that_holds_every_boot_back_is_worth_a_note() -> None:
    (finding,) = found(delays={"br0": 30.0, "virbr0": 4.0})
    assert (finding.kind, finding.level) == ("bridge-delay", "note")
    assert "first 30 seconds" in finding.message
    assert finding.hint.endswith("'ip link set br0 type bridge forward_delay 200'")


def test_a_daemon_that_takes_long_for_nothing_is_a_problem() -> None:
    (finding,) = found(latency=1.25)
    assert (finding.kind, finding.level) == ("libvirt-slow", "problem")
    assert "1.2 seconds" in finding.message


def test_files_that_selinux_keeps_from_guests_are_a_problem_with_the_switch_to_turn() -> None:
    (finding,) = found(closed={"virt_use_nfs": ("/srv/b", "/srv/a")})
    assert (finding.kind, finding.level) == ("selinux-denies", "problem")
    assert "'/srv/a' and '/srv/b'" in finding.message
    assert finding.hint == "salt kvm01 cmd.run 'setsebool -P virt_use_nfs on'"


def test_what_a_copy_left_is_named_with_the_command_that_removes_it() -> None:
    (finding,) = found(copies={"debian12": ("/root/.ssh/authorized_keys",)})
    assert (finding.kind, finding.level) == ("copy-left", "problem")
    assert "/root/.ssh/authorized_keys" in finding.message
    assert finding.hint == "salt-run kvmclone.gc debian12 apply=True"
