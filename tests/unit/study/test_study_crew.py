"""Waiting for a run that another process holds."""

import fcntl
import threading
import time

from medseg.study.crew import alone


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
