"""Jobs in worker processes: results, exceptions, and workers that die."""

import os
import signal
import subprocess
import sys

import pytest

from medseg.core.errors import MedsegError, VolumeError
from medseg.engine.parallel import MOST_WORKERS, WorkerDiedError, default_workers, run_jobs


def work(job):
    number, parent = job
    if number == 2:
        raise VolumeError("x.nii", "truncated", "half of it is gone", "fetch it again")
    if number == 3 and os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return number, os.getpid()


def jobs(*numbers):
    return [(number, os.getpid()) for number in numbers]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_job_comes_back_with_its_result_or_exception(workers):
    results = {job[0]: result for job, result in run_jobs(work, jobs(0, 1, 2), workers)}
    assert results[0][0] == 0
    assert results[1][0] == 1
    assert isinstance(results[2], VolumeError)
    assert results[2].code == "truncated"
    here = {results[0][1], results[1][1]} == {os.getpid()}
    assert here == (workers < 2)


def test_a_worker_that_dies_takes_only_its_job_along():
    results = {job[0]: result for job, result in run_jobs(work, jobs(0, 1, 3, 4), 2)}
    assert [results[number][0] for number in (0, 1, 4)] == [0, 1, 4]
    assert isinstance(results[3], WorkerDiedError)
    assert isinstance(results[3], MedsegError)


def test_results_come_as_they_are_ready():
    running = run_jobs(work, jobs(0, 1), 1)
    assert next(running)[1][0] == 0
    running.close()


def test_no_job_is_no_work():
    assert list(run_jobs(work, [], 4)) == []


def test_workers_fit_the_machine():
    assert 1 <= default_workers() <= MOST_WORKERS


def test_script_without_a_main_guard_runs_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import math\n"
        "from medseg.engine.parallel import run_jobs\n"
        "print(sorted(result for _, result in run_jobs(math.sqrt, [4.0, 9.0], 2)))\n"
    )
    done = subprocess.run(
        [sys.executable, script], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("[2.0, 3.0]\n", "")
