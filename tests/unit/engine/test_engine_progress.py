"""Progress on a terminal and in a log."""

import io
import itertools
import logging
import sys
from types import SimpleNamespace

import pytest

from medseg.engine import progress
from medseg.engine.progress import duration, printable, track


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show_terminal(monkeypatch):
    """Let standard error be a terminal; called in the test, since pytest exchanges it between."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    return screen


@pytest.fixture
def log_lines(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("medseg"), "propagate", True)
    caplog.set_level(logging.INFO, "medseg")
    return caplog


@pytest.fixture
def slowly(monkeypatch):
    """Have a clock that goes on by more than a second at each look."""
    ticks = itertools.count(0.0, 1.5)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(ticks)))


@pytest.mark.usefixtures("slowly")
def test_log_has_about_ten_lines_however_long_the_work(log_lines):
    assert list(track(range(1000), "scoring", 1000)) == list(range(1000))
    assert len(log_lines.messages) == 10
    assert log_lines.messages[0].startswith("scoring: 100 of 1000 (10 %), about ")
    assert log_lines.messages[-1].startswith("scoring: 1000 of 1000 (100 %), took ")


@pytest.mark.usefixtures("slowly")
def test_log_of_a_short_list_has_a_line_each(log_lines):
    assert list(track(iter("ab"), "reading", 2)) == ["a", "b"]
    assert len(log_lines.messages) == 2


def test_what_is_done_in_no_time_has_one_line(log_lines):
    assert list(track(range(1000), "scoring", 1000)) == list(range(1000))
    assert log_lines.messages == ["scoring: 1000 of 1000 (100 %), took 0 s"]


def test_nothing_to_do_says_nothing(log_lines):
    assert list(track([], "reading", 0)) == []
    assert log_lines.messages == []


@pytest.mark.parametrize("name", ["[/]", "[bold red]x[/bold red]", "{task}", "=cmd()"])
def test_bar_shows_hostile_names_as_they_are(monkeypatch, name):
    screen = show_terminal(monkeypatch)
    assert list(track([1, 2], "scoring", 2, name=lambda _: name)) == [1, 2]
    assert name in screen.getvalue()
    assert "2/2" in screen.getvalue()


def test_bar_shows_no_control_characters_of_a_name(monkeypatch):
    screen = show_terminal(monkeypatch)
    list(track([1], "scoring", 1, name=lambda _: "a\x1b]0;owned\x07b"))
    assert "owned" in screen.getvalue()
    assert "\x1b]0;" not in screen.getvalue()


def test_bar_is_put_away_when_the_work_is_given_up(monkeypatch):
    screen = show_terminal(monkeypatch)
    running = track([1, 2], "scoring", 2)
    next(running)
    assert sys.stderr is not screen, "log lines pass above the bar"
    running.close()
    assert sys.stderr is screen


def test_durations_have_two_units():
    assert [duration(s) for s in (0.4, 59, 61, 3725)] == ["0 s", "59 s", "1 min 1 s", "1 h 2 min"]


def test_printable_keeps_letters_of_all_scripts():
    assert printable("Größe 大\n") == "Größe 大?"
