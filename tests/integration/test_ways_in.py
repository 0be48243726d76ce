"""The library works however it got in, on every Salt line: synced, by module_dirs, by pip."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.common import CHECKOUT, wait_until, write
from lab.ear import Ear
from lab.lab import Lab
from lab.salt import Answer, SaltWorld
from tests.integration.conftest import configure
from tests.support import installs
from tests.support.reactor_world import fire
from tests.support.terminals import at_terminal

WAYS = [
    ("3008", "sync"),
    ("3008", "module_dirs"),
    ("3008", "wheel"),
    ("3008", "editable"),
    ("3007", "sync"),
    ("3007", "wheel"),
    ("3006", "sync"),
    ("3006", "wheel"),
]

SYNCED = (*installs.DOORS, "_utils")

WHERE_IS_THE_DRIVER = """
import inspect
import sys
import salt.config
import salt.loader
clouds = salt.loader.clouds(salt.config.cloud_config(sys.argv[1]))
print(inspect.unwrap(clouds["libvirt.list_nodes"]).__code__.co_filename)
"""

REACT = """
look:
  runner.kvmclone.plan:
    - args:
      - profile: tiny
      - name: a_b
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    return installs.wheel(installs.export(folder / "project"), folder)


@pytest.fixture(scope="module", params=WAYS, ids="-".join)
def world(
    request: pytest.FixtureRequest, lab: Lab, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SaltWorld]:
    """A master and the minion ``kvm01``, which have our library in one of the ways."""
    line, way = request.param
    scratch = tmp_path_factory.mktemp(way)
    venv = installs.cached(line)
    if way in ("wheel", "editable"):
        venv = installs.environment(scratch / "venv", venv)
    if way == "wheel":
        installs.install(venv, wheel)
    elif way == "editable":
        project = installs.export(scratch / "project")
        installs.install(venv, "--no-build-isolation", "--editable", project)
    with SaltWorld(
        lab.folder / f"salt-{line}-{way}",
        address=lab.gateway,
        owner=lab.name,
        preloads=False,
        venv=venv,
        modules=(CHECKOUT,) if way == "module_dirs" else (),
    ) as made:
        configure(made)
        if way == "sync":
            installs.export(made.folder / "srv/salt", SYNCED)
        made.add_minion("kvm01")
        if way == "sync":
            sync(made)
        yield made


def sync(world: SaltWorld) -> None:
    """What the installation manual says, on the minion and on the master."""
    with ThreadPoolExecutor() as both:
        minion = both.submit(world.salt, "kvm01", "saltutil.sync_all")
        master = both.submit(world.run, "saltutil.sync_all")
    for done in (minion, master):
        assert done.result().retcode == 0, done.result()
    # The minion reads its modules anew in its own time.
    known = lambda: world.salt("kvm01", "sys.list_functions", "kvm_clone").data["kvm01"]  # noqa: E731
    wait_until(known, "the synced module", 20)


def error_of(answer: Answer) -> dict[str, str]:
    """The error that a failed runner call must carry."""
    assert answer.retcode == 1, answer
    assert answer.data["retcode"] == 1
    clones = answer.data.get("clones") or {"": answer.data}
    (holder,) = clones.values()
    error: dict[str, str] = holder["error"]
    assert set(error) == {"type", "message", "hint"}
    return error


def test_the_execution_module_answers(world: SaltWorld) -> None:
    answer = world.salt("kvm01", "kvm_clone.list_clones")
    assert answer.retcode == 0, answer
    assert isinstance(answer.data["kvm01"], list)


def test_the_states_load(world: SaltWorld) -> None:
    answer = world.salt("kvm01", "sys.list_state_functions", "kvm_clone")
    assert set(answer.data["kvm01"]) == {
        f"kvm_clone.{function}"
        for function in ("present", "absent", "running", "stopped", "mod_watch", "base")
    }


def test_the_beacon_loads(world: SaltWorld) -> None:
    available = lambda: world.salt("kvm01", "beacons.list_available", "return_yaml=False")  # noqa: E731
    wait_until(lambda: "kvm_clone" in available().data["kvm01"], "the beacon", 30)


def test_the_runner_answers(world: SaltWorld) -> None:
    answer = world.run("kvmclone.profiles")
    assert answer.retcode == 0, answer
    assert answer.data["profiles"]["tiny"]["provider"] == "kvm"


def test_a_failure_of_the_runner_is_one(world: SaltWorld) -> None:
    error = error_of(world.run("kvmclone.show", "nosuch"))
    assert error["type"] == "NotFound"
    assert "nosuch" in error["message"]
    assert error["hint"]


def test_a_mistyped_keyword_is_an_error(world: SaltWorld) -> None:
    error = error_of(world.run("kvmclone.profiles", "verbos=true"))
    assert error["type"] == "ConfigError"
    assert "verbos" in error["message"]


def test_a_failure_on_the_host_fails_the_job(world: SaltWorld) -> None:
    answer = world.salt("kvm01", "kvm_clone.show", "nosuch")
    assert answer.retcode != 0
    assert "NotFound" in answer.data["kvm01"]


def test_a_person_at_a_terminal_sees_our_screens(world: SaltWorld) -> None:
    env = world.environment("command")
    told = at_terminal(world.command("salt-run", "kvmclone.profiles"), env)
    assert told.stdout.split()[:2] == ["PROFILE", "PROVIDER"], told
    host = world.command("salt", "kvm01", "kvm_clone.doctor")
    assert at_terminal(host, env).stdout.startswith("kvm01:\n  "), "a heading of ours"
    assert world.execute(host).stdout == world.execute([*host, "--out=nested"]).stdout
    missing = at_terminal(world.command("salt-run", "kvmclone.show", "nosuch"), env)
    assert missing.stdout.startswith("nosuch  failed: NotFound\n")
    assert missing.retcode == 1


def test_our_cloud_driver_is_the_one_that_loads(world: SaltWorld) -> None:
    python = str(world.venv / "bin/python")
    where = world.execute([python, "-c", WHERE_IS_THE_DRIVER, str(world.conf / "cloud")])
    assert Path(where.stdout.strip()).name == "kvm_clone.py", where


def test_salt_cloud_lists_through_it(world: SaltWorld) -> None:
    providers = world.cloud("--list-providers")
    assert list(providers.data["kvm"]) == ["libvirt"], providers
    query = world.cloud("-Q")
    assert query.retcode == 0, query


# --- a newer library under a daemon that lives on -------------------------------------------------


@pytest.fixture(scope="module")
def daemons(lab: Lab) -> Iterator[SaltWorld]:
    """A minion that works in threads and a master with a reactor: both keep what they imported."""
    sls = write(lab.folder / "look.sls", REACT)
    with SaltWorld(
        lab.folder / "salt-daemons",
        address=lab.gateway,
        owner=lab.name,
        venv=installs.cached("3008"),
        modules=(),
        master={
            "reactor": [{"test/look": [str(sls)]}],
            "reactor_refresh_interval": 1,
            "fileserver_list_cache_time": 0,  # a new file is offered at once, not after 20 s
        },
    ) as made:
        configure(made)
        installs.export(made.folder / "srv/salt", SYNCED)
        made.add_minion("kvm01", {"multiprocessing": False})
        sync(made)
        yield made


def reacted(world: SaltWorld, ear: Ear) -> str:
    """What the reactor's runner says to a name that cannot be one."""

    def said() -> list[str]:
        plan = "runner.kvmclone.plan"
        told = [data for tag, data in ear.events if tag.endswith("/ret")]
        return [str(data["return"]) for data in told if data.get("fun") == plan]

    before = len(said())
    fire(world, "test/look", {})
    return str(wait_until(lambda: said()[before:], "the reactor's answer", 30)[0])


def test_daemons_take_up_a_newer_library_without_a_restart(daemons: SaltWorld) -> None:
    def minion_says() -> str:
        return str(daemons.salt("kvm01", "kvm_clone.show", "a_b").data["kvm01"])

    assert "cannot be used" in minion_says()
    with Ear(daemons) as ear:
        assert "cannot be used" in reacted(daemons, ear)

    library = daemons.folder / "srv/salt/_utils/saltext/kvmclone"
    names = library / "model/names.py"
    text = names.read_text(encoding="utf-8").replace("cannot be used", "{VERDICT}")
    assert "{VERDICT}" in text
    # A new file, a changed one that needs it, and one in the middle that did not change.
    names.write_text(
        text.replace(
            "from saltext.kvmclone.errors",
            "from saltext.kvmclone.novelty import VERDICT\nfrom saltext.kvmclone.errors",
        ),
        encoding="utf-8",
    )
    (library / "novelty.py").write_text('VERDICT = "is of no use"\n', encoding="utf-8")
    sync(daemons)

    wait_until(lambda: "is of no use" in minion_says(), "the minion's new words", 60)
    with Ear(daemons) as ear:
        wait_until(lambda: "is of no use" in reacted(daemons, ear), "the reactor's new words", 20)


def test_what_was_removed_from_the_library_does_not_linger(daemons: SaltWorld) -> None:
    """After the test above: back to the library as it is, and the extra file gone."""
    shutil.rmtree(daemons.folder / "srv/salt/_utils")
    installs.export(daemons.folder / "srv/salt", ("_utils",))
    sync(daemons)
    wait_until(
        lambda: "cannot be used" in str(daemons.salt("kvm01", "kvm_clone.show", "a_b").data),
        "the minion's old words",
        20,
    )
