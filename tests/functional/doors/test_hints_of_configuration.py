"""What is said of a configuration that is wrong is typed where it is wrong, and works."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import salt.loader

from lab.common import LIBVIRT_URI
from saltext.kvmclone.config import cloud_files
from saltext.kvmclone.errors import ConfigError, no_host
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.reactor.intake import expect_highstate
from tests.support.hints import Typist, tries
from tests.support.world import World, minion_opts

pytestmark = pytest.mark.slow


def configured(typist: Typist, role: str, **part: Any) -> dict[str, Any]:
    """Write the part ``kvm_clone`` of the configuration of the typist's minion or master."""
    path = typist.folder / f"{role}.d" / role
    config = {**json.loads(path.read_text()), "kvm_clone": part}
    path.write_text(json.dumps(config))
    read = salt.config.minion_config if role == "minion" else salt.config.master_config
    return dict(read(str(path)))


HERE = {"driver": "libvirt", "url": LIBVIRT_URI}
WRONG = {"driver": "libvirt", "url": LIBVIRT_URI, "host": ["kvm01"]}


@tries("problems.Problems.elsewhere", "kvm_clone._warned", "this_host.doctor")
def test_a_host_whose_configuration_is_wrong_elsewhere(
    world: World, base: str, typist: Typist
) -> None:
    configured(typist, "minion", providers={"here": HERE, "other": WRONG})
    name = world.name()
    told = typist(f"salt-call kvm_clone.plan {name} base_domain={base} clone_strategy=quick")
    (warning,) = [one for one in json.loads(told)["local"]["warnings"] if "Not used" in one]
    shown = json.loads(typist(warning))["local"]
    (found,) = [one for one in shown if "other" in one["message"]]
    assert typist(f"Again: {found['hint']}")


@tries("problems.Problems.elsewhere", "problems.Problems.forbidding_gone")
def test_a_master_whose_configuration_is_wrong_in_parts(world: World, typist: Typist) -> None:
    opts = configured(typist, "master", providers={"here": HERE, "other": WRONG})
    catalogue = cloud_files.read(opts)
    (warning,) = catalogue.problems.elsewhere()
    assert "other" in typist(warning, exits=1)  # as it shows what is wrong
    error = Fleet(opts, expect_highstate).destroy(world.name()).error
    assert isinstance(error, ConfigError)
    assert "no machine counts as gone" in error.message
    assert "other" in typist(error.hint, exits=1)


@tries("errors.no_host")
def test_a_master_without_a_provider(typist: Typist) -> None:
    configured(typist, "master")
    assert json.loads(typist(no_host().hint))["retcode"] == 0


@tries("catalogue.Catalogue.resolve_here")
def test_a_clone_that_belongs_to_another_host(world: World, base: str, typist: Typist) -> None:
    provider = {"driver": "libvirt", "host": "kvm99"}
    profile = {"provider": "there", "base_domain": base, "clone_strategy": "quick"}
    opts = configured(typist, "minion", providers={"there": provider}, profiles={"web": profile})
    keys = {"profile": "web", "tags": ["it's", "a test"]}
    with pytest.raises(ConfigError, match="belongs to the KVM host 'kvm99'") as info:
        cloud_files.read(opts).resolve_here(name := world.name(), keys, "kvm01")
    assert json.loads(typist(info.value.hint))["local"]["name"] == name


@tries("kvm_clone.present")
def test_a_state_about_another_daemon(world: World, base: str, typist: Typist) -> None:
    profile = {
        "provider": "here", "base_domain": base, "clone_strategy": "quick", "deploy": False,
        "wait_for_ip_timeout": 60,
    }  # fmt: skip
    configured(typist, "master", providers={"here": HERE}, profiles={"web": profile})
    opts = minion_opts(typist.folder)
    functions = salt.loader.minion_mods(opts, context={})
    states = salt.loader.states(opts, functions, {}, None, context={})
    answer = states["kvm_clone.present"](
        name := world.name(), profile="web", url="qemu+ssh://kvm02/system"
    )
    assert answer["result"] is False
    typist(answer["comment"])
    LocalHost(LIBVIRT_URI).destroy(name)


@tries("kvm_clone.__virtual__", "kvm_clone_base.__virtual__")
@pytest.mark.parametrize("state", ["kvm_clone.present", "kvm_clone.base"])
def test_a_minion_without_the_execution_module(tmp_path: Path, typist: Typist, state: str) -> None:
    opts = minion_opts(tmp_path)
    states = salt.loader.states(opts, {}, {}, None, context={})
    assert state not in states
    why = states.missing_fun_string(state)
    assert re.search("Ask it why: ", why), why
    assert "kvm_clone" in typist(why.rstrip("'"))
