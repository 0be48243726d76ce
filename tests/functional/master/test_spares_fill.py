"""A worker that is killed while it makes a spare: the next one removes what it left."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import salt.config

from lab.common import LIBVIRT_URI
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.master import progress
from saltext.kvmclone.master.enrolment import Enroller
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.master.spares_fill import Refill
from saltext.kvmclone.master.spares_stock import Doing
from saltext.kvmclone.model.base_minion import Foresight
from saltext.kvmclone.reactor import worker
from tests.support.forks import forked
from tests.support.world import World


def master_of(folder: Path, base: str, token: str, spares: int) -> dict[str, Any]:
    """A master whose profile wants so many spares of this base, by this machine's libvirtd."""
    profile = {
        "provider": "here", "base_domain": base, "clone_strategy": "quick", "ttl": "1h",
        "spares": spares, "spare_names": f"ci-{token}-{{id}}", "minion": {"master": "192.0.2.1"},
    }  # fmt: skip
    places = {name: str(folder / name) for name in ("cachedir", "pki_dir", "sock_dir")}
    for place in places.values():
        Path(place, "minions").mkdir(parents=True, exist_ok=True)
    provider = {"driver": "libvirt", "url": LIBVIRT_URI}
    section = {"providers": {"here": provider}, "profiles": {"ci": profile}}
    path = folder / "master"
    path.write_text(json.dumps({"root_dir": str(folder), **places, "kvm_clone": section}))
    return dict(salt.config.master_config(str(path)))


def refill(opts: dict[str, Any], kill: Callable[[], object]) -> None:
    """One worker that is killed as soon as a spare is defined."""
    worker_of = Refill(opts, lambda: Fleet(opts, lambda *_: None))
    worker_of.want_look(soon=True)
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr(progress, "fire", lambda *_: None)
        patch.setattr(Enroller, "foresee", lambda *_: Foresight())
        patch.setattr(LocalHost, "boot", lambda *_: kill())
        while worker_of.go_on(pool, 2):
            time.sleep(0.05)


def test_the_next_worker_removes_what_a_killed_one_left_and_makes_it_anew(
    world: World, base: str, tmp_path: Path
) -> None:
    opts = master_of(tmp_path, base, world.token, 1)
    status = forked(lambda: refill(opts, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    assert os.WTERMSIG(status) == signal.SIGKILL
    fleet = Fleet(opts, lambda *_: None)
    host = LocalHost(LIBVIRT_URI)
    (left,) = [one for one in host.list_clones(spares=True) if world.token in one.name]
    assert (left.stage, left.in_stock) == ("cloned", True)

    # The next one does not go on with it: nobody waits for this very machine.
    steps = Refill(opts, lambda: fleet)._look(Doing()).steps
    assert steps.make == {"ci": 1}
    assert [(one.clone.name, one.reason) for one in steps.remove] == [
        (left.name, "whatever made it was killed")
    ]

    opts = master_of(tmp_path, base, world.token, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "fire", lambda *_: None)
        assert worker.work_off(opts) == {"done": 1, "retcode": 0}
    assert not world.exists(left.name)
