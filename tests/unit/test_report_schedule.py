"""What docs/report.md says to paste into the master's configuration does what it says."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import salt.config
import salt.loader
from salt.utils.schedule import Schedule

from saltext.kvmclone.master import fleet_report

CHECKOUT = Path(__file__).parents[2]


def test_the_schedule_that_keeps_the_page_fresh_is_loaded_and_comes_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (CHECKOUT / "docs/report.md").read_text(encoding="utf-8")
    (pasted,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "master.d").mkdir()
    (tmp_path / "master.d/kvm_clone_report.conf").write_text(pasted)
    (tmp_path / "master").write_text(f"root_dir: {tmp_path}\nmodule_dirs: [{CHECKOUT}]\n")
    opts = {**salt.config.master_config(str(tmp_path / "master")), "multiprocessing": False}
    runners = salt.loader.runner(opts)
    due: Queue[tuple[str, Any]] = Queue()

    def handle(_schedule: Any, _fork: Any, function: str, data: Any, *_more: Any) -> None:
        due.put((function, data["args"]))

    monkeypatch.setattr(Schedule, "handle_func", handle)
    schedule = Schedule(opts, runners, returners=runners, utils={}, new_instance=True)
    start = datetime.now()
    for minutes in (0, 14, 16):
        schedule.eval(now=start + timedelta(minutes=minutes))
    called = [due.get(timeout=60) for _ in range(2)]  # when the master starts, and then
    assert due.empty()
    monkeypatch.setattr(
        fleet_report, "write", lambda _fleet, file, _also: {"report": file, "retcode": 0}
    )
    for function, words in called:
        # So Salt calls it; of what fails there it says no more than an error in the master's log.
        answer = runners[function](*words, __pub_fun=function, __pub_schedule="kvm_clone_report")
        assert answer["report"] == "/srv/reports/fleet.html"
