"""The supervisor: everything done once, whatever happens to workers, and nothing left behind."""

import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from engine_handlers import Eager, Greedy, Start

from medseg.core.errors import CheckpointError
from medseg.engine.outcome import WorkerDiedError
from medseg.engine.supervisor import supervise

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="workers need POSIX")


@pytest.fixture
def start(tmp_path):
    return Start(tmp_path / "log")


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Fail if a test leaves a process, a zombie or a descriptor behind."""
    before = descriptors()
    yield
    assert descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def descriptors():
    return sorted(path.name for path in Path("/dev/fd").iterdir())


def run(start, jobs, **options):
    return list(supervise(start, jobs, **{"workers": 2, **options}))


def echoes(numbers):
    return [("echo", number) for number in numbers]


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_job_is_answered_once(start, workers, ahead):
    outcomes = run(start, iter(echoes(range(9))), workers=workers, ahead=ahead)
    assert sorted(outcome.result[0] for outcome in outcomes) == list(range(9))
    assert {(outcome.error, outcome.attempt) for outcome in outcomes} == {(None, 1)}
    assert (os.getpid() in {outcome.result[1] for outcome in outcomes}) == (workers == 0)
    assert 1 <= start.lines().count("start") <= max(workers, 1)


def test_one_worker_keeps_the_order(start):
    outcomes = run(start, echoes(range(9)), workers=1, ahead=2)
    assert [outcome.job[1] for outcome in outcomes] == list(range(9))


def test_a_worker_holds_no_more_than_it_may():
    jobs = list(range(6))
    outcomes = run(Greedy(3), jobs, workers=1, ahead=2)
    assert [outcome.result for outcome in outcomes] == [2, 1, 0, 5, 4, 3]


def test_jobs_are_taken_when_there_is_a_worker_for_them(start):
    taken = itertools.count()
    jobs = (("echo", next(taken)) for _ in range(100_000))
    outcomes = supervise(start, jobs, workers=2, ahead=1)
    for _ in range(10):
        next(outcomes)
    outcomes.close()
    assert next(taken) <= 10 + 2 * 2


def test_a_worker_killed_once_is_made_good(start):
    jobs = [*echoes(range(3)), ("die_once", 7), *echoes(range(3, 6))]
    outcomes = run(start, jobs)
    assert sorted(outcome.result[0] for outcome in outcomes) == [0, 1, 2, 3, 4, 5, 7]
    assert [o.attempt for o in outcomes if o.job[0] == "die_once"] == [2]


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_a_poison_job_harms_no_neighbour(start, attempts):
    jobs = [*echoes(range(5)), ("die", 9), *echoes(range(5, 10))]
    outcomes = run(start, jobs, workers=1, ahead=2, attempts=attempts)
    assert sorted(o.result[0] for o in outcomes if o.result) == list(range(10))
    (lost,) = [outcome for outcome in outcomes if outcome.result is None]
    assert isinstance(lost.error, WorkerDiedError)
    assert "killed by signal 9 (out of memory?)" in str(lost.error)
    assert lost.attempt == attempts
    assert start.lines().count("die 9") == attempts
    assert {outcome.attempt for outcome in outcomes if outcome.result} == {1}


@pytest.mark.parametrize("attempts", [1, 2])
def test_poison_among_jobs_begun_together_harms_no_neighbour(attempts):
    jobs = [1, 2, "die", 4, 5, 6]
    outcomes = run(Eager(), jobs, workers=1, ahead=2, attempts=attempts)
    assert sorted(o.result for o in outcomes if o.result) == [1, 2, 4, 5, 6]
    (lost,) = [outcome for outcome in outcomes if outcome.error]
    # Which of those begun had killed it was not known after the first attempt.
    assert (lost.job, lost.attempt) == ("die", 2)


def test_all_jobs_may_be_poison(start):
    outcomes = run(start, [("die", number) for number in (9, 11, 9)], ahead=1)
    assert all(isinstance(outcome.error, WorkerDiedError) for outcome in outcomes)
    assert sorted(outcome.job[1] for outcome in outcomes) == [9, 9, 11]
    assert any("killed by signal 11 (Segmentation fault)" in str(o.error) for o in outcomes)


def test_a_worker_that_leaves_is_said_to_have_left(start):
    (outcome,) = run(start, [("leave", 3)], workers=1, attempts=1)
    assert "ended with exit code 3 in attempt 1" in str(outcome.error)


def test_a_dead_worker_is_noticed_though_its_child_holds_the_pipe(start):
    started = time.monotonic()
    (outcome,) = run(start, [("die_with_child", 20)], workers=1, attempts=1)
    assert isinstance(outcome.error, WorkerDiedError)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("verb", ["fail", "unpicklable"])
def test_an_exception_that_ends_the_handler_loses_only_its_job(start, verb):
    outcomes = run(start, [*echoes(range(4)), (verb, 5)], ahead=1)
    assert sorted(o.result[0] for o in outcomes if o.result) == list(range(4))
    (lost,) = [outcome for outcome in outcomes if outcome.error]
    assert lost.attempt == 2
    assert not isinstance(lost.error, WorkerDiedError)
    assert "engine_handlers.py" in lost.error.__notes__[0] or verb == "unpicklable"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_start_is_the_error_of_all(tmp_path, workers):
    with pytest.raises(CheckpointError, match="runs/a has no checkpoint"):
        run(Start(tmp_path / "log", "error"), echoes(range(3)), workers=workers)


def test_a_start_that_always_kills_ends(tmp_path):
    start = Start(tmp_path / "log", "kill")
    with pytest.raises(
        WorkerDiedError, match=r"killed by signal 9 .* before it was ready, 2 times"
    ):
        run(start, echoes(range(3)))
    assert start.lines() == ["start"] * 4


def test_a_start_that_kills_once_is_tried_again(tmp_path):
    start = Start(tmp_path / "log", "kill once")
    outcomes = run(start, echoes(range(3)), workers=1)
    assert [outcome.attempt for outcome in outcomes] == [1, 1, 1]
    assert start.lines().count("start") == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_claimed_is_left_out(start, workers):
    outcomes = run(start, echoes(range(9)), workers=workers, claim=lambda job: job[1] % 3 == 0)
    assert sorted(outcome.job[1] for outcome in outcomes) == [0, 3, 6]


@pytest.mark.parametrize("workers", [0, 2])
def test_running_jobs_finish_when_no_more_may_be_sent(start, workers):
    seen = []
    done = supervise(
        start, echoes(range(100)), workers=workers, ahead=1, may_go_on=lambda: len(seen) < 3
    )
    seen.extend(done) if workers == 0 else [seen.append(outcome) for outcome in done]
    assert 3 <= len(seen) <= 3 + 4
    assert start.lines().count("start") + len(seen) == len(start.lines())


def test_large_jobs_and_results_pass(start):
    jobs = [("length", bytes(3_000_000)), ("big", 3_000_000)] * 4
    outcomes = run(start, jobs, workers=1, ahead=3)
    assert [outcome.result for outcome in outcomes][::2] == [3_000_000] * 4
    assert [len(outcome.result) for outcome in outcomes[1::2]] == [3_000_000] * 4


def test_workers_have_the_environment_they_are_given(start):
    (outcome,) = run(
        start, [("variable", "OMP_NUM_THREADS")], workers=1, environment={"OMP_NUM_THREADS": "3"}
    )
    assert outcome.result == "3"
    assert os.environ.get("OMP_NUM_THREADS") != "3"


def test_workers_import_neither_the_running_script_nor_torch(start):
    (outcome,) = run(start, [("modules", "torch")], workers=1)
    assert outcome.result == (False, None)


def test_closing_early_leaves_nothing(start):
    outcomes = supervise(start, [("echo", 1), ("sleep", 60), ("sleep", 60)], workers=2)
    started = time.monotonic()
    assert next(outcomes).result[0] == 1
    outcomes.close()
    assert time.monotonic() - started < 10


def test_many_small_jobs_leave_memory_and_descriptors_flat(start):
    peaks, open_files = [], set()
    outcomes = supervise(start, echoes(range(2000)), workers=2, ahead=2)
    for number, _ in enumerate(outcomes):
        if number % 500 == 100:
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            open_files.add(len(descriptors()))
    assert number == 1999
    assert peaks[-1] - peaks[0] < 5_000  # kB
    assert len(open_files) == 1


SCRIPT = """
import signal, sys, threading, time
from pathlib import Path
# A parent in the background passes on that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {folder!r})
from engine_handlers import Start
from medseg.engine.supervisor import supervise
jobs = [("sleep", 1 + number / 1000) for number in range(100)]
try:
    for outcome in supervise(Start(Path({log!r})), jobs, workers=2):
        print(outcome.result, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.fixture
def script(start):
    """Start a process of its own group that supervises two workers, each busy with a job."""
    code = SCRIPT.format(folder=str(Path(__file__).parent), log=str(start.log))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, process_group=0
    ) as process:
        wait_until(lambda: start.log.exists() and sum("sleep" in x for x in start.lines()) >= 2)
        yield process
        process.kill()


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def members(group):
    """Return the living processes of a group."""
    table = subprocess.check_output(["ps", "-A", "-o", "pgid=,stat="], text=True)
    rows = [line.split() for line in table.splitlines()]
    return [row for row in rows if int(row[0]) == group and not row[1].startswith("Z")]


def test_workers_follow_a_killed_supervisor_within_a_job(start, script):
    assert len(members(script.pid)) == 3
    script.kill()
    started = time.monotonic()
    wait_until(lambda: not members(script.pid), 3)
    assert time.monotonic() - started < 3
    assert not any(line.startswith("slept") for line in start.lines())


def test_interrupt_lets_running_jobs_finish_and_starts_no_other(start, script):
    os.killpg(script.pid, signal.SIGINT)
    printed, _ = script.communicate(timeout=10)
    assert sorted(printed.split()) == ["1.0", "1.001", "interrupted"]
    assert printed.endswith("interrupted\n")
    assert sum(line.startswith("sleep ") for line in start.lines()) == 2
    assert not members(script.pid)


def test_second_interrupt_ends_at_once(start, script):
    os.killpg(script.pid, signal.SIGINT)
    time.sleep(0.2)
    os.killpg(script.pid, signal.SIGINT)
    printed, _ = script.communicate(timeout=5)
    assert printed.split() == ["interrupted"]
    assert not members(script.pid)


def test_ctrl_c_is_usual_again_afterwards(start):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run(start, echoes(range(2)))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_may_supervise(start):
    found = []
    thread = threading.Thread(target=lambda: found.extend(run(start, echoes(range(3)))))
    thread.start()
    thread.join(30)
    assert len(found) == 3
