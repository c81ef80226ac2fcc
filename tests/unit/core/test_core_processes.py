"""Whether another process still lives: killed ones, remembered ones, ids used again."""

import os
import subprocess
import sys

import pytest

from medseg.core import processes
from medseg.core.processes import lives, start_time


@pytest.fixture
def remembered():
    """Return the id of a killed process that nobody has waited for."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield process.pid


@pytest.mark.parametrize("started", ["", "1"])
def test_a_killed_process_that_nobody_has_waited_for_is_dead(started, remembered):
    os.kill(remembered, 0)  # the kernel still knows it
    assert not lives(remembered, started)


def test_the_living_live_and_another_start_is_another_process():
    assert lives(os.getpid())
    assert lives(os.getpid(), start_time(os.getpid()))
    assert not lives(os.getpid(), "1")


def test_the_living_are_seen_without_a_process_folder(tmp_path, monkeypatch, remembered):
    monkeypatch.setattr(processes, "PROCESSES", tmp_path)
    assert start_time(os.getpid())
    assert lives(os.getpid(), start_time(os.getpid()))
    assert not lives(os.getpid(), "another day")
    assert not lives(remembered)
