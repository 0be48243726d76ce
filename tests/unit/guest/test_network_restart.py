"""Promises about restarting a guest's network: by whom it is in the care of, under three shells."""

from __future__ import annotations

import pytest

from saltext.kvmclone.errors import CommandFailed
from saltext.kvmclone.guest import identity
from tests.unit.guest.conftest import Guest

SYSTEMD = {"/run/systemd/system/x", "/run/systemd/netif/x", "/run/NetworkManager/x"}


def systemctl(guest: Guest, states: dict[str, str], status: int = 0) -> None:
    """A systemctl that knows these units' states, and whose restarts end with a status."""
    lines = [f"{unit}) state={state} ;;" for unit, state in states.items()]
    (guest.tools / "systemctl").write_text(
        "#!/bin/sh\n"
        "for unit; do :; done; state=inactive\ncase $unit in\n" + "\n".join(lines) + "\nesac\n"
        'case "$*" in\n'
        '*is-active*) case "$*" in *-q*) ;; *) echo $state ;; esac; [ $state = active ] ;;\n'
        f'*) echo "systemctl $*" >>{guest.root}/.called; exit {status} ;;\n'
        "esac\n"
    )


@pytest.mark.parametrize(
    ("states", "how", "called"),
    [
        ({"systemd-networkd": "active"}, "networkd", "systemctl restart systemd-networkd"),
        ({"networking": "active"}, "networking", "systemctl restart networking"),
        # Its first lease is still to come, and would go to the identity of the base.
        ({"networking": "activating"}, "networking", "systemctl restart networking"),
        ({"dhcpcd": "active"}, "dhcpcd", "systemctl restart dhcpcd"),
        ({"wicked": "active", "networking": "failed"}, "wicked", "systemctl restart wicked"),
    ],
)
def test_who_is_in_charge_is_restarted(
    guest: Guest, states: dict[str, str], how: str, called: str
) -> None:
    for path in SYSTEMD:
        guest.put(path)
    systemctl(guest, states)
    done = identity.rejoin_network(guest)
    assert (done.how, done.warnings) == (how, ())
    assert guest.services == [called]


def test_networkmanager_takes_its_cards_down_and_up(guest: Guest) -> None:
    for path in SYSTEMD:
        guest.put(path)
    guest.tool("nmcli")
    systemctl(guest, {"NetworkManager": "active"})
    assert identity.rejoin_network(guest).how == "NetworkManager"
    assert guest.services == [
        "systemctl restart NetworkManager",
        "nmcli networking off",
        "nmcli networking on",
    ]


def test_without_systemd_the_init_script_does_it(guest: Guest) -> None:
    script = guest.put("/etc/init.d/networking", "", 0o755)
    script.write_text(f'#!/bin/sh\necho "networking $*" >>{guest.root}/.called\n')
    assert identity.rejoin_network(guest).how == "networking"
    assert guest.services == ["networking restart"]


@pytest.mark.parametrize("systemd", [True, False])
def test_where_nobody_known_is_in_charge_the_clone_says_so(guest: Guest, systemd: bool) -> None:
    if systemd:
        guest.put("/run/systemd/system/x")
        systemctl(guest, {})
    (warning,) = identity.rejoin_network(guest).warnings
    assert "until it reboots" in warning
    assert guest.services == []


def test_a_network_that_does_not_come_back_is_a_failure(guest: Guest) -> None:
    guest.put("/run/systemd/system/x")
    systemctl(guest, {"networking": "active"}, status=1)
    with pytest.raises(CommandFailed, match="restarting the network"):
        identity.rejoin_network(guest)


def test_a_service_whose_processes_are_seen_is_not_asked_for(guest: Guest) -> None:
    for path in (*SYSTEMD, "/sys/fs/cgroup/system.slice/systemd-networkd.service/x"):
        guest.put(path)
    systemctl(guest, {})  # which would say that it is inactive
    assert identity.rejoin_network(guest).how == "networkd"


@pytest.mark.parametrize("status", [0, 1])
def test_it_can_be_the_end_of_the_command_that_resets_the_identity(
    guest: Guest, status: int
) -> None:
    for path in SYSTEMD:
        guest.put(path)
    systemctl(guest, {"systemd-networkd": "active"}, status)
    if status:
        with pytest.raises(CommandFailed):
            identity.reset(guest, "web1", keys=(), rejoins=True)
        return
    done = identity.reset(guest, "web1", keys=(), rejoins=True)
    assert guest.calls == 1 and done.warnings == ()
    assert all(step.name for step in done.steps)
    assert guest.services[-1] == "systemctl restart systemd-networkd"


def test_a_network_that_nobody_restarts_is_a_warning_of_the_reset(guest: Guest) -> None:
    (warning,) = identity.reset(guest, "web1", keys=(), rejoins=True).warnings
    assert "was not restarted" in warning
