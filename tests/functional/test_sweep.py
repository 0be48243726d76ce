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
from tests.support.world import World
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


def points(scene: Scene, word: str, count: int = 1) -> list[str]:
    """A few points of a run, other ones each day."""
    found = scene.points()
    assert len(found) > 10
    chosen = random.Random(f"{SEED} {word} {scene.kind}").sample(found, count)
    print(f"seed {SEED}: {scene.kind}, {word} after {', '.join(chosen)}")
    return chosen


def one_of(words: tuple[str, ...], scene: Scene, word: str) -> str:
    chosen = random.Random(f"{SEED} {word} {scene.kind}").choice(words)
    print(f"seed {SEED}: {scene.kind}, {word}: {chosen}")
    return chosen


def test_a_worker_that_is_killed_leaves_exactly_what_gc_lists(scene: Scene) -> None:
    ways = WAYS if not scene.kind.start else (one_of(WAYS, scene, "mended"),)  # a boot takes long
    for point, then in zip(points(scene, "killed", len(ways)), ways, strict=True):
        scene.fault("kill", point, then)


def test_a_worker_that_is_killed_at_any_moment_leaves_exactly_what_gc_lists(scene: Scene) -> None:
    share = random.Random(f"{SEED} moment {scene.kind}").uniform(0.3, 1.0)
    print(f"seed {SEED}: {scene.kind}, killed after {share:.2f} of its time")
    scene.kill_after(share * scene.traced().seconds, one_of(WAYS, scene, "then"))


def test_a_worker_that_is_interrupted_takes_back_what_it_made(scene: Scene) -> None:
    fault = one_of(INTERRUPTS, scene, "how")
    for point in points(scene, "interrupted"):
        scene.fault(fault, point, one_of(WAYS, scene, "afterwards"))


def test_a_libvirtd_that_dies_and_comes_back_loses_nothing(scene: Scene) -> None:
    """While the worker lives on, or together with it."""
    if not libvirtd.is_ours():
        pytest.xfail("the libvirtd that runs here is not the lab's, so it is not killed")
    fault = one_of(("libvirtd", "both"), scene, "who dies")
    for point in points(scene, "libvirtd"):
        scene.fault(fault, point, one_of(WAYS, scene, "in the end"))
