"""Doing the commands of runs: locks, threads, failures and what is noted of them."""

import fcntl
import json
import logging
import sys
import threading
import time

import pytest

from medseg.core.runs import RunFiles, write_json
from medseg.study import doing
from medseg.study.crew import Crew
from medseg.study.doing import alone
from medseg.study.grid import Run
from medseg.study.options import StudyOptions
from medseg.study.planned import Planned


def test_waiting_for_a_held_run_ends_when_the_study_is_stopped(tmp_path):
    stopped = threading.Event()
    threading.Timer(0.2, stopped.set).start()
    begun = time.monotonic()
    with (tmp_path / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with alone(tmp_path, stopped) as handle:
            assert handle is None
    assert time.monotonic() - begun < 5


def test_a_free_run_is_taken_at_once(tmp_path):
    with alone(tmp_path, threading.Event()) as handle:
        assert handle is not None


FAKE = """
import json, pathlib, sys
place = pathlib.Path(sys.argv[1])
for command in json.loads(sys.argv[2]):
    print(command[0], flush=True)
    with (place / f"{command[0]}.log").open("a") as log:
        print("called", *command, file=log)
        if "seed=1" in place.name:
            print("loss is no number", "", sep="\\n", file=log)
            sys.exit(5)
    if command[0] == "fit":
        (place / "fit.json").write_text('{"interrupted": false}')
    if command[0] == "evaluate":
        (place / "scores.csv").write_text("")
"""


@pytest.fixture
def entries(tmp_path, monkeypatch):
    """Three runs whose commands are a script's; that of seed 1 fails."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(doing, "CHAIN", (sys.executable, str(script)))
    data = {"manifest": "x.json", "root": None, "fold": 0}
    runs = [Run({"seed_everything": seed}, ()) for seed in range(3)]
    return [Planned(run, RunFiles(tmp_path / "runs" / run.name), {"data": data}) for run in runs]


def options(tmp_path, **more):
    return StudyOptions(config=(), output=tmp_path, threads=3, **more)


def test_a_failure_is_noted_with_its_command_its_status_and_its_last_words(entries, tmp_path):
    crew = Crew(options(tmp_path))
    crew.work(entries)
    failed = crew.failures
    assert list(failed) == ["seed=1"]
    assert failed["seed=1"].endswith("loss is no number")
    noted = json.loads((tmp_path / "runs" / "seed=1" / "study.json").read_text())
    assert (noted["status"], noted["command"], noted["exit_code"]) == ("failed", "fit", 5)
    assert noted["last_line"] == "loss is no number"
    assert [entry.record["status"] for entry in entries] == ["scored", "failed", "scored"]


def test_what_an_orphan_has_finished_is_noted_and_told(entries, tmp_path, caplog):
    done, diverged, _ = entries
    for entry in entries:
        entry.note(status="running")  # the study was killed, what it had started went on
    write_json(done.files.fit, {"interrupted": False})
    done.files.scores.touch()
    write_json(diverged.files.fit, {"interrupted": True, "diverged": "the loss is not finite"})
    with caplog.at_level(logging.INFO, logger="medseg"):
        Crew(options(tmp_path)).work([done, diverged])
    assert done.record["status"] == "scored"
    assert (diverged.record["status"], diverged.record["reason"]) == (
        "diverged", "the loss is not finite")  # fmt: skip
    assert caplog.messages == ["done        seed=0", "diverged    seed=1"]


def test_no_run_begins_after_a_failure_where_fail_fast_is_asked(entries, tmp_path):
    Crew(options(tmp_path, fail_fast=True)).work(entries)
    assert [entry.state for entry in entries] == ["scored", "new", "new"]
    assert not entries[2].record


def test_predict_is_told_its_threads(entries, tmp_path):
    Crew(options(tmp_path)).work(entries[:1])
    assert "--threads 3" in (entries[0].files.run_dir / "predict.log").read_text()
