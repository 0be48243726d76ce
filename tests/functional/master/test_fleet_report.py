"""What a report says to type, and what is said where none can be written, is typed as it stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import salt.config

from lab.common import LIBVIRT_URI
from saltext.kvmclone.display.page import bases
from saltext.kvmclone.display.page.picture import Picture
from saltext.kvmclone.errors import ConfigError, HostError
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.master import fleet_report
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.reactor.intake import expect_highstate
from tests.support.hints import Typist, hint, tries
from tests.support.html import Document
from tests.support.pictures import state
from tests.support.world import World, quick

pytestmark = pytest.mark.slow


@pytest.fixture
def fleet(typist: Typist) -> Fleet:
    """The master that the typist sits at."""
    (typist.folder / "master.d/sock").mkdir(exist_ok=True)
    path = typist.folder / "master.d/master"
    return Fleet(dict(salt.config.master_config(str(path))), expect_highstate)


@tries("fleet_report._is_report", "fleet_report._other_file", "fleet_report.write", "render.page")
def test_where_no_report_can_be_written_the_hint_makes_it_possible(
    world: World, fleet: Fleet, typist: Typist, tmp_path: Path
) -> None:
    path = tmp_path / "all pages" / "fleet.html"
    typist(hint(ConfigError, lambda: fleet_report.write(fleet, path), "no folder"), "mkdir")
    path.write_text("mine")
    typist(hint(ConfigError, lambda: fleet_report.write(fleet, path), "no report"), "mv")
    named = hint(ConfigError, lambda: fleet_report.write(fleet, path.parent), "a folder")
    assert json.loads(typist(named)) == {"report": str(path), "retcode": 0}
    assert named.partition(": ")[2] in Document(path.read_text()).texts["code"], "as the page says"
    assert sorted(one.name for one in path.parent.iterdir()) == ["fleet.html", "fleet.html.old"]
    refused = hint(HostError, lambda: fleet_report.write(fleet, "/proc/fleet.html"))
    assert "/proc" in typist(refused, "ls")


@tries("clones.endings")
def test_a_report_of_a_real_host_names_a_clone_whose_time_is_over(
    world: World, base: str, fleet: Fleet, typist: Typist, tmp_path: Path
) -> None:
    name, path = world.name(), tmp_path / "fleet.html"
    LocalHost(LIBVIRT_URI).clone(quick(name, base, ttl=0.001))
    assert fleet_report.write(fleet, path) == {"report": str(path), "retcode": 0}
    document = Document(path.read_text())
    assert {name, base} <= set(document.texts["th"] + document.texts["b"])
    assert "over" in document.texts["span"]
    commands = document.texts["code"]
    typist(next(one for one in commands if one == f"salt-run kvmclone.destroy {name}"))
    fleet_report.write(fleet, path)
    assert name not in path.read_text()


@tries("bases.steps")
def test_a_base_that_was_not_compared_is_compared_as_the_report_says(
    base: str, fleet: Fleet, typist: Typist
) -> None:
    """Of two hosts, of which there is one here; a push is typed in tests/e2e/test_push.py."""
    states = {base: {"kvm01": state("unknown"), "kvm02": state("unknown")}}
    ((_wish, command),) = bases.steps(Picture("salt01", 0.0, "/srv/fleet.html", bases=states))
    told = json.loads(typist(command))["bases"][base]
    assert [one["state"] for one in told.values()] == ["same"]
