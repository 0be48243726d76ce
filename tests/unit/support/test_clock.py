"""The lab tells its emulated guests how fast their clock ticks."""

from __future__ import annotations

import pytest

from lab.domain import Machine, tsc_khz
from lab.image import Boot


def test_the_counter_is_measured_the_same_each_time() -> None:
    first = tsc_khz()
    tsc_khz.cache_clear()
    assert first > 100_000
    assert tsc_khz() == pytest.approx(first, rel=0.01)


@pytest.mark.parametrize(("kind", "told"), [("qemu", True), ("kvm", False)])
def test_a_guest_that_is_emulated_is_told(kind: str, told: bool, tmp_path) -> None:
    machine = Machine("one", kind, Boot(tmp_path, tmp_path), "net", [], "quiet", 64, tmp_path)
    assert (f"<cmdline>quiet tsc_early_khz={tsc_khz()}</cmdline>" in machine.xml()) is told
