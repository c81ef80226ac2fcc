"""What the figures draw, read from their SVG."""

import base64

import pytest

from medseg.report import style
from medseg.report.agreement import bland_altman
from medseg.report.curves import curves
from medseg.report.distances import distances
from medseg.report.figures import sizes, strips
from medseg.report.sources import read_source

JOINING = "stroke: #999999"
FIGURES = (curves, strips, sizes, distances, bland_altman)


def svg(figure):
    return base64.b64decode(figure.removeprefix("data:image/svg+xml;base64,")).decode()


def test_a_line_joins_each_case_in_all_runs(make_source):
    first, second = make_source("batch"), make_source("group")
    assert svg(strips([first, second])).count(JOINING) == 6  # 3 cases, 2 classes
    assert JOINING not in svg(strips([first]))


def test_a_run_looks_the_same_in_every_figure(make_source):
    sources = [make_source("batch"), make_source("group")]
    for figure in FIGURES:
        drawn = svg(figure(sources)).lower()
        assert all(colour.lower() in drawn for colour in style.COLOURS[:2])
        assert style.COLOURS[2].lower() not in drawn


def test_no_two_of_seventy_runs_look_alike():
    looks = {(look["color"], look["marker"]) for look in map(style.dots, range(72))}
    assert len(looks) == 72


def test_figures_are_the_same_every_time(make_source):
    sources = [make_source("batch"), make_source("group")]
    for figure in FIGURES:
        assert figure(sources) == figure(sources)


def test_without_curves_or_scores_there_are_no_figures(make_run):
    run = make_run()
    (run / "scores.csv").unlink()
    (run / "metrics.csv").unlink()
    source = read_source(run)
    assert [figure([source]) for figure in FIGURES] == [None] * len(FIGURES)


@pytest.mark.parametrize(("lowest", "limit"), [(0.77, 0.67), (0.0, -0.03), (0.31, 0.17)])
def test_the_dice_axis_holds_every_case(lowest, limit):
    assert style.dice_limits([0.9, float("nan"), lowest]) == (pytest.approx(limit), 1.03)


def test_names_are_short_printable_and_no_formula():
    assert style.label("a$b$\n") == r"a\$b\$?"
    assert style.label("x" * 40) == "…" + "x" * 23
