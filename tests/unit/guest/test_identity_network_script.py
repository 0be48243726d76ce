"""What ties a guest's network to its base goes, in every shell that is here."""

from __future__ import annotations

import os

import pytest

from tests.support.identities import outcome, reset


def test_what_ties_the_network_to_the_cards_of_the_base_goes(guest):
    guest.put("/etc/udev/rules.d/70-persistent-net.rules", "old")
    guest.put("/etc/udev/rules.d/60-mine.rules", "mine")
    card = guest.put("/etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nHWADDR=52:54:0\n")
    assert outcome(reset(guest))["network_cards"] == "done"
    assert os.listdir(guest.root / "etc/udev/rules.d") == ["60-mine.rules"]
    assert card.read_text() == "DEVICE=eth0\n"


def card(guest, name, address):
    guest.put(f"/sys/class/net/{name}/address", f"{address}\n")
    guest.put(f"/sys/class/net/{name}/device/vendor")


CONFIGURATIONS = [
    "/etc/NetworkManager/system-connections/wired.nmconnection",
    "/etc/NetworkManager/system-connections/Wired connection 1.nmconnection",
    "/etc/netplan/50-cloud-init.yaml",
    "/etc/systemd/network/10-lan.network",
    "/etc/network/interfaces",
]
OTHER = "fd00:52:54:00:12:34:56:78 52:54:00:12:34:56:78 is an address of another kind\n"


@pytest.mark.parametrize("path", CONFIGURATIONS)
def test_a_configuration_that_is_bound_to_the_card_of_the_base_is_bound_to_this_one(guest, path):
    card(guest, "eth0", "52:54:00:aa:bb:cc")
    guest.put("/sys/class/net/lo/address", "00:00:00:00:00:00\n")
    file = guest.put(
        path, f"{OTHER}macaddress: '52:54:00:12:AB:56'\nMACAddress=52:54:00:12:ab:56\n"
    )
    done = reset(guest)
    assert outcome(done)["network_cards"] == "done"
    assert file.read_text() == (
        f"{OTHER}macaddress: '52:54:00:aa:bb:cc'\nMACAddress=52:54:00:aa:bb:cc\n"
    )
    assert done.warnings == ()


@pytest.mark.parametrize("path", CONFIGURATIONS)
def test_where_more_than_one_card_could_be_meant_nothing_is_guessed(guest, path):
    card(guest, "eth0", "52:54:00:aa:bb:cc")
    card(guest, "eth1", "52:54:00:aa:bb:dd")
    text = "52:54:00:aa:bb:cc and 52:54:00:12:ab:56\n"
    file = guest.put(path, text)
    done = reset(guest)
    assert outcome(done)["network_cards"] == "skipped"
    assert file.read_text() == text
    (warning,) = done.warnings
    assert "52:54:00:12:ab:56" in warning
    assert "52:54:00:aa:bb:cc" not in warning


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/etc/dhcp/dhclient.conf", '  send dhcp-client-identifier = "web";'),
        ("/etc/dhcp/dhclient.conf", "send dhcp-client-identifier 1:0:a0:24:ab:fb:9c;"),
        ("/etc/dhcpcd.conf", "clientid web"),
        ("/etc/network/interfaces", "    client web"),
        ("/etc/systemd/networkd.conf", "DUIDRawData=00:00:ab:11:f9:2a:c2:77:29:f9:5c:00"),
        ("/etc/NetworkManager/system-connections/wired.nmconnection", "dhcp-client-id=web"),
    ],
)
def test_a_dhcp_client_that_somebody_named_is_told(guest, path, line):
    guest.put(path, f"# first\n{line}\n")
    (warning,) = reset(guest).warnings
    assert line.strip() in warning
    assert "one address" in warning


def test_a_dhcp_client_that_follows_from_the_machine_is_fine(guest):
    guest.put("/etc/dhcp/dhclient.conf", "#send dhcp-client-identifier 1:2;\nsend host-name = x;\n")
    guest.put("/etc/dhclient.conf", "send dhcp-client-identifier = hardware;\n")
    guest.put("/etc/dhcpcd.conf", "clientid\n")
    guest.put("/etc/systemd/network/1.network", "[DHCPv4]\nClientIdentifier=duid\n")
    guest.put("/etc/NetworkManager/system-connections/a", "dhcp-client-id=stable\n")
