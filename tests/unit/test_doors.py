"""The doors: how short the way into the library is, and what Salt's loader makes of them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
import salt.config
import salt.loader
import salt.minion
import salt.output
import salt.utils.context
from salt.exceptions import CommandExecutionError, SaltCloudSystemExit

from saltext.kvmclone.hypervisor import connection
from saltext.kvmclone.master import progress
from saltext.kvmclone.master.cloud_events import CloudEvents
from tests.support.world import minion_opts

CHECKOUT = Path(__file__).parents[2]
DOORS = sorted(
    path
    for kind in ("_modules", "_runners", "_states", "_clouds", "_beacons")
    for path in (CHECKOUT / kind).glob("*.py")
)

#: How the documentation of a function begins that only the project itself calls, and all of them.
MARK = "Serve kvm_clone, not people: "
INTERNAL = {"answer_doorbell", "news", "pending", "remote", "told", "working"}

#: Most frames from a door to the first call of libvirt: Salt calls the first, libvirt is called by
#: the last.
MOST_FRAMES = 11

#: The functions of the execution module, which several files make together.
FUNCTIONS = {
    "plan", "create", "adjust", "bootstrap", "resume", "destroy", "start", "stop", "reboot",
    "show", "list_clones", "addresses", "pending_changes", "exists", "wait_for_address",
    "gc", "tree", "doctor", "adopt", "unprotect", "base_from", "promote", "warm", "unwarm",
    "published", "published_addresses", "ring_expired", "news", "remote", "working",
    "ask", "release", "asked", "pending", "told",
    "snapshot", "rollback", "snapshots", "delete_snapshot",
}  # fmt: skip


class Refused(Exception):
    """What libvirt-python raises."""

    def get_error_code(self) -> int:
        return 38

    get_error_domain = get_int1 = get_error_code

    def get_error_message(self) -> str:
        return "no libvirtd here"


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The functions on the way to each connection to libvirt, which are all refused."""
    found: list[list[str]] = []

    def refuse(_url: str) -> None:
        found.append(_way(sys._getframe(1)))
        raise Refused

    fake = SimpleNamespace(open=refuse, libvirtError=Refused, registerErrorHandler=lambda *_: None)
    monkeypatch.setattr(connection, "libvirt", fake)
    monkeypatch.setattr(progress, "fire", lambda *_: None)
    return found


def _way(frame: FrameType | None) -> list[str]:
    """The functions from the outermost of ours to this one; those between count, too."""
    way: list[str] = []
    ours = 0
    while frame is not None:
        way.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}")
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(CHECKOUT) and path.relative_to(CHECKOUT).parts[0].startswith("_"):
            ours = len(way)
        frame = frame.f_back
    return list(reversed(way[:ours]))


@pytest.fixture
def module(tmp_path: Path) -> Any:
    """The functions of a minion."""
    return salt.loader.minion_mods(minion_opts(tmp_path), context={})


@pytest.fixture
def master(tmp_path: Path) -> dict[str, Any]:
    """A master with one profile, whose clones are made from here and stay without a minion."""
    providers = {"here": {"driver": "libvirt", "url": "qemu:///system"}}
    profiles = {"web": {"provider": "here", "base_domain": "base", "deploy": False}}
    configuration = {
        "root_dir": str(tmp_path),
        "pki_dir": str(tmp_path / "pki"),
        "cachedir": str(tmp_path / "cache"),
        "extension_modules": str(tmp_path / "none"),
        "module_dirs": [str(CHECKOUT)],
        "kvm_clone": {"providers": providers, "profiles": profiles},
    }
    path = tmp_path / "master"
    path.write_text(json.dumps(configuration))
    (tmp_path / "pki/minions").mkdir(parents=True)
    return dict(salt.config.master_config(str(path)))


# --- what people read ---------------------------------------------------------------------------


def documented(path: Path) -> dict[str, str]:
    """The documentation of a door and of its public functions, in order, as Salt has it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"
    ]
    return {
        getattr(node, "name", ""): ast.get_docstring(node, clean=False) or ""
        for node in (tree, *public)
    }


@pytest.mark.parametrize("path", DOORS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_salt_prints_of_a_door_fits_a_terminal(path: Path, tmp_path: Path) -> None:
    """Where Salt indents it most: `salt-call sys.doc`, and `sys.state_doc` by `salt`."""
    told = {"kvm01": {f"kvm_clone.{name}": text for name, text in documented(path).items()}}
    printed = salt.output.out_format(told, "nested", {**minion_opts(tmp_path), "color": False})
    assert "Return" in printed or "Make sure" in printed
    assert [line for line in printed.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("path", DOORS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_only_the_project_calls_stands_last_and_says_so(path: Path) -> None:
    told = documented(path)
    marked = [name for name, text in told.items() if text.strip().startswith(MARK)]
    assert list(told)[len(told) - len(marked) :] == marked
    assert set(marked) == INTERNAL & set(told)


# --- the way in ---------------------------------------------------------------------------------


def test_a_create_on_a_host_is_few_frames_from_libvirt(module: Any, ways: list[list[str]]) -> None:
    with pytest.raises(CommandExecutionError, match="Cannot connect"):
        module["kvm_clone.create"]("web1", base_domain="base")
    (way,) = ways
    assert way[:2] == ["entrypoints.py:wrapper", "kvm_clone.py:create"]
    assert way[-1] == "connection.py:_open"
    assert len(way) <= MOST_FRAMES, way


def test_a_create_by_the_runner_is_few_frames_from_libvirt(
    master: dict[str, Any], ways: list[list[str]]
) -> None:
    answer = salt.loader.runner(master, context={})["kvmclone.create"]("web", "web1")
    assert "Cannot connect" in answer["clones"]["web1"]["error"]["message"]
    (way,) = ways
    assert way[:2] == ["entrypoints.py:wrapper", "kvmclone.py:create"]
    assert way[-1] == "connection.py:_open"
    assert len(way) <= MOST_FRAMES, way


def test_a_state_is_few_frames_from_libvirt(
    module: Any, ways: list[list[str]], tmp_path: Path
) -> None:
    opts = {**minion_opts(tmp_path), "test": False}
    states = salt.loader.states(opts, module, salt.loader.utils(opts), None)
    answer = states["kvm_clone.present"]("web1", base_domain="base")
    assert "Cannot connect" in answer["comment"]
    (way,) = ways
    assert way[0] == "kvm_clone.py:present"
    assert way[-1] == "connection.py:_open"
    assert len(way) <= MOST_FRAMES, way


# --- what Salt sees -----------------------------------------------------------------------------


def test_the_files_of_the_execution_module_are_one_module_with_examples(module: Any) -> None:
    told = module["sys.doc"]("kvm_clone")
    assert {name.removeprefix("kvm_clone.") for name in told} == FUNCTIONS
    for name, text in told.items():
        assert "CLI Example:" in text
        assert name in text


def test_the_runners_functions_are_documented_with_an_example(master: dict[str, Any]) -> None:
    runners = salt.loader.runner(master, context={})
    names = [name for name in runners if name.startswith("kvmclone.")]
    assert len(names) == 33
    for name in names:
        assert f"salt-run {name}" in runners[name].__doc__
        assert "CLI Example:" in runners[name].__doc__


def test_salt_knows_the_arguments_of_a_function(module: Any) -> None:
    told = module["sys.argspec"]("kvm_clone.*")
    assert told["kvm_clone.create"]["args"] == ["name", "profile", "start"]
    assert told["kvm_clone.create"]["kwargs"]
    assert told["kvm_clone.destroy"]["args"] == ["name", "force", "url", "test"]
    assert told["kvm_clone.destroy"]["defaults"] == (False, None, False)


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("create", [], "Which name? Hint: salt-call kvm_clone.create NAME"),
        ("stop", ["web1", "foo=bar"], "kvm_clone.stop does not take 'foo'; it takes NAME"),
        ("destroy", ["web1", "forse=True"], "Hint: salt-call kvm_clone.destroy web1 force=True"),
        ("doctor", ["a", "b"], "'b' is one word too many; kvm_clone.doctor takes [url=URL]"),
    ],
)
def test_mistyped_arguments_are_answered_in_our_words(
    module: Any, name: str, words: list[str], message: str
) -> None:
    """As a minion calls a function: Salt itself would have refused some of it."""
    function = module[f"kvm_clone.{name}"]
    args, kwargs = salt.minion.load_args_and_kwargs(
        function, words, {"jid": "20261125101112131415"}
    )
    with pytest.raises(CommandExecutionError) as caught:
        function(*args, **kwargs)
    assert message in str(caught.value)


def test_what_salt_adds_to_the_arguments_is_no_key(module: Any, ways: list[list[str]]) -> None:
    with pytest.raises(CommandExecutionError, match="Cannot connect"):
        module["kvm_clone.plan"]("web1", base_domain="base", __pub_jid="20261125101112131415")
    assert ways


# --- salt-cloud ---------------------------------------------------------------------------------


@pytest.fixture
def cloud(master: dict[str, Any]) -> Callable[..., Any]:
    """Calls a function of the driver, as salt-cloud's core does."""
    opts = {
        **salt.config.DEFAULT_CLOUD_OPTS,
        **master,
        "providers": {"here": {"libvirt": {"driver": "libvirt", "url": "qemu:///system"}}},
        "profiles": {"web": {"profile": "web", "provider": "here:libvirt", "base_domain": "base"}},
    }
    functions = salt.loader.clouds(opts)

    def call(name: str, *arguments: Any, **keywords: Any) -> Any:
        function = functions[f"libvirt.{name}"]
        with salt.utils.context.func_globals_inject(
            function, __active_provider_name__="here:libvirt"
        ):
            return function(*arguments, **keywords)

    return call


def test_a_create_by_salt_cloud_is_few_frames_from_libvirt(
    cloud: Callable[..., Any], ways: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CloudEvents, "_fire", lambda *_: None)
    machine = {"name": "web1", "profile": "web", "provider": "here:libvirt", "driver": "libvirt"}
    with pytest.raises(SaltCloudSystemExit, match="Cannot connect"):
        cloud("create", {**machine, "base_domain": "base", "deploy": False})
    way = ways[-1]
    assert way[0] == "kvm_clone.py:create"
    assert way[-1] == "connection.py:_open"
    assert len(way) <= MOST_FRAMES, way


@pytest.mark.parametrize(
    ("name", "arguments", "call", "message"),
    [
        ("start", ["web1"], "function", "start is an action: salt-cloud -a start NAME"),
        ("destroy", ["web1"], "function", "destroy is an action: salt-cloud -d NAME"),
        ("avail_images", [], "action", "is a function: salt-cloud -f avail_images PROVIDER"),
        ("stop", ["web1", {"a": 1, "b": 2}], "action", "stop takes no arguments: a, b"),
    ],
)
def test_the_driver_refuses_a_wrong_call(
    cloud: Callable[..., Any], name: str, arguments: list[Any], call: str, message: str
) -> None:
    with pytest.raises(SaltCloudSystemExit, match=message):
        cloud(name, *arguments, call=call)


def test_a_minion_asks_the_master_without_any_package_of_ours() -> None:
    """A guest has neither lxml nor libvirt, and gives itself back all the same."""
    program = """
import importlib.util, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("lxml", "libvirt", "libvirt_qemu", "paramiko"):
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Absent())
spec = importlib.util.spec_from_file_location("door", sys.argv[1])
door = importlib.util.module_from_spec(spec)
spec.loader.exec_module(door)
print(door.release.__name__)
"""
    path = CHECKOUT / "_modules/kvm_clone_requests.py"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "_utils")},
    )
    assert (done.stdout, done.returncode) == ("release\n", 0), done.stderr
