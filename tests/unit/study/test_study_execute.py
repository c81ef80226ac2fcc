"""When a study gathers and reports, and what it says at its end."""

import logging

import pytest

from medseg.core.errors import OptionError
from medseg.core.runs import RunFiles, write_json
from medseg.study import execute
from medseg.study.grid import Run
from medseg.study.options import StudyOptions
from medseg.study.planned import Plan, Planned


class Crew:
    """Does nothing but fail, in an order of its own."""

    signalled = 0
    failures = ()

    def __init__(self, *_):
        pass

    def close(self):
        pass

    def work(self, _planned):
        self.failures = {f"seed={seed}": "fit ended with status 2" for seed in self.seeds}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Return a function that runs a study of three runs, and the list of what was gathered."""
    runs = [Run({"seed_everything": seed}, ()) for seed in range(3)]
    entries = [Planned(run, RunFiles(tmp_path / "runs" / run.name), {}) for run in runs]
    gathered, told = [], []
    monkeypatch.setattr(execute, "_runs", lambda _: runs)
    monkeypatch.setattr(execute, "plan_runs", lambda *_: Plan(entries, []))
    monkeypatch.setattr(execute, "require_files", lambda _: None)
    monkeypatch.setattr(execute, "_predict", lambda *_: told.append("hours"))
    monkeypatch.setattr(execute, "finish", lambda plan, *_: gathered.append(plan.runs) or 0)

    def run(failures, **more):
        monkeypatch.setattr(execute, "Crew", type("Failing", (Crew,), {"seeds": failures}))
        told.clear()
        status = execute.study(StudyOptions(config=(), output=tmp_path, **more))
        assert told == ["hours"]  # on every start, not on a dry run alone
        return status

    return run, entries, gathered


def test_a_norm_in_use_must_be_one_of_the_study(study):
    run, entries, _ = study
    for entry in entries:
        entry.settings["model"] = {"norm": "batch"}
    with pytest.raises(OptionError, match="--current must be one of batch; got 'group'"):
        run([], current="group")


def score(entry):
    write_json(entry.files.fit, {"interrupted": False})
    entry.files.scores.touch()


def test_a_run_that_failed_in_another_share_does_not_hold_back_the_page(study):
    run, entries, gathered = study
    score(entries[0])
    score(entries[2])
    assert run([], shard="0/2") == 0
    assert gathered == []
    entries[1].note(status="failed", command="fit", exit_code=2, last_line="")
    assert run([], shard="0/2") == 0
    assert gathered == [entries]


def test_fail_fast_names_the_first_failure_and_what_was_not_done(study, caplog):
    run, entries, gathered = study
    for seed in (1, 0):
        entries[seed].note(status="failed", command="fit", exit_code=2, last_line="")
    with caplog.at_level(logging.INFO, logger="medseg"):
        assert run([1, 0], fail_fast=True) == 3
    assert caplog.messages[-1] == "--fail_fast: seed=1 failed; not done: seed=2"
    assert gathered == []


def test_a_run_that_ended_after_its_study_was_killed_is_told_as_done(study, caplog):
    run, entries, _ = study
    for entry in entries:
        score(entry)
    entries[1].note(status="running")
    with caplog.at_level(logging.INFO, logger="medseg"):
        assert run([]) == 0
    assert entries[1].record["status"] == "scored"
    assert "done        seed=1" in caplog.messages
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="medseg"):
        assert run([]) == 0
    assert not any(line.startswith("done") for line in caplog.messages)
