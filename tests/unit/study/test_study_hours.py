"""Predicted hours of a study: from limits of time, from finished runs, or not known."""

import pytest

from medseg.core.runs import RunFiles, write_json
from medseg.study.grid import Run
from medseg.study.hours import predicted_hours
from medseg.study.planned import Planned


@pytest.fixture
def entries(tmp_path):
    """Return a function that plans three runs with the given limits."""

    def plan(**trainer):
        settings = {"trainer": trainer, "data": {"steps_per_epoch": 100}}
        runs = [Run({"seed_everything": seed}, ()) for seed in range(3)]
        return [Planned(run, RunFiles(tmp_path / run.name), settings) for run in runs]

    return plan


def finish(entry, seconds, steps):
    write_json(entry.files.fit, {"interrupted": False, "seconds": seconds, "steps": steps})


@pytest.mark.parametrize("limit", ["00:01:30:00", {"hours": 1, "minutes": 30}])
def test_limits_of_time_are_added_up(limit, entries):
    planned = entries(max_time=limit, max_epochs=1000)
    assert "4.50 for 3 trainings (from max_time)" in predicted_hours(planned, planned, 1)
    assert "2.25 with 2 side by side" in predicted_hours(planned, planned, 2)


def test_without_a_limit_finished_runs_tell_the_seconds_of_a_step(entries):
    planned = entries(max_epochs=90, max_steps=-1)
    assert "unknown until one run is done" in predicted_hours(planned, planned, 1)
    finish(planned[0], 200, 100)
    assert "10.00 for 2 trainings (from 2 s a step" in predicted_hours(planned, planned, 1)


def test_the_first_limit_of_steps_counts(entries):
    planned = entries(max_epochs=90, max_steps=1800)
    finish(planned[0], 200, 100)
    assert "2.00 for 2 trainings" in predicted_hours(planned, planned, 1)


def test_what_is_trained_takes_no_more_hours(entries):
    planned = entries(max_time="00:01:00:00")
    for entry in planned:
        finish(entry, 60, 10)
    assert "0; every run is trained" in predicted_hours(planned, planned, 1)
