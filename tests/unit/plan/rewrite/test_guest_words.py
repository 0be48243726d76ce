"""What stands where a serial number may: a number, configuration, or nothing."""

from __future__ import annotations

import pytest

from saltext.kvmclone.plan.rewrite.guest_words import names_one_machine


@pytest.mark.parametrize(
    "value",
    [
        "SYS-0815", "PF3XK9T2", "131219362700950", ".5KT0B123.ABCDE000000001.", "ATN12345678",
        "/JRJ0SW1/CN701632BD05R5/", "4c4c4544-0050-3510-8052-b4c04f4d4d32", "OEM-4711",
        "VMware-42 1a 0b 5f", "GoogleCloud-0123456789ABCDEF", "1000", "SN: 77", "00:1a:2b:3c",
    ],
)  # fmt: skip
def test_a_number_of_one_machine_is_known(value: str) -> None:
    assert names_one_machine(value)


@pytest.mark.parametrize(
    "value",
    [
        "To be filled by O.E.M.", "To Be Filled By O.E.M.", "Default string", "Not Specified",
        "Not Applicable", "None", "N/A", "0", "0000000000", "0123456789", "123456789", "xxxxxxxx",
        "System Serial Number", "Chassis Serial Number", "Base Board Serial Number",
        "Asset-1234567890", "No Asset Tag", "No Asset Information", "Chassis Asset Tag", "........",
        "Unknown", "INVALID", "OEM", "O.E.M.",
    ],
)  # fmt: skip
def test_what_a_board_without_a_number_says_is_none(value: str) -> None:
    assert not names_one_machine(value)


@pytest.mark.parametrize(
    "value",
    [
        "ds=nocloud", "ds=nocloud-net;s=http://192.0.2.1/", "ds=None", "ci.ds=OpenStack",
        "role=web;site=north", "http://192.0.2.1/config", '{"role": "web"}', "OpenTelekomCloud",
        "7783-7084-3265-9085-8269-3286-77", "OpenStack Nova", "OracleCloud.com",
    ],
)  # fmt: skip
def test_what_configures_a_guest_is_none(value: str) -> None:
    assert not names_one_machine(value)
