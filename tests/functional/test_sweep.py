"""
A short sample of ``make sweep``: wherever a worker or libvirtd dies, nothing is lost.

Other points each day: ``KVMCLONE_SEED`` chooses them (the date does, where it is not set).
"""

from __future__ import annotations

import datetime
import os
import random
from collections.abc import Iterator

import pytest

from lab import libvirtd
from lab.lab import Lab
from tests.functional.world import World
from tests.sweep.faults import KINDS, Kind, Scene

SEED = os.environ.get("KVMCLONE_SEED") or datetime.date.today().isoformat()

#: So many points of each kind; ``make sweep`` takes them all.
SAMPLE = 3


@pytest.fixture(params=KINDS, ids=str)
def scene(world: World, request: pytest.FixtureRequest) -> Iterator[Scene]:
    kind: Kind = request.param
    yield Scene(world, kind)


@pytest.mark.guest
def test_a_worker_that_is_killed_leaves_exactly_what_gc_lists(scene: Scene) -> None:
    points = scene.points()
    assert len(points) > 10
    for point in random.Random(f"{SEED} {scene.kind}").sample(points, SAMPLE):
        for then in ("gc", "repeat"):
            print(f"seed {SEED}: {scene.kind}, killed after {point}, then {then}")
            scene.fault("kill", point, then)


@pytest.mark.guest
def test_a_worker_that_is_killed_at_any_moment_leaves_exactly_what_gc_lists(scene: Scene) -> None:
    moments = random.Random(f"{SEED} moments {scene.kind}")
    whole = scene.kill_after(60, "gc")
    for then in ("gc", "repeat"):
        moment = moments.uniform(0.3, 1.0) * whole
        print(f"seed {SEED}: {scene.kind}, killed after {moment:.2f} s, then {then}")
        scene.kill_after(moment, then)


@pytest.mark.guest
@pytest.mark.unproven
def test_a_libvirtd_that_dies_and_comes_back_loses_nothing(lab: Lab, scene: Scene) -> None:
    if not libvirtd.is_ours():
        pytest.xfail("the libvirtd that runs here is not the lab's, so it is not killed")
    points = scene.points()
    for point in random.Random(f"{SEED} libvirtd {scene.kind}").sample(points, 2):
        print(f"seed {SEED}: {scene.kind}, libvirtd dies after {point}")
        scene.fault("libvirtd", point, "gc")
