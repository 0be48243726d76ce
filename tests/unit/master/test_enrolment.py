"""What goes into a guest to make it a minion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import salt.config

from saltext.kvmclone.master import enrolment, keys
from saltext.kvmclone.model.request import Deploy, Request, Secrets
from saltext.kvmclone.model.spares import Claim

REQUEST = Request("ci-0a1b2c", "base", profile="ci", deploy=Deploy(grains={"role": "build"}))


@pytest.mark.parametrize(
    ("request_", "grains"),
    [
        (REQUEST, {"role": "build"}),
        (replace(REQUEST, spare="0123"), {"role": "build", "kvm_clone_spare": "ci"}),
        (replace(REQUEST, spare="0123", claim=Claim("alice", 5.0)), {"role": "build"}),
    ],
)
def test_a_grain_marks_a_spare_while_it_is_in_stock(
    request_: Request, grains: dict[str, str], tmp_path: Path
) -> None:
    opts = salt.config.master_config(None) | {"pki_dir": str(tmp_path)}
    made = enrolment.compose(opts, request_, Secrets(), keys.generate(2048))
    assert made.grains == grains
