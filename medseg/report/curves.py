"""The figure of the trainings: validation Dice and loss against time and steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medseg.report.sources import Source
from medseg.report.style import (
    INK,
    MOST_RUNS,
    WIDTH,
    dice_limits,
    guide_lines,
    image,
    label,
    line,
    plain_ticks,
    styled,
)

MOST_MARKERS = 8
"""On one curve; the points between stay unmarked."""

LABEL_GAP = 0.1
"""Least distance of two labels, in heights of a panel."""

ROWS = (("val/dice", "validation Dice"), ("train/loss", "training loss"))
COLUMNS = (("seconds", "training time, s"), ("step", "optimizer steps"))


def curves(sources: Sequence[Source]) -> str | None:
    """Draw validation Dice and training loss against time and steps; None without curves."""
    trained = [source for source in sources if source.curves][:MOST_RUNS]
    if not trained:
        return None
    with styled():
        figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
        panels = figure.subplots(2, 2, sharex="col", sharey="row")
        for row, (y, _) in enumerate(ROWS):
            for column, (x, _) in enumerate(COLUMNS):
                guide_lines(panels[row, column])
                for source in trained:
                    _curve(panels[row, column], source, sources.index(source), x, y)
        for axes, (_, title) in zip(panels[:, 0], ROWS, strict=True):
            axes.set_ylabel(title)
        for axes, (_, title) in zip(panels[1], COLUMNS, strict=True):
            axes.set(xlabel=title, xlim=(0, None))
        panels[0, 0].set_ylim(dice_limits(_values(trained, "val/dice")))
        losses = _values(trained, "train/loss")
        if losses and min(losses) > 0:
            panels[1, 0].set_yscale("log")
            plain_ticks(panels[1, 0].yaxis)
        for row, (y, _) in enumerate(ROWS):
            _name_ends(panels[row, 1], sources, trained, y)
        return image(figure)


def case_words(sources: Sequence[Source]) -> str:
    """Say over how many validation cases the Dice of the curves is, where that is known."""
    counts = {str(s.fit["val_cases"]) for s in sources if s.curves and "val_cases" in s.fit}
    return f" Validation: n = {' or '.join(sorted(counts))} cases." if counts else ""


def _curve(axes: Axes, source: Source, place: int, x: str, y: str) -> None:
    points = [(row[x], row[y]) for row in source.curves if x in row and y in row]
    if points:
        axes.plot(*zip(*points, strict=True), **line(place),
                  markevery=math.ceil(len(points) / MOST_MARKERS))  # fmt: skip


def _name_ends(axes: Axes, sources: Sequence[Source], trained: Sequence[Source], y: str) -> None:
    """Name each run beside the panel, as near to the end of its curve as the others allow."""
    ends = {}
    for source in trained:
        if values := [row[y] for row in source.curves if y in row]:
            shown = axes.transScale.transform((1, values[-1]))
            ends[source.name] = float(axes.transLimits.transform(shown)[1])
    order = sorted(ends, key=lambda name: ends[name])
    for name, height in zip(order, _apart([ends[name] for name in order]), strict=True):
        place = next(i for i, source in enumerate(sources) if source.name == name)
        axes.plot([1.03, 1.09], [height] * 2, **line(place) | {"marker": "none"}, clip_on=False,
                  transform=axes.transAxes)  # fmt: skip
        axes.text(1.11, height, label(name), transform=axes.transAxes, va="center", color=INK)


def _apart(heights: Sequence[float]) -> list[float]:
    """Move ascending heights as little as leaves the gap between any two."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + LABEL_GAP) if moved else height)
    return list(np.asarray(moved) - np.mean(np.asarray(moved) - np.asarray(heights)))


def _values(sources: Sequence[Source], name: str) -> list[float]:
    return [row[name] for source in sources for row in source.curves if name in row]
