"""What the master's hints say is typed, word for word, where it drives a host by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import salt.config

from lab.common import LIBVIRT_URI
from saltext.kvmclone.errors import ConfigError, KeptAfterFailure
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.master import progress, warming
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.reactor.intake import expect_highstate
from saltext.kvmclone.system import processes
from tests.support.hints import Typist, tries
from tests.support.world import World, quick

pytestmark = pytest.mark.slow


@pytest.fixture
def master(typist: Typist) -> Callable[..., Fleet]:
    """The master that the typist sits at, with these profiles of the provider ``here``."""

    def make(**profiles: Any) -> Fleet:
        path = typist.folder / "master.d/master"
        config = json.loads(path.read_text())
        config["kvm_clone"]["profiles"] = {
            name: {"provider": "here", **keys} for name, keys in profiles.items()
        }
        path.write_text(json.dumps(config))
        (typist.folder / "master.d/sock").mkdir(exist_ok=True)
        return Fleet(dict(salt.config.master_config(str(path))), expect_highstate)

    return make


@pytest.mark.guest
@tries("fleet.Fleet._as_before", "clone_view.kept")
@pytest.mark.parametrize("read", ["in the create's refusal", "in the resume's"])
def test_a_kept_create_without_a_profile_is_resumed_on_its_host(
    world: World, base: str, master: Callable[..., Fleet], typist: Typist, read: str
) -> None:
    name = world.name()
    wish = quick(name, base, overrides={"base_domain": base, "clone_strategy": "quick"})
    host, worker = LocalHost(LIBVIRT_URI), processes.this_process()
    host.clone(wish, worker, "addressed")
    host.keep(name, worker.token, "AddressTimeout: none came", off=True)
    if read == "in the create's refusal":
        with pytest.raises(KeptAfterFailure) as caught:
            host.clone(wish)
        hint = caught.value.hint
    else:
        error = master().resume(name).error
        assert isinstance(error, ConfigError)
        hint = error.hint
    typist(hint, "salt-call kvm_clone.resume")
    assert host.show(name).address


@pytest.mark.guest
@tries("fleet.Fleet.create")
def test_a_create_without_a_name(
    world: World, base: str, master: Callable[..., Fleet], typist: Typist
) -> None:
    name = world.name()
    fleet = master(**{"a web": {"base_domain": base, "deploy": False, "clone_strategy": "quick"}})
    with pytest.raises(ConfigError) as caught:
        fleet.create("a web", [], {})
    hint = caught.value.hint.replace("NAME", name)
    made = json.loads(typist(hint))["clones"][name]
    assert made["stage"] == "addressed"
    assert fleet.destroy(name).error is None


@tries("progress.configuration")
def test_a_section_that_is_wrong(
    master: Callable[..., Fleet],
    typist: Typist,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = master(web={"base_domian": "base"})
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(progress, "_said", set())
    assert fleet.catalogue.problems.found
    told = typist(capsys.readouterr().err.strip(), exits=1)
    assert "base_domian" in told


@tries("base_hosts.host_of", "warming._label_of.command")
def test_a_base_that_is_to_be_warmed_and_is_on_no_host(
    base: str, master: Callable[..., Fleet], typist: Typist
) -> None:
    told = warming.warm(master(web={"base_domain": base}), ["nobody"], "")
    assert told["retcode"] == 1
    assert base in typist(told["bases"]["nobody"]["error"]["hint"])
    told = warming.warm(master(web={"base_domain": base}), ["nobody"], "elsewhere")
    hint = told["bases"]["nobody"]["error"]["hint"]
    assert "NotFound" in typist(hint, exits=1), "the host that it names is there"
