"""What a base's metadata says of copies under way counts for that base alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from saltext.kvmclone.model.base_copy import (
    NVRAM,
    BaseOffer,
    Offered,
    OfferedFile,
    faults,
    from_xml,
    is_id,
    to_xml,
)

COPIES = (
    Offered("0123456789abcdef", "/root/.ssh/authorized_keys", ("/images/.a", "/images/.b")),
    Offered("ffffffffffffffff"),
)


def test_what_is_written_is_read() -> None:
    assert from_xml(to_xml("u1", COPIES), "u1") == COPIES
    assert from_xml(to_xml("u1", COPIES), "u2") == ()


def test_what_is_no_id_is_not_taken_for_one() -> None:
    """It becomes part of paths that are removed."""
    assert from_xml("<copies uuid='u1'><copy id='../..' keys=''/></copies>", "u1") == ()


@pytest.mark.parametrize("text", ["", "0123", "../../0123456789", "0123456789abcdeF", "0" * 17])
def test_an_id_is_sixteen_hexadecimal_digits(text: str) -> None:
    assert is_id("0123456789abcdef")
    assert not is_id(text)


DISK = OfferedFile("vda", "qcow2", 9, "d" * 64, 9, 9, "", "/images")
STORE = replace(DISK, name=NVRAM, format="")
OFFER = BaseOffer(
    "0123456789abcdef", "base", "d" * 64, (DISK, STORE), {}, "root", 22, ("10.0.0.1", "fd00::1"),
    ("ssh-ed25519 AAAA", "ecdsa-sha2-nistp256 AA+/=="),
)  # fmt: skip


@pytest.mark.parametrize("base", ["base", "centos7_template", "Windows 2019", "grün"])
def test_an_offer_of_any_base_that_libvirt_has_is_sound(base: str) -> None:
    assert list(faults(replace(OFFER, base=base))) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"copy": "../x"},
        {"base": ""},
        {"base": "../etc/cron.d/x"},
        {"base": "a\nb"},
        {"base": "a\0b"},
        {"base": "x" * 250},
        {"user": "--rsh=sh -c evil"},
        {"user": ""},
        {"port": 0},
        {"port": 65536},
        {"addresses": ("10.0.0.1", "-oProxyCommand=x")},
        {"addresses": ("fe80::1%x y",)},
        {"host_keys": ("ssh-ed25519 AAAA\n* ssh-rsa B",)},
        {"files": (replace(DISK, name="../x"),)},
        {"files": (replace(DISK, name="vda\n"),)},
        {"files": (replace(DISK, name=""),)},
        {"files": (replace(DISK, name="definition"),)},
        {"files": (DISK, DISK)},
        {"files": (replace(DISK, format="raw/../../x"),)},
        {"files": (replace(DISK, format=""),)},
        {"files": (replace(STORE, format="raw"),)},
    ],
)
def test_an_offer_that_would_lead_astray_is_not(changed: dict[str, Any]) -> None:
    """It becomes paths and words of commands at the target."""
    assert list(faults(replace(OFFER, **changed)))
