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
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from medseg.report.sources import Source

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999")
"""Okabe & Ito's colours, which colour-blind readers can tell apart."""

LONGEST_LABEL = 24

MARKERS = "osD^vP*X"
LINES = ("-", "--", "-.", ":")

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
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "medseg",
    "svg.fonttype": "path",
}


def curves(sources: Sequence[Source]) -> str | None:
    """Draw validation Dice against time and training loss against steps; None without curves."""
    if not any(source.curves for source in sources):
        return None
    with _styled():
        figure = Figure(figsize=(7.2, 2.7), layout="constrained")
        left, right = figure.subplots(1, 2)
        for place, source in enumerate(sources):
            _curve(left, source, place, "seconds", "val/dice")
            _curve(right, source, place, "step", "train/loss")
        left.set(title="Validation Dice", xlabel="training time, s", ylim=(0, 1))
        right.set(title="Training loss", xlabel="optimizer steps", yscale="log")
        _plain_ticks(right.yaxis)
        left.set_xlim(left=0)
        right.set_xlim(left=0)
        handles, labels = left.get_legend_handles_labels()
        if len(sources) > 1:
            figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5))
        return _image(figure)


def strips(sources: Sequence[Source]) -> str | None:
    """Draw the Dice of every case, per class and run; lines join a case. None without scores."""
    scored = [source for source in sources if source.case_ids]
    classes = tuple(dict.fromkeys(name for source in scored for name in source.class_names))
    if not classes:
        return None
    columns = min(len(classes), 3)
    rows = math.ceil(len(classes) / columns)
    with _styled():
        figure = Figure(figsize=(7.2, 2.6 * rows), layout="constrained")
        panels = np.atleast_1d(figure.subplots(rows, columns, sharey=True, squeeze=False)).ravel()
        for axes, class_name in zip(panels, classes, strict=False):
            _strip(axes, scored, class_name)
        for axes in panels[len(classes) :]:
            axes.set_visible(False)
        panels[0].set(ylabel="Dice", ylim=_dice_limits(scored))
        return _image(figure)


def volumes(sources: Sequence[Source]) -> str | None:
    """Draw Dice against the reference volume of each structure; None without scores."""
    scored = [source for source in sources if source.case_ids]
    if not scored:
        return None
    with _styled():
        figure = Figure(figsize=(7.2, 2.9), layout="constrained")
        axes = figure.subplots()
        for place, source in enumerate(scored):
            points = [
                (source.value(case_id, name, "volume_ref_ml"), source.value(case_id, name, "dice"))
                for case_id in source.case_ids
                for name in source.class_names
            ]
            known = np.array([p for p in points if p[0] > 0 and not math.isnan(p[1])])
            if len(known):
                axes.plot(*known.T, **_dots(place), alpha=0.65, label=_label(source.name))
        axes.set(xscale="log", xlabel="reference volume, ml", ylabel="Dice")
        axes.set_ylim(_dice_limits(scored))
        _plain_ticks(axes.xaxis)
        if len(scored) > 1:
            figure.legend(loc="outside lower center", ncols=min(len(scored), 5))
        return _image(figure)


def _curve(axes: Axes, source: Source, place: int, x: str, y: str) -> None:
    points = [(row[x], row[y]) for row in source.curves if x in row and y in row]
    if points:
        axes.plot(*zip(*points, strict=True), LINES[place % len(LINES)], lw=1.3,
                  color=COLOURS[place % len(COLOURS)], label=_label(source.name),
                  marker=MARKERS[place % len(MARKERS)], ms=3)  # fmt: skip


def _strip(axes: Axes, sources: Sequence[Source], class_name: str) -> None:
    cases = tuple(dict.fromkeys(c for source in sources for c in source.case_ids))
    table = np.array([[s.value(c, class_name, "dice") for s in sources] for c in cases])
    spread = np.random.default_rng(0).uniform(-0.13, 0.13, (len(cases), 1))
    place = np.arange(len(sources))
    if len(sources) > 1:
        axes.plot((place + spread).T, table.T, color="#bbbbbb", lw=0.35, alpha=0.6, zorder=1)
    for column, _ in enumerate(sources):
        known = ~np.isnan(table[:, column])
        values = table[known, column]
        axes.plot(column + spread[known, 0], values, **_dots(column), alpha=0.75, zorder=2)
        if len(values):
            low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
            axes.plot([column + 0.27] * 2, [low, high], color="#222222", lw=1.0)
            axes.plot([column + 0.20, column + 0.34], [middle] * 2, color="#222222", lw=1.6)
    axes.set(title=_label(class_name), xlim=(-0.5, len(sources) - 0.4))
    names = [_label(source.name) for source in sources]
    long = max(map(len, names)) * len(names) > 36
    axes.set_xticks(place, names, rotation=30 if long else 0, ha="right" if long else "center")


def _dice_limits(sources: Sequence[Source]) -> tuple[float, float]:
    """Return limits that hold every case and waste little below the lowest."""
    values = [s.value(c, n, "dice") for s in sources for c in s.case_ids for n in s.class_names]
    lowest = min((value for value in values if not math.isnan(value)), default=0.0)
    return max(math.floor(10 * lowest - 0.5) / 10, 0.0) - 0.03, 1.03


def _plain_ticks(axis: Axis) -> None:
    """Write 0.2, 0.5, 1 on a logarithmic axis, not powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
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


@contextmanager
def _styled() -> Iterator[None]:
    with mpl.rc_context(_STYLE):
        yield


def _image(figure: Figure) -> str:
    """Return a figure as a data URI; an image may hold its own styles under any policy."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return "data:image/svg+xml;base64," + base64.b64encode(out.getvalue()).decode()
