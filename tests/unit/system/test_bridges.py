"""What a bridge holds back is read from the kernel, as it counts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from saltext.kvmclone.system import bridges


@pytest.mark.parametrize(
    ("stp", "forward_delay", "seconds"),
    [
        ("0", "1500", 0),  # without the protocol a port forwards at once
        ("1", "1500", 30),
        ("1", "200", 4),
        ("2", "1500", 15),  # a program decides: the kernel only learns
        ("?", "1500", 0),
    ],
)
def test_a_new_port_waits_for_listening_and_learning(
    tmp_path: Path, stp: str, forward_delay: str, seconds: float
) -> None:
    (tmp_path / "br0/bridge").mkdir(parents=True)
    (tmp_path / "br0/bridge/stp_state").write_text(f"{stp}\n")
    (tmp_path / "br0/bridge/forward_delay").write_text(f"{forward_delay}\n")
    assert bridges.delay("br0", str(tmp_path)) == seconds


def test_what_is_no_bridge_holds_nothing_back(tmp_path: Path) -> None:
    assert bridges.delay("eth0", str(tmp_path)) == 0
