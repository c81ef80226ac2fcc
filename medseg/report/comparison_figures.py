"""The figures of a comparison: differences case by case, all cases, rank frequencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from medseg.core.comparison import Comparison, Level
from medseg.core.pairs import Pair
from medseg.core.ranking import Ranking
from medseg.report.style import COLOURS, MARKERS, WIDTH, guide_lines, image, label, styled

ACROSS = 3
MOST_PAIRS = 12
"""Panels of one figure; the tables have every pair."""

MOST_CROWDED = 40
"""Cases from which on points are drawn smaller and joining lines fainter."""

INK, SOFT, GREY = "#222222", "#666666", "#999999"

Array = NDArray[np.float64]


def differences(comparison: Comparison) -> str | None:
    """Draw the sorted differences of every pair; None if no case is in both of any."""
    pairs = [pair for pair in comparison.primary if pair.n][:MOST_PAIRS]
    if not pairs:
        return None
    across = min(len(pairs), ACROSS)
    down = math.ceil(len(pairs) / across)
    with styled():
        figure = Figure(figsize=(WIDTH, 2.1 * down + 0.3), layout="constrained")
        panels = figure.subplots(down, across, sharey=True, squeeze=False)
        for axes, pair in zip(panels.ravel(), pairs, strict=False):
            _waterfall(axes, comparison, pair)
        for axes in panels.ravel()[len(pairs) :]:
            axes.set_visible(False)
        for axes in panels[:, 0]:
            axes.set_ylabel("difference of Dice")
        limit = max(map(abs, panels[0, 0].get_ylim()))
        panels[0, 0].set_ylim(-limit, limit)
        return image(figure)


def _waterfall(axes: Axes, comparison: Comparison, pair: Pair) -> None:
    names = [level.name for level in comparison.levels]
    places = [names.index(name) for name in (pair.first, pair.second)]
    first, second = (np.array(comparison.levels[place].values) for place in places)
    found = np.sort((second - first)[~np.isnan(second - first)])
    columns = np.arange(len(found))
    colours = [COLOURS[places[int(value > 0)] % len(COLOURS)] for value in found]
    if not math.isnan(pair.ci_low):
        axes.axhspan(pair.ci_low, pair.ci_high, color="#d5d5d0", lw=0, zorder=0)
    axes.bar(columns, found, width=0.72, color=colours, lw=0, zorder=2)
    axes.axhline(0, color=INK, lw=0.6, zorder=3)
    axes.axhline(pair.difference, color=INK, lw=1.0, ls=(0, (4, 2)), zorder=3)
    axes.set_title(f"{label(pair.second)} − {label(pair.first)}")
    axes.set_xticks([])
    axes.set_xlim(-1, len(found))
    # Above the bars that go down, and below those that go up.
    for name, count, at, how in (
        (pair.second, pair.wins, (0.02, 0.97), "top"),
        (pair.first, pair.losses, (0.98, 0.03), "bottom"),
    ):
        axes.text(*at, f"{label(name)} better: {count}", transform=axes.transAxes, va=how,
                  ha="left" if how == "top" else "right", color=SOFT, fontsize=7)  # fmt: skip
    axes.spines["bottom"].set_visible(False)
    guide_lines(axes)


def cases(comparison: Comparison) -> str | None:
    """Draw every case of every variant beside its box; None without a case."""
    levels = comparison.levels
    table = np.array([level.values for level in levels])
    if np.isnan(table).all():
        return None
    with styled():
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        axes = figure.subplots()
        spread: Array = np.random.default_rng(0).uniform(-0.14, 0.10, (table.shape[1],))
        places = np.arange(len(levels))
        crowded = table.shape[1] > MOST_CROWDED
        axes.plot(places[:, None] + spread, table, color=GREY, lw=0.35,
                  alpha=0.35 if crowded else 0.6, zorder=1)  # fmt: skip
        for place, level in enumerate(levels):
            _strip(axes, place, level, spread, crowded)
        names = [label(level.name) for level in levels]
        turned = max(map(len, names)) * len(names) > 90
        axes.set_xticks(places, names, rotation=30 if turned else 0,
                        ha="right" if turned else "center")  # fmt: skip
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(-0.4, len(levels) - 0.45)
        axes.set_ylabel("mean foreground Dice")
        guide_lines(axes)
        return image(figure)


def _strip(axes: Axes, place: int, level: Level, spread: Array, crowded: bool) -> None:
    values = np.array(level.values)
    known = ~np.isnan(values)
    colour = COLOURS[place % len(COLOURS)]
    look: dict[str, Any] = {"marker": MARKERS[place % len(MARKERS)], "color": colour, "mec": "none"}
    axes.plot(place + spread[known], values[known], ls="none", **look,
              ms=2.6 if crowded else 3.4, alpha=0.85, zorder=2)  # fmt: skip
    line = {"color": INK, "lw": 0.9}
    axes.boxplot(values[known], positions=[place + 0.24], widths=0.13, showfliers=False,
                 manage_ticks=False, boxprops=line, whiskerprops=line, capprops=line,
                 medianprops={"color": INK, "lw": 1.8}, zorder=3)  # fmt: skip
    if len(level.seed_means) > 1:
        axes.plot([place + 0.37] * len(level.seed_means), level.seed_means, ls="none", marker="D",
                  ms=3.4, mfc="white", mec=colour, mew=1.0, zorder=4)  # fmt: skip


def rank_frequencies(comparison: Comparison) -> str | None:
    """Draw how often each variant has each rank, a panel an order; None without a ranking."""
    if not comparison.rankings:
        return None
    names = [label(level.name) for level in comparison.levels]
    with styled():
        figure = Figure(figsize=(WIDTH, 0.95 + 0.42 * len(names)), layout="constrained")
        panels = figure.subplots(1, len(comparison.rankings), sharey=True, squeeze=False)[0]
        for axes, ranking in zip(panels, comparison.rankings, strict=True):
            _blobs(axes, ranking)
            axes.set_title(ranking.order)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.45, -0.55)
        return image(figure)


def _blobs(axes: Axes, ranking: Ranking) -> None:
    count = len(ranking.ranks)
    for row, shares in enumerate(ranking.frequencies):
        colour = COLOURS[row % len(COLOURS)]
        for column, share in enumerate(shares):
            if share > 0:
                axes.scatter(column + 1, row, s=420 * share, color=colour, lw=0, alpha=0.85)
                axes.annotate(f"{share:.0%}", (column + 1, row), (13, 0), va="center",
                              textcoords="offset points", fontsize=6.5, color=SOFT)  # fmt: skip
        axes.plot(ranking.ranks[row], row, marker="+", ms=5, mew=1.0, color=INK)
    axes.set_xlim(0.6, count + 0.6)
    axes.set_xlabel("rank")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#eeeeee", lw=0.6)
    axes.set_axisbelow(True)


def hidden_pairs(pairs: Sequence[Pair]) -> int:
    """Return how many pairs the figure of differences leaves out."""
    return max(0, sum(pair.n > 0 for pair in pairs) - MOST_PAIRS)
