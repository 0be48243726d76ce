"""Several pieces of work have a living line each at a terminal, and plain lines elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab.salt import Answer
from saltext.kvmclone.display.live_lines import LiveLines
from tests.support.terminals import at_terminal

UTILS = Path(__file__).parents[3] / "_utils"

#: Two clones of one batch, one of which fails.
BATCH = """
import logging, os, sys, time
from saltext.kvmclone.master import progress
from saltext.kvmclone.model.clone import Clone
if "LOGS" in os.environ:
    logging.basicConfig(force=True)
made = Clone("web1", "u", "kvm01", "debian12", "web", "quick", "running", "cloned")
with progress.several(["web1", "web2"]):
    for name in ("web1", "web2"):
        progress.begun(name)
    progress.progress("web1", "cloned", 0.2, made)
    time.sleep(0.6)
    progress.waiting("web1", 7.0, "\\x1b[31mno route\\n to the master")
    progress.ended("web2", "HostUnreachable")
    if "LOGS" in os.environ:
        logging.getLogger().warning("kvm03 is silent")
    time.sleep(0.6)
    progress.ended("web1")
print("the answer")
"""


def run(before: str = "", pipe: str = "", **environment: str) -> Answer:
    words = [sys.executable, "-c", before + BATCH]
    command = ["sh", "-c", f'"$@" {pipe}', "sh", *words]
    env = {**os.environ, "PYTHONPATH": str(UTILS), "TERM": "xterm", **environment}
    return at_terminal(command, env)


def test_lines_live_in_place_and_leave_the_screen_to_the_answer() -> None:
    pytest.importorskip("rich")
    told = run(LOGS="1").stdout
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told)
    assert re.search(r"web1: cloned +[0-9.]+ s  from debian12 \(quick\)", shown)
    assert re.search(r"web2: begun +[0-9.]+ s", shown)
    assert re.search(r"web1: waiting +[0-9.]+ s  \?\[31mno route to the master", shown)
    assert re.search(r"web2: failed +[0-9.]+ s  HostUnreachable", shown)
    assert re.search(r"[\r\n]WARNING:root:kvm03 is silent\n", shown), (
        "a line of its own, above the others"
    )
    assert "\x1b[1A" in told, "the cursor goes up to renew a line"
    # All is erased at the end, and the cursor is there again.
    last = told[told.rindex("HostUnreachable") :]
    assert last.count("\x1b[2K") >= 2
    assert last.index("\x1b[?25h") < last.index("the answer")


@pytest.mark.parametrize(
    ("before", "pipe", "term"),
    [
        ("", "", "dumb"),
        ("", "| cat", "xterm"),
        ("import sys; sys.modules['rich'] = None", "", "xterm"),
    ],
    ids=["no cursor", "piped", "without rich"],
)
def test_elsewhere_each_step_is_a_plain_line(before: str, pipe: str, term: str) -> None:
    assert run(before, pipe, TERM=term).stdout.splitlines() == [
        "web1: cloned       0.2 s  from debian12 (quick)",
        "web1: waiting      7.0 s  ?[31mno route to the master",
        "the answer",
    ]


def test_a_script_reads_the_answer_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BATCH],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(UTILS)},
    )
    assert (done.stdout, done.stderr) == ("the answer\n", "")


def test_where_there_is_no_room_for_all_those_under_way_are_shown_and_all_are_counted() -> None:
    names = [f"web{number:02}" for number in range(50)]
    shown = LiveLines(names)
    assert len(shown.rows(50)) == 50
    assert shown.rows(60)[7] == "web07: queued       0.0 s"
    for name in names[:30]:
        assert shown.tell(name, "booted")
    for name in names[:10]:
        shown.end(name)
    rows = shown.rows(24)
    assert [row[:13] for row in rows[:-1]] == [f"{name}: booted" for name in names[10:30]]
    assert rows[-1] == "50 in all: 10 ended, 20 under way"
    assert len(shown.rows(5)) == 5
    assert not shown.tell("db1", "booted"), "it has no line here"


def test_an_older_rich_shows_the_steps_as_well() -> None:
    pytest.importorskip("rich")
    # Before rich 15 it is io.TextIOBase that says whether this is a terminal.
    older = "import rich.file_proxy as proxies; proxies.FileProxy.isatty = lambda self: False\n"
    told = run(older).stdout
    assert re.search(r"web1: cloned +[0-9.]+ s  from debian12", told)
