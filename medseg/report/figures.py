"""The report's figures, as SVG text: curves, strips, volumes."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from medseg.report.sources import Source

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999")
"""Okabe & Ito's colours, which colour-blind readers can tell apart."""

MARKERS = "osD^vP<X>"
LINES = ("-", "--", "-.", ":")
"""Nine markers and eight colours: 72 runs before a look returns."""

WIDTH = 7.2
LONGEST_LABEL = 24
MOST_MARKERS = 8
"""On one curve; the points between stay unmarked."""

FEW_TICKS, MANY_TICKS = 4, 200
"""Ratio of an axis' ends below which 1, 2, 5 are too few, and above which they are too many."""

_STYLE = {
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#444444",
    "axes.labelcolor": "#222222",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.labelcolor": "#222222",
    "ytick.labelcolor": "#222222",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "svg.hashsalt": "medseg",
    "svg.fonttype": "path",
}


def curves(sources: Sequence[Source]) -> str | None:
    """Draw validation Dice and training loss against time and steps; None without curves."""
    trained = [source for source in sources if source.curves]
    if not trained:
        return None
    with _styled():
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        panels = figure.subplots(2, 2, sharex="col", sharey="row")
        for row, (y, title) in enumerate(
            (("val/dice", "Validation Dice"), ("train/loss", "Training loss"))
        ):
            for column, x in enumerate(("seconds", "step")):
                for place, source in enumerate(sources):
                    _curve(panels[row, column], source, place, x, y)
            panels[row, 0].set_ylabel(title)
        for axes in panels.ravel():
            _guide_lines(axes)
        panels[1, 0].set(xlabel="training time, s", xlim=(0, None))
        panels[1, 1].set(xlabel="optimizer steps", xlim=(0, None))
        panels[0, 0].set_ylim(_dice_limits(_curve_values(trained, "val/dice")))
        losses = _curve_values(trained, "train/loss")
        if losses and min(losses) > 0:
            panels[1, 0].set_yscale("log")
            _plain_ticks(panels[1, 0].yaxis)
        _legend(figure, sources, trained, lines=True)
        return _image(figure)


def strips(sources: Sequence[Source]) -> str | None:
    """Draw the Dice of every case, per class and run; lines join a case. None without scores."""
    scored = [source for source in sources if source.case_ids]
    if not scored:
        return None
    with _styled():
        figure, panels = _class_panels(scored, height=2.7, narrow=len(scored) > 6)
        for axes, class_name in panels:
            _strip(axes, sources, scored, class_name)
        return _image(figure)


def volumes(sources: Sequence[Source]) -> str | None:
    """Draw Dice against reference volume, a panel a class; None where volumes are not known."""
    scored = [source for source in sources if source.case_ids]
    points = {
        (source.name, name): _volume_points(source, name)
        for source in scored
        for name in source.class_names
    }
    if not any(map(len, points.values())):
        return None
    with _styled():
        figure, panels = _class_panels(scored, height=2.5)
        for axes, class_name in panels:
            for place, source in enumerate(sources):
                drawn = points.get((source.name, class_name), np.empty((0, 2)))
                axes.plot(*drawn.T, **_dots(place), alpha=0.75)
            axes.set(xscale="log", xlabel="reference volume, ml")
            _plain_ticks(axes.xaxis)
        _legend(figure, sources, scored)
        return _image(figure)


def _volume_points(source: Source, class_name: str) -> NDArray[np.float64]:
    """Return volume and Dice of the structures that are there, shape (structures, 2)."""
    metrics = ("volume_ref_ml", "dice")
    rows = [[source.value(c, class_name, metric) for metric in metrics] for c in source.case_ids]
    table = np.array(rows).reshape(-1, 2)
    return np.asarray(table[(table[:, 0] > 0) & ~np.isnan(table[:, 1])])


def _curve(axes: Axes, source: Source, place: int, x: str, y: str) -> None:
    points = [(row[x], row[y]) for row in source.curves if x in row and y in row]
    if points:
        axes.plot(*zip(*points, strict=True), **_line(place),
                  markevery=math.ceil(len(points) / MOST_MARKERS))  # fmt: skip


def _strip(
    axes: Axes, sources: Sequence[Source], scored: Sequence[Source], class_name: str
) -> None:
    cases = tuple(dict.fromkeys(c for source in scored for c in source.case_ids))
    table = np.array([[s.value(c, class_name, "dice") for s in scored] for c in cases])
    spread = np.random.default_rng(0).uniform(-0.13, 0.13, (len(cases), 1))
    columns = np.arange(len(scored))
    if len(scored) > 1:
        axes.plot((columns + spread).T, table.T, color="#999999", lw=0.35, alpha=0.55, zorder=1)
    for column, source in enumerate(scored):
        known = ~np.isnan(table[:, column])
        values = table[known, column]
        look = _dots(sources.index(source))
        axes.plot(column + spread[known, 0], values, **look, alpha=0.8, zorder=2)
        if len(values):
            low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
            axes.plot([column + 0.27] * 2, [low, high], color="#222222", lw=1.0)
            axes.plot([column + 0.20, column + 0.34], [middle] * 2, color="#222222", lw=1.6)
    axes.set_xlim(-0.5, len(scored) - 0.4)
    names = [_label(source.name) for source in scored]
    long = max(map(len, names)) * len(names) > 24
    axes.set_xticks(columns, names, rotation=30 if long else 0, ha="right" if long else "center")
    axes.tick_params(axis="x", length=0)


def _class_panels(
    scored: Sequence[Source], height: float, narrow: bool = False
) -> tuple[Figure, list[tuple[Axes, str]]]:
    """Return a figure with a panel a class, on one Dice axis."""
    classes = tuple(dict.fromkeys(name for source in scored for name in source.class_names))
    across = 1 if narrow else min(len(classes), 3)
    down = math.ceil(len(classes) / across)
    figure = Figure(figsize=(WIDTH, height * down), layout="constrained")
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    values = [s.value(c, n, "dice") for s in scored for c in s.case_ids for n in s.class_names]
    grid[0, 0].set_ylim(_dice_limits(values))
    for axes in grid[:, 0]:
        axes.set_ylabel("Dice")
    for axes in grid.ravel()[len(classes) :]:
        axes.set_visible(False)
    panels = list(zip(grid.ravel(), classes, strict=False))
    for axes, name in panels:
        axes.set_title(_label(name))
        _guide_lines(axes)
    return figure, panels


def _guide_lines(axes: Axes) -> None:
    axes.grid(axis="y", color="#eeeeee", lw=0.6)
    axes.set_axisbelow(True)


def _legend(
    figure: Figure, sources: Sequence[Source], shown: Sequence[Source], lines: bool = False
) -> None:
    """Name the runs below a figure that shows several."""
    if len(shown) < 2:
        return
    places = [sources.index(source) for source in shown]
    looks = [_line(place) if lines else _dots(place) for place in places]
    handles = [mpl.lines.Line2D([], [], **look) for look in looks]
    names = [_label(source.name) for source in shown]
    columns = max(1, min(len(names), 100 // (6 + max(map(len, names)))))
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


def _curve_values(sources: Sequence[Source], name: str) -> list[float]:
    return [row[name] for source in sources for row in source.curves if name in row]


def _dice_limits(values: Sequence[float]) -> tuple[float, float]:
    """Return limits that hold every value and waste little below the lowest."""
    lowest = min((value for value in values if not math.isnan(value)), default=0.0)
    return max(math.floor(10 * lowest - 0.5) / 10, 0.0) - 0.03, 1.03


def _plain_ticks(axis: Axis) -> None:
    """Write 0.2, 0.5, 1 on a logarithmic axis, not powers of ten."""
    low, high = axis.get_view_interval()
    if high / low < FEW_TICKS:
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    else:
        axis.set_major_locator(
            LogLocator(subs=(1.0, 2.0, 5.0) if high / low < MANY_TICKS else (1.0,))
        )
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _label(name: str) -> str:
    """Return a name for a figure: short, on one line, its dollar signs no formula."""
    text = "".join(letter if letter.isprintable() else "?" for letter in name)
    if len(text) > LONGEST_LABEL:
        text = f"…{text[1 - LONGEST_LABEL :]}"
    return text.replace("$", r"\$")


def _dots(place: int) -> dict[str, Any]:
    """Return the look of a run's points: told apart by colour and by shape."""
    return {
        "linestyle": "none",
        "marker": MARKERS[place % len(MARKERS)],
        "markersize": 3.2,
        "markeredgecolor": "none",
        "color": COLOURS[place % len(COLOURS)],
    }


def _line(place: int) -> dict[str, Any]:
    """Return the look of a run's curve: the same colour and shape, and a line style."""
    return _dots(place) | {"linestyle": LINES[place % len(LINES)], "linewidth": 1.2}


@contextmanager
def _styled() -> Iterator[None]:
    with mpl.rc_context(_STYLE):
        yield


def _image(figure: Figure) -> str:
    """Return a figure as a data URI; an image may hold its own styles under any policy."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return "data:image/svg+xml;base64," + base64.b64encode(out.getvalue()).decode()
