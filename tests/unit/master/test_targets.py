"""A target expression means the minions that Salt's master means by it; nobody is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import salt.cache
import salt.config

from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.master.keys import MinionKeys, generate
from saltext.kvmclone.master.placing import homes
from saltext.kvmclone.master.reservations import Chooser, Reservations
from saltext.kvmclone.master.targets import accepted, minions
from saltext.kvmclone.model.placement import Need, Reserved

PUBLIC = generate(2048).public


@pytest.fixture
def opts(tmp_path: Path) -> dict[str, Any]:
    """A master that has accepted four minions, and knows the grains of three."""
    path = tmp_path / "master"
    path.write_text(f"root_dir: {tmp_path}\nnodegroups: {{west: 'L@kvm01,kvm03'}}\n")
    made: dict[str, Any] = dict(salt.config.master_config(str(path)))
    Path(made["pki_dir"], "minions").mkdir(parents=True)
    cache = salt.cache.factory(made)
    for number, name in enumerate(("kvm01", "kvm02", "kvm03", "web1")):
        MinionKeys(made).accept(name, PUBLIC)
        if number != 2:
            role = "kvm" if name.startswith("kvm") else "web"
            for bank in (f"minions/{name}", "grains"):  # as Salt 3006, and as 3008 keeps them
                grains = {"role": role, "id": name}
                cache.store(bank, name if bank == "grains" else "data",
                            grains if bank == "grains" else {"grains": grains})  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("kvm*", ("kvm01", "kvm02", "kvm03")),
        ("kvm02", ("kvm02",)),
        ("L@kvm01,kvm02", ("kvm01", "kvm02")),
        ("E@kvm0[23]", ("kvm02", "kvm03")),
        ("kvm* and not kvm02", ("kvm01", "kvm03")),
        ("N@west", ("kvm01", "kvm03")),
        ("G@role:kvm", ("kvm01", "kvm02")),
    ],
)
def test_an_expression_means_accepted_minions(
    opts: dict[str, Any], expression: str, ids: tuple[str, ...]
) -> None:
    assert minions(opts, expression) == ids


def test_a_host_is_one_of_this_master_for_as_long_as_its_key_is_accepted(
    opts: dict[str, Any],
) -> None:
    assert accepted(opts, ["kvm01", "kvm09"]) == {"kvm01"}
    assert accepted(opts, []) == frozenset()
    store = Reservations(opts)
    assert homes(opts) == []
    for host in ("kvm01", "kvm09", "kvm01"):
        store.reserve("web1", "small", "qemu:///system", _choose(host))
    assert store.homes() == [("kvm01", "qemu:///system"), ("kvm09", "qemu:///system")]
    assert homes(opts) == [("kvm01", "qemu:///system")]


def _choose(host: str) -> Chooser:
    return lambda _rows, _last: Reserved("web1", host, Need())


@pytest.mark.parametrize("expression", ["xen*", "L@kvm09", "G@role:none"])
def test_an_expression_that_means_nobody_is_an_error(opts: dict[str, Any], expression: str) -> None:
    with pytest.raises(ConfigError, match="means no minion") as refused:
        minions(opts, expression)
    assert "salt-key -L" in refused.value.hint
