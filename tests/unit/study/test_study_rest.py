"""How many runs are left while a study works, and how long they take."""

import pytest

from medseg.study import rest
from medseg.study.rest import Rest


@pytest.fixture
def clock(monkeypatch):
    """Return a function that lets seconds go by."""
    now = [0.0]
    monkeypatch.setattr(rest.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_runs_that_are_done_tell_of_the_others_by_what_was_predicted(clock):
    left = Rest(["a", "b", "c"], {"a": 100, "b": 200, "c": 400}, workers=1)
    assert left.begin("a") == "1 of 3"
    clock(50)
    assert left.end("a", tells=True) == "; 2 left, about 5 min"  # half of 600 s
    assert left.begin("b") == "2 of 3"
    clock(250)
    assert left.end("b", tells=True) == "; 1 left, about 7 min"
    assert left.end("c", tells=True) == ""


def test_without_a_prediction_all_runs_take_as_long(clock):
    left = Rest(["a", "b", "c"], {}, workers=1)
    assert left.end("a", tells=True) == "; 2 left"  # another study has done it
    left.begin("b")
    clock(30)
    assert left.end("b", tells=True) == "; 1 left, about 30 s"


def test_what_ended_otherwise_tells_nothing_and_the_prediction_holds(clock):
    left = Rest(["a", "b"], {"a": 90, "b": 90}, workers=1)
    left.begin("a")
    clock(1)
    assert left.end("a", tells=False) == "; 1 left, about 90 s"


def test_of_runs_side_by_side_what_is_done_of_them_is_not_left(clock):
    left = Rest(["a", "b", "c"], {}, workers=2)
    left.begin("a")
    clock(20)
    left.begin("b")
    clock(40)
    # 20 s of b, 60 s of c.
    assert left.end("a", tells=True) == "; 2 left, about 40 s"
