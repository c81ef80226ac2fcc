"""Predicted hours of a study: from limits of time, from finished runs, measured, or not known."""

from dataclasses import replace

import pytest

from medseg.core.runs import RunFiles, write_json
from medseg.study.grid import Run
from medseg.study.hours import CASE_SECONDS, START_SECONDS, predicted_hours
from medseg.study.planned import Planned
from medseg.study.work import Work

NOTHING = Work(0, 0, -START_SECONDS / CASE_SECONDS)
"""Of a run that takes no second besides its steps."""


@pytest.fixture
def entries(tmp_path):
    """Return a function that plans three runs with the given limits."""

    def plan(**trainer):
        data = {"steps_per_epoch": 100, "batch_size": 2}
        settings = {"trainer": trainer, "data": data, "model": {"norm": "batch"}}
        runs = [Run({"seed_everything": seed}, ()) for seed in range(3)]
        return [Planned(run, RunFiles(tmp_path / run.name), settings) for run in runs]

    return plan


def changed(entry, norm="batch", batch_size=2):
    data = {**entry.settings["data"], "batch_size": batch_size}
    return replace(entry, settings={**entry.settings, "data": data, "model": {"norm": norm}})


def hours(planned, workers, measured=(), work=NOTHING):
    left = [entry for entry in planned if not entry.is_done]
    return predicted_hours(planned, left, workers, lambda _: work, lambda: dict(measured)).words


def finish(entry, seconds, steps, whole=None):
    """Train and score a run; with `whole`, note how long all of it took."""
    write_json(entry.files.fit, {"interrupted": False, "seconds": seconds, "steps": steps})
    entry.files.scores.touch()
    if whole:
        entry.note(status="scored", seconds=whole)


@pytest.mark.parametrize("limit", ["00:01:30:00", {"hours": 1, "minutes": 30}])
def test_limits_of_time_are_added_up(limit, entries):
    planned = entries(max_time=limit, max_epochs=1000)
    assert "4.50 for 3 runs (from max_time)" in hours(planned, 1)
    assert "2.25 with 2 side by side" in hours(planned, 2)


def test_without_a_limit_finished_runs_tell_the_seconds_of_a_step(entries):
    planned = entries(max_epochs=90, max_steps=-1)
    assert "unknown until one run is done" in hours(planned, 1)
    finish(planned[0], 200, 100)
    assert "10.00 for 2 runs (from finished runs, 2 s a step)" in hours(planned, 1)


def test_the_first_limit_of_steps_counts(entries):
    planned = entries(max_epochs=90, max_steps=1800)
    finish(planned[0], 200, 100)
    assert "2.00 for 2 runs" in hours(planned, 1)


def test_what_is_done_takes_no_more_hours(entries):
    planned = entries(max_time="00:01:00:00")
    for entry in planned:
        finish(entry, 60, 10)
    assert "0; every run is done" in hours(planned, 1)


def test_each_run_has_the_measured_step_of_its_own_norm(entries):
    planned = entries(max_steps=3600)
    planned[1], planned[2] = changed(planned[1], "group"), changed(planned[2], "frn")
    said = hours(planned, 1, {"seed=0": 1.0, "seed=1": 1.5, "seed=2": 3.5})
    assert "6.00 for 3 runs (from bare steps of 1 to 3.5 s, measured now)" in said


def test_norms_and_batch_sizes_have_paces_of_their_own(entries):
    planned = entries(max_steps=3600)
    left = [changed(planned[2], *kind) for kind in (("batch", 2), ("frn", 2), ("frn", 4))]
    left = [replace(entry, run=Run({"fold": n}, ()), files=RunFiles(entry.files.run_dir / str(n)))
            for n, entry in enumerate(left)]  # fmt: skip
    planned[1] = changed(planned[1], "frn")
    finish(planned[0], 100, 100)
    finish(planned[1], 200, 100)
    # An hour, two, and two for each half of a batch.
    assert "7.00 for 3 runs" in hours([*planned[:2], *left], 1)


def test_start_labels_scores_and_measurements_count(entries):
    planned = entries(max_steps=200)[:1]
    work = Work(validated=30, labelled=600, cases=10)
    # A window forwards is a third of a sixth of a step; validated twice, then labelled.
    seconds = 200 * 6 + (2 * 30 + 600) * 1 + START_SECONDS + 10 * CASE_SECONDS
    assert f"{seconds / 3600:.2f} for 1 runs" in hours(planned, 1, {"seed=0": 6.0}, work)
    limited = entries(max_time="00:01:00:00")[:1]
    seconds = 3600 + 600 + START_SECONDS + 10 * CASE_SECONDS
    assert f"{seconds / 3600:.2f} for 1 runs" in hours(limited, 1, {"seed=0": 6.0}, work)


def test_finished_runs_tell_what_follows_a_training(entries):
    planned = entries(max_steps=100)
    finish(planned[0], 200, 100, whole=3600 + 200)
    said = hours(planned, 1, work=Work(1e9, 1e9, 1e9))
    assert "2.11 for 2 runs" in said
    assert "3.6e+03 s a run for all but training, as in the finished ones" in said


def test_a_trained_run_has_only_the_rest_before_it(entries):
    planned = entries(max_steps=100)
    finish(planned[0], 3600, 100, whole=7200)
    for entry in planned[1:]:
        write_json(entry.files.fit, {"interrupted": False, "seconds": 3600, "steps": 100})
    assert "2.00 for 2 runs" in hours(planned, 1)
