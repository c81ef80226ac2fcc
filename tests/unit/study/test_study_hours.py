"""Predicted hours of a study: from limits of time, from finished runs, or not known."""

from dataclasses import replace

import pytest

from medseg.core.runs import RunFiles, write_json
from medseg.study.grid import Run
from medseg.study.hours import predicted_hours
from medseg.study.planned import Planned


@pytest.fixture
def entries(tmp_path):
    """Return a function that plans three runs with the given limits."""

    def plan(**trainer):
        settings = {"trainer": trainer, "data": {"steps_per_epoch": 100, "batch_size": 2}}
        runs = [Run({"seed_everything": seed}, ()) for seed in range(3)]
        return [Planned(run, RunFiles(tmp_path / run.name), settings) for run in runs]

    return plan


def of_batch_size(entry, batch_size):
    return replace(entry, settings={**entry.settings, "data": {"batch_size": batch_size}})


def hours(planned, workers, measured=()):
    left = [entry for entry in planned if entry.state == "new"]
    return predicted_hours(planned, left, workers, lambda: dict(measured))


def finish(entry, seconds, steps):
    write_json(entry.files.fit, {"interrupted": False, "seconds": seconds, "steps": steps})


@pytest.mark.parametrize("limit", ["00:01:30:00", {"hours": 1, "minutes": 30}])
def test_limits_of_time_are_added_up(limit, entries):
    planned = entries(max_time=limit, max_epochs=1000)
    assert "4.50 for 3 trainings (from max_time)" in hours(planned, 1)
    assert "2.25 with 2 side by side" in hours(planned, 2)


def test_without_a_limit_finished_runs_tell_the_seconds_of_a_step(entries):
    planned = entries(max_epochs=90, max_steps=-1)
    assert "unknown until one run is done" in hours(planned, 1)
    finish(planned[0], 200, 100)
    assert "10.00 for 2 trainings (from a step in the finished runs: 2 s at batch size 2)" in hours(
        planned, 1
    )


def test_the_first_limit_of_steps_counts(entries):
    planned = entries(max_epochs=90, max_steps=1800)
    finish(planned[0], 200, 100)
    assert "2.00 for 2 trainings" in hours(planned, 1)


def test_what_is_trained_takes_no_more_hours(entries):
    planned = entries(max_time="00:01:00:00")
    for entry in planned:
        finish(entry, 60, 10)
    assert "0; every run is trained" in hours(planned, 1)


def test_a_measured_step_tells_where_no_run_is_finished(entries):
    planned = entries(max_steps=3600)
    planned[2] = of_batch_size(planned[2], 8)
    said = hours(planned, 1, {2: 1.0})
    # Twice an hour at batch 2, and four times that at batch 8.
    assert "6.00 for 3 trainings" in said
    assert "a bare step, measured now: 1 s at batch size 2" in said


def test_batch_sizes_have_paces_of_their_own(entries):
    planned = entries(max_steps=3600)
    planned[0] = of_batch_size(planned[0], 8)
    finish(planned[0], 400, 100)
    finish(planned[1], 100, 100)
    assert "1.00 for 1 trainings" in hours(planned, 1)
