"""Ray: the same outcomes as with our own supervisor, on one machine and on two nodes."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import pytest
from engine_handlers import Start

from medseg.core.errors import CheckpointError, OptionError
from medseg.engine.cluster import supervise_on_ray
from medseg.engine.outcome import WorkerDiedError

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed"
)


@pytest.fixture
def start(tmp_path, monkeypatch):
    folders = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return Start(tmp_path / "log")


@pytest.fixture
def cluster(start):
    """Start a cluster of two nodes with room for one actor each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster, node
    cluster.shutdown()


def echoes(numbers):
    return [("echo", number) for number in numbers]


def test_without_ray_the_way_to_get_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"--engine ray needs Ray: pip install 'medseg\[ray\]'"):
        list(supervise_on_ray(None, [1], workers=1))


@needs_ray
@pytest.mark.slow
def test_ray_on_one_machine(start):
    """All good, a worker killed once, poison, an exception, claims: one start of Ray for all."""
    import ray

    jobs = [*echoes(range(9)), ("die_once", 7), ("die", 9), ("fail", 5), ("skip", 0)]
    outcomes = {
        outcome.job: outcome
        for outcome in supervise_on_ray(
            start, iter(jobs), workers=2, claim=lambda job: job[0] != "skip"
        )
    }
    assert not ray.is_initialized()
    assert len(outcomes) == 12
    assert sorted(outcomes[job].result[0] for job in echoes(range(9))) == list(range(9))
    assert outcomes["die_once", 7].result[0] == 7
    assert outcomes["die_once", 7].attempt == 2
    poison = outcomes["die", 9]
    assert (poison.result, poison.attempt) == (None, 2)
    assert isinstance(poison.error, WorkerDiedError)
    assert "worker process has died" in str(poison.error)
    assert start.lines().count("die 9") == 2
    assert isinstance(outcomes["fail", 5].error, ValueError)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@needs_ray
@pytest.mark.slow
def test_ray_ends_when_no_more_may_be_sent_or_nothing_can_start(start, tmp_path):
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        seen = deque()
        jobs = echoes(range(100))
        seen.extend(supervise_on_ray(start, jobs, workers=2, may_go_on=lambda: len(seen) < 3))
        assert 3 <= len(seen) <= 3 + 4
        with pytest.raises(CheckpointError, match="runs/a has no checkpoint"):
            list(supervise_on_ray(Start(tmp_path / "log", "error"), echoes([1]), workers=1))
        with pytest.raises(WorkerDiedError, match="before it was ready, 2 times"):
            list(supervise_on_ray(Start(tmp_path / "log", "kill"), echoes([1]), workers=1))
        assert ray.is_initialized()
    finally:
        ray.shutdown()


@needs_ray
@pytest.mark.slow
def test_a_lost_node_is_survived(start, cluster):
    nodes, second = cluster
    jobs = [("sleep", 0.5 + number / 1000) for number in range(10)]
    outcomes = {}
    for outcome in supervise_on_ray(start, jobs, workers=2, address=nodes.address):
        outcomes[outcome.job] = outcome
        if len(outcomes) == 4:
            time.sleep(0.2)
            nodes.remove_node(second, allow_graceful=False)
    assert sorted(outcomes) == jobs
    assert {outcome.error for outcome in outcomes.values()} == {None}
    assert sum(outcome.attempt == 2 for outcome in outcomes.values()) in (1, 2)


@needs_ray
@pytest.mark.slow
def test_a_worker_and_a_poison_job_are_survived_on_two_nodes(start, cluster):
    nodes, _ = cluster
    jobs = [*echoes(range(9)), ("die", 9), ("die_once", 7), ("die", 9)]
    outcomes = list(supervise_on_ray(start, jobs, workers=2, address=nodes.address))
    assert sorted(o.result[0] for o in outcomes if o.result) == [0, 1, 2, 3, 4, 5, 6, 7, 7, 8]
    assert [outcome.job for outcome in outcomes if outcome.error] == [("die", 9)] * 2


SCRIPT = """
from pathlib import Path
from engine_handlers import Start
from medseg.engine.cluster import supervise_on_ray
jobs = [("sleep", 1 + number / 1000) for number in range(100)]
try:
    for outcome in supervise_on_ray(Start(Path({log!r})), jobs, workers=2):
        print(outcome.result, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_lets_running_jobs_finish_and_nothing_is_left(start, number):
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(log=str(start.log))],
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        wait_until(lambda: start.log.exists() and sum("sleep" in x for x in start.lines()) >= 2)
        assert len(actors()) == 2
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.kill()
        printed, _ = process.communicate(timeout=30)
    if number == signal.SIGINT:
        assert len(printed.split()) in range(3, 6)  # at most two jobs at each of two actors
        assert printed.split()[-1] == "interrupted"
    wait_until(lambda: not actors(), 5)


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def actors():
    """Return the processes of our actors; Ray's own agents stay for a minute, by design."""
    table = subprocess.check_output(["ps", "-A", "-o", "pid=,args="], text=True)
    return {int(line.split()[0]) for line in table.splitlines() if "ray::Remote" in line}


@needs_ray
@pytest.mark.slow
def test_an_address_without_a_cluster_and_a_machine_without_gpus_are_said(start):
    with pytest.raises(OptionError, match="no Ray cluster answers at 'auto'"):
        list(supervise_on_ray(start, echoes([1]), workers=1, address="auto"))
    with pytest.raises(OptionError, match="Ray finds no 99 GPU for a worker on this machine"):
        list(supervise_on_ray(start, echoes([1]), workers=1, gpus_per_worker=99))
