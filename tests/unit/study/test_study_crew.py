"""Doing the commands of runs: locks, threads, failures and what is noted of them."""

import contextlib
import fcntl
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from medseg.core.runs import RunFiles, write_json
from medseg.engine.outcome import Outcome
from medseg.study import crew, doing
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


def work(entries, asked, predicted=()):
    with contextlib.closing(Crew(asked, dict(predicted))) as those:
        those.work(entries)
    return those


def test_runs_are_forked_from_one_process_that_has_imported_what_they_need(
    entries, tmp_path, monkeypatch
):
    serving = f"""
import subprocess
import sys
sys.path[:] = {sys.path!r}
if sys.argv[1] == "--serve":
    from medseg.engine.forking import serve
    arguments = serve(int(sys.argv[2]))
    if arguments is None:
        sys.exit()
    sys.argv[1:] = arguments
    place = __import__("pathlib").Path(sys.argv[1])
    place.joinpath("parent").write_text(str(__import__("os").getppid()))
"""
    script = tmp_path / "serving.py"
    script.write_text(serving + FAKE)
    monkeypatch.setattr(doing, "CHAIN", (sys.executable, str(script)))
    assert list(work(entries, options(tmp_path)).failures) == ["seed=1"]
    assert [entry.record["status"] for entry in entries] == ["scored", "failed", "scored"]
    parents = {(entry.files.run_dir / "parent").read_text() for entry in entries}
    assert len(parents) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int(parents.pop()), 0)


def test_a_failure_is_noted_with_its_command_its_status_and_its_last_words(entries, tmp_path):
    failed = work(entries, options(tmp_path)).failures
    assert list(failed) == ["seed=1"]
    assert failed["seed=1"].endswith("loss is no number")
    noted = json.loads((tmp_path / "runs" / "seed=1" / "study.json").read_text())
    assert (noted["status"], noted["command"], noted["exit_code"]) == ("failed", "fit", 5)
    assert noted["last_line"] == "loss is no number"
    assert [entry.record["status"] for entry in entries] == ["scored", "failed", "scored"]


def test_what_begins_and_how_long_the_rest_takes_is_said(entries, tmp_path, caplog):
    ends = {"diverged": entries[1], "done": entries[2]}
    write_json(ends["diverged"].files.fit, {"interrupted": True, "diverged": "not finite"})
    write_json(ends["done"].files.fit, {"interrupted": False})
    with caplog.at_level(logging.INFO, logger="medseg"):
        work(entries, options(tmp_path), {entry.run.name: 3600.0 for entry in entries})
    runs = tmp_path / "runs"
    started, first, diverged, resumed, done = caplog.messages
    assert started == f"started     seed=0, 1 of 3; its log: {runs / 'seed=0' / 'fit.log'}"
    # The prediction is corrected by what the first run took.
    assert re.fullmatch(r"done        seed=0; 2 left, about \d+ s", first)
    assert re.fullmatch(r"diverged    seed=1; 1 left, about \d+ s", diverged)
    assert resumed == f"started     seed=2, 2 of 3; its log: {runs / 'seed=2' / 'predict.log'}"
    assert done == "done        seed=2"


def test_what_begins_on_ray_is_said_where_it_is_sent(entries, tmp_path, monkeypatch, caplog):
    def on_ray(start, jobs, *, claim, **_):
        for key, job in enumerate(jobs):
            assert claim(job)
            ((_, end),) = start()(iter([(key, job)]))
            yield Outcome(job, end, None, 1)

    monkeypatch.setattr(crew, "supervise_on_ray", on_ray)
    with caplog.at_level(logging.INFO, logger="medseg"):
        work(entries[::2], options(tmp_path, engine="ray"))
    assert [text.partition(";")[0] for text in caplog.messages] == [
        "started     seed=0, 1 of 2", "done        seed=0",
        "started     seed=2, 2 of 2", "done        seed=2",
    ]  # fmt: skip


def test_what_an_orphan_has_finished_is_noted_and_told(entries, tmp_path, caplog):
    done, diverged, _ = entries
    for entry in entries:
        entry.note(status="running")  # the study was killed, what it had started went on
    write_json(done.files.fit, {"interrupted": False})
    done.files.scores.touch()
    write_json(diverged.files.fit, {"interrupted": True, "diverged": "the loss is not finite"})
    with caplog.at_level(logging.INFO, logger="medseg"):
        work([done, diverged], options(tmp_path))
    assert done.record["status"] == "scored"
    assert (diverged.record["status"], diverged.record["reason"]) == (
        "diverged", "the loss is not finite")  # fmt: skip
    assert caplog.messages == ["done        seed=0; 1 left", "diverged    seed=1"]


def test_no_run_begins_after_a_failure_where_fail_fast_is_asked(entries, tmp_path):
    work(entries, options(tmp_path, fail_fast=True))
    assert [entry.state for entry in entries] == ["scored", "new", "new"]
    assert not entries[2].record


def test_predict_is_told_its_threads(entries, tmp_path):
    work(entries[:1], options(tmp_path))
    assert "--threads 3" in (entries[0].files.run_dir / "predict.log").read_text()


def test_what_is_imported_before_a_fork_asks_for_no_gpu_and_begins_no_threads():
    code = """
import importlib, os, torch
def refused(*_):
    raise AssertionError("a process that has asked for GPUs cannot fork one that uses them")
torch.cuda.is_available = torch.cuda.device_count = torch.cuda.init = refused
from medseg.chain import PRELOADED
for name in PRELOADED:
    importlib.import_module(name)
print(len(os.listdir("/proc/self/task")))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True,
                           text=True, check=True)  # fmt: skip
    assert found.stdout.strip() == "1"


def test_the_seconds_of_all_attempts_are_noted_unless_nobody_saw_one_end(entries, tmp_path):
    entry = entries[1]  # fails each time
    work([entry], options(tmp_path))
    first = entry.record["seconds"]
    assert first > 0
    work([entry], options(tmp_path))
    second = entry.record["seconds"]
    assert second > first
    entry.note(status="halved", reason="behind")
    assert entry.record["seconds"] == second
    entry.note(status="running", seconds=None)  # the study was killed
    work([entry], options(tmp_path))
    assert entry.record["seconds"] is None
