"""Figures of Dice: of every case, and against size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medseg.report.sources import Source
from medseg.report.style import (
    INK,
    LONGEST_LABEL,
    WIDTH,
    dice_limits,
    dots,
    grid_place,
    guide_lines,
    image,
    label,
    plain_ticks,
    shown_together,
    styled,
)

ACROSS = 4
"""Panels side by side."""

OF_CLASSES = 3
"""Panels side by side where each shows all runs."""

LETTERS = 105
"""That fit side by side below a figure of full width."""

SHORT = 15
"""Letters of a name where room is scarce."""

Panel = tuple[Axes, Source, str]


def strips(sources: Sequence[Source]) -> str | None:
    """Draw the Dice of every case, per class and run; lines join a case. None without scores."""
    shown = shown_together(sources)
    if not shown:
        return None
    with styled():
        figure, panels = class_panels(shown, height=2.7, narrow=len(shown) > 6)
        panels[0][0].set_ylim(dice_limits(_all_dice(shown)))
        for axes, class_name in panels:
            _strip(axes, sources, shown, class_name)
            if grid_place(axes).is_first_col():
                axes.set_ylabel("Dice")
        return image(figure)


def sizes(sources: Sequence[Source]) -> str | None:
    """Draw Dice against reference volume, a panel a class and run; None without volumes."""
    shown = shown_together(sources)
    points = {(s.name, name): _volume_points(s, name) for s in shown for name in s.class_names}
    if not any(map(len, points.values())):
        return None
    with styled():
        figure, panels = run_panels(shown, height=1.75)
        for axes, source, class_name in panels:
            drawn = points[source.name, class_name] if class_name in source.class_names else ()
            axes.plot(*np.reshape(drawn, (-1, 2)).T, **dots(sources.index(source)), alpha=0.9)
            name_panel(axes, source, class_name, len(drawn))
            axes.set(xscale="log", ylim=dice_limits(_all_dice(shown)))
            plain_ticks(axes.xaxis)
        name_axes(figure, "reference volume, ml (logarithmic)", "Dice")
        return image(figure)


def run_panels(shown: Sequence[Source], height: float) -> tuple[Figure, list[Panel]]:
    """Return a figure with a panel for each class and run, a class on its own rows and axes."""
    classes = tuple(dict.fromkeys(name for source in shown for name in source.class_names))
    across = min(len(shown), ACROSS)
    down = math.ceil(len(shown) / across)
    figure = Figure(
        figsize=(WIDTH, height * down * len(classes) + 0.5 + (across == 1)), layout="constrained"
    )
    grid = figure.subplots(down * len(classes), across, squeeze=False)
    panels = []
    for place, name in enumerate(classes):
        rows = grid[down * place : down * (place + 1)].ravel()
        for axes, source in zip(rows, shown, strict=False):
            axes.sharex(rows[0])
            axes.sharey(rows[0])
            guide_lines(axes)
            axes.tick_params(labelleft=grid_place(axes).is_first_col())
            panels.append((axes, source, name))
        for axes in rows[len(shown) :]:
            axes.set_visible(False)
    return figure, panels


def name_panel(axes: Axes, source: Source, class_name: str, count: int) -> None:
    """Name class, run and number of structures of a panel."""
    axes.set_title(f"{label(class_name, SHORT)}, n = {count}\n{label(source.name)}")


def name_axes(figure: Figure, across: str, up: str) -> None:
    """Name the axes that all panels have."""
    figure.supxlabel(across, size=8, color=INK)
    figure.supylabel(up, size=8, color=INK)


def _all_dice(shown: Sequence[Source]) -> list[float]:
    return [s.value(c, n, "dice") for s in shown for c in s.case_ids for n in s.class_names]


def _volume_points(source: Source, class_name: str) -> NDArray[np.float64]:
    """Return volume and Dice of the structures that are there, shape (structures, 2)."""
    metrics = ("volume_ref_ml", "dice")
    rows = [[source.value(c, class_name, metric) for metric in metrics] for c in source.case_ids]
    table = np.array(rows).reshape(-1, 2)
    return np.asarray(table[(table[:, 0] > 0) & ~np.isnan(table[:, 1])])


def _strip(axes: Axes, sources: Sequence[Source], shown: Sequence[Source], name: str) -> None:
    cases = tuple(dict.fromkeys(c for source in shown for c in source.case_ids))
    table = np.array([[s.value(c, name, "dice") for s in shown] for c in cases])
    spread = np.random.default_rng(0).uniform(-0.13, 0.13, (len(cases), 1))
    columns = np.arange(len(shown))
    if len(shown) > 1:
        axes.plot((columns + spread).T, table.T, color="#999999", lw=0.35, alpha=0.55, zorder=1)
    for column, source in enumerate(shown):
        known = ~np.isnan(table[:, column])
        values = table[known, column]
        look = dots(sources.index(source))
        axes.plot(column + spread[known, 0], values, **look, alpha=0.8, zorder=2)
        _box(axes, column + 0.27, values)
    axes.set_xlim(-0.5, len(shown) - 0.4)
    counts = (~np.isnan(table)).sum(axis=0)
    room = LETTERS // grid_place(axes).get_gridspec().ncols
    long = max(len(label(s.name)) for s in shown) * len(shown) > room
    words = "{}, n = {}" if long else "{}\nn = {}"
    names = [
        words.format(label(s.name, SHORT if long else LONGEST_LABEL), n)
        for s, n in zip(shown, counts, strict=True)
    ]
    axes.set_xticks(columns, names, rotation=30 if long else 0, ha="right" if long else "center")
    axes.tick_params(axis="x", length=0)


def _box(axes: Axes, place: float, values: NDArray[np.float64]) -> None:
    """Draw quartiles as a box, the median as its bar, the range as its whiskers."""
    if len(values):
        lowest, low, middle, high, highest = np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
        axes.vlines([place] * 2, [lowest, high], [low, highest], color=INK, lw=0.6)
        axes.bar(place, high - low, 0.11, low, color="white", ec=INK, lw=0.7, zorder=3)
        axes.hlines(middle, place - 0.055, place + 0.055, color=INK, lw=1.8, zorder=4)


def class_panels(
    shown: Sequence[Source], height: float, narrow: bool = False
) -> tuple[Figure, list[tuple[Axes, str]]]:
    """Return a figure with a panel a class, all on the same axes."""
    classes = tuple(dict.fromkeys(name for source in shown for name in source.class_names))
    across = 1 if narrow else min(len(classes), OF_CLASSES)
    down = math.ceil(len(classes) / across)
    figure = Figure(figsize=(WIDTH, height * down), layout="constrained")
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    return figure, list(_named(grid.ravel().tolist(), classes))


def _named(grid: Sequence[Axes], classes: Sequence[str]) -> Iterator[tuple[Axes, str]]:
    for place, axes in enumerate(grid):
        axes.set_visible(place < len(classes))
        if place < len(classes):
            axes.set_title(label(classes[place]))
            guide_lines(axes)
            yield axes, classes[place]
