"""What a base's metadata says of copies under way counts for that base alone."""

from __future__ import annotations

import pytest

from saltext.kvmclone.model.base_copy import Offered, from_xml, is_id, to_xml

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
