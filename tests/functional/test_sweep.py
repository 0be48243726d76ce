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
from tests.sweep.faults import INTERRUPTS, KINDS, WAYS, Kind, Scene, Traced

SEED = os.environ.get("KVMCLONE_SEED") or datetime.date.today().isoformat()

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def traced() -> dict[Kind, Traced]:
    """The points of each kind are looked for once."""
    return {}


@pytest.fixture(params=KINDS, ids=str)
def scene(
    world: World, request: pytest.FixtureRequest, traced: dict[Kind, Traced]
) -> Iterator[Scene]:
    kind: Kind = request.param
    scene = Scene(world, kind, traced.get(kind))
    traced[kind] = scene.traced()
    yield scene


def points(scene: Scene, word: str, count: int) -> list[str]:
    """A few points of a run, other ones each day."""
    found = scene.points()
    assert len(found) > 10
    chosen = random.Random(f"{SEED} {word} {scene.kind}").sample(found, count)
    print(f"seed {SEED}: {scene.kind}, {word} after {', '.join(chosen)}")
    return chosen


def test_a_worker_that_is_killed_leaves_exactly_what_gc_lists(scene: Scene) -> None:
    for point, then in zip(points(scene, "killed", 2), WAYS, strict=True):
        scene.fault("kill", point, then)


def test_a_worker_that_is_killed_at_any_moment_leaves_exactly_what_gc_lists(scene: Scene) -> None:
    chosen = random.Random(f"{SEED} moments {scene.kind}")
    moment = chosen.uniform(0.3, 1.0) * scene.traced().seconds
    print(f"seed {SEED}: {scene.kind}, killed after {moment:.2f} s")
    scene.kill_after(moment, chosen.choice(WAYS))


def test_a_worker_that_is_interrupted_takes_back_what_it_made(scene: Scene) -> None:
    for point, fault in zip(points(scene, "interrupted", 2), INTERRUPTS, strict=True):
        scene.fault(fault, point, "gc")


@pytest.mark.parametrize("fault", ["libvirtd", "both"])
def test_a_libvirtd_that_dies_and_comes_back_loses_nothing(
    lab: Lab, scene: Scene, fault: str
) -> None:
    """While the worker lives on, or together with it."""
    if not libvirtd.is_ours():
        pytest.xfail("the libvirtd that runs here is not the lab's, so it is not killed")
    for point in points(scene, fault, 1):
        scene.fault(fault, point, random.Random(f"{SEED} {point}").choice(WAYS))
