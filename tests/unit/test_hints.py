"""No hint is forgotten: each is tried by a test, or it stands here why it cannot be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
LIBRARY = CHECKOUT / "_utils/saltext/kvmclone"

#: What looks like a command in a text.
_COMMAND = re.compile(
    r"(?<![\w-])(virsh |salt-run |salt-cloud -|salt-call |salt-key |salt '|salt \{|"
    r"qemu-img [a-z]|fuser |losetup |findmnt |journalctl |systemctl (start|status) )|"
    r": (ls|rm|kill|df) "
)
#: Calls that make one.
_MAKERS = re.compile(
    r"(^|\.)(commands(\.near)?|commands_of\(.*\)|Commands\(.*\))\.[a-z_]+$|^(virsh|there)$|"
    r"^silent_agent\.(check_agent|watch_boot)$",
    re.DOTALL,
)

_GUEST = "typed inside the guest, where no test types: it looks at a log or a service"
_INSTALLS = "installs a package, or removes one, on the machine that the tests run on"
_SCRIPT = "no hint: a script that runs in a guest, or how commands are put together"

#: Hints that no test types, with the reason.
UNTRIED = {
    "base_keys._require_one_host": "names a source, which was typed, perhaps with a token",
    "base_setup_script.-": _SCRIPT,
    "make_base.make": _SCRIPT,
    "disks._seed_left_out": "typed inside the base, once it runs",
    "interrupts.-": _SCRIPT,
    "enrolment.Enroller.prepare": "takes a guest that becomes a master; tests/e2e make one so",
    "map_files._faults": "no hint: it names what salt-cloud's own maps do",
    "schema.-": "no hint: it names what salt-cloud's own maps do",
    "ssh_auth._agent_keys": "no hint: it names whose process has the agent",
    "ssh_transport.Disconnected": _GUEST,
    "base_changes.Committed.sentence": "no hint: it names what somebody did",
    "hints.-": _SCRIPT,
    "backing_files._asked": "no hint: it runs that itself",
    "libvirt_xml.-": "opens an editor, for a definition that libvirt itself would refuse",
    "salt_minion._failure": _GUEST,
    "verify._timeout": _GUEST,
    "verify.verify": "the command of signed_call to start the master, in the same state",
    "fork.require_not_begun": "the command of clone_view.kept to remove what was kept",
    "spares_claim._Taking.one": "claims a spare while the master is down; other tests type it",
    "provision._Create.run": _SCRIPT,
    "snapshot_work.working": _SCRIPT,
    "make_base.promote": _SCRIPT,
    "warm_base.warm": _SCRIPT,
    "planner._record_conflicts": "the command of clone_view.in_progress",
    "identity_script.-": _SCRIPT,
    "all_hosts._findings": "the command of other hints to sync, for a host that answers nonsense",
    "ways.Ways.meant_by": "the command of base_push.BaseCopier.behind_minion, to look",
    "base_to_come.BasesToCome.source": "the command of base_copies._advice",
    "remove_base._require_still": "a race of moments; it looks at a state, as others do",
    "fleet_findings._clock": "sets the clock of the machine that the tests run on",
    "fleet_findings.of_copies": _INSTALLS,
    "host_findings.of_installation": _INSTALLS,
    "host_findings._labels": "turns a switch of SELinux, which takes a kernel with it",
    "clone_view.of_the_stock": "claims a spare, which takes a master, and a guest as minion",
    "spares_claim.read": "the command that was typed, with a number that is right",
    "spares_claim._half_claimed": "a race of moments; other tests type it",
    "warming._each": "the command that was typed, with the name of a base",
    "spares_make.require_minion": "the command of others to make a machine",
    "sizing._cpuset": "opens an editor, for a definition that libvirt itself would refuse",
}


def written(path: Path) -> set[str]:
    """``FILE.FUNCTION`` of each place where a file writes a command for people."""
    return {
        f"{path.stem}.{'.'.join(where) or '-'}" for where in _places(ast.parse(path.read_text()))
    }


def _places(node: ast.AST, where: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        where = (*where, node.name)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    if isinstance(node, ast.JoinedStr):
        parts = [one.value if isinstance(one, ast.Constant) else "{}" for one in node.values]
        if _COMMAND.search("".join(map(str, parts))):
            yield where
    text = node.value if isinstance(node, ast.Constant) else None
    if isinstance(text, str) and _COMMAND.search(text):
        yield where
    if isinstance(node, ast.Call):
        made = ast.unparse(node.func)
        words = node.args and isinstance(node.args[0], ast.List)
        if _MAKERS.search(made) or (made == "shlex.join" and words):
            yield where
    for child in ast.iter_child_nodes(node):
        yield from _places(child, where)


def tried() -> set[str]:
    """What the tests say that they type: the arguments of ``@tries``."""
    found: set[str] = set()
    for path in (CHECKOUT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for one in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(one, ast.Call) and ast.unparse(one.func) == "tries":
                    found |= {ast.literal_eval(argument) for argument in one.args}
    return found


def test_every_hint_is_tried_or_it_is_said_why_not() -> None:
    doors = [path for kind in ("modules", "runners", "states", "clouds", "beacons")
             for path in (CHECKOUT / f"_{kind}").glob("*.py")]  # fmt: skip
    sites = set().union(*map(written, [*LIBRARY.rglob("*.py"), *doors]))
    known = tried() | set(UNTRIED)
    assert sorted(tried() & set(UNTRIED)) == [], "a test types it, so it need not stand here"
    assert sorted(sites - known) == [], "type it in a test (@tries), or say why that cannot be"
    assert sorted(known - sites) == [], "there is no such hint any more"
