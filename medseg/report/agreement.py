"""Agreement of predicted with reference volumes: bias and limits, and the figure of them.

Bland and Altman, Statistical Methods in Medical Research 1999; 8: 135-160.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from medseg.core.statistics import CONFIDENCE
from medseg.report.figures import name_axes, name_panel, run_panels
from medseg.report.sources import Source
from medseg.report.style import INK, dots, grid_place, image, shown_together, styled
from medseg.report.tables import DASH, number

LIMITS = 1.96
"""Standard deviations from the bias to a limit of agreement: 95 % of a normal distribution."""

SPREAD_GROWS = 0.3
"""Rank correlation of |difference| and size from which differences are read in percent."""


@dataclass(frozen=True)
class Agreement:
    """Bias and limits of agreement, with half the width of their 95 % intervals.

    Attributes:
        n: Structures.
        bias: Mean difference.
        bias_half: Half width of its interval.
        low: Lower limit of agreement.
        high: Upper limit.
        limit_half: Half width of the interval of either limit.
    """

    n: int
    bias: float
    bias_half: float
    low: float
    high: float
    limit_half: float


def agreement(differences: ArrayLike) -> Agreement:
    """Return bias and limits of agreement; NaN where fewer than two differences are given."""
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    if n < 2:
        return Agreement(n, *[math.nan] * 5)
    bias, sd = float(values.mean()), float(values.std(ddof=1))
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    limit_half = quantile * sd * math.sqrt(1 / n + LIMITS**2 / (2 * (n - 1)))
    reach = LIMITS * sd
    return Agreement(n, bias, quantile * sd / math.sqrt(n), bias - reach, bias + reach, limit_half)


def volume_pairs(source: Source, class_name: str) -> NDArray[np.float64]:
    """Return reference and predicted ml of each structure that is in either, shape (n, 2)."""
    sides = ("volume_ref_ml", "volume_pred_ml")
    rows = [[source.value(c, class_name, side) for side in sides] for c in source.case_ids]
    table = np.array(rows).reshape(-1, 2)
    return np.asarray(table[table.sum(axis=1) > 0])  # NaN is not above 0 either


def points(pairs: NDArray[np.float64], percent: bool) -> NDArray[np.float64]:
    """Return mean volume and difference, the latter in ml or in percent of the former."""
    mean, difference = pairs.mean(axis=1), pairs[:, 1] - pairs[:, 0]
    return np.column_stack([mean, 100 * difference / mean if percent else difference])


def in_percent(sources: Sequence[Source]) -> Mapping[str, bool]:
    """Say for each class whether its differences grow with its size, over all runs."""
    tables: dict[str, list[NDArray[np.float64]]] = {}
    for source in sources:
        for name in source.class_names:
            tables.setdefault(name, []).append(points(volume_pairs(source, name), False))
    return {name: _grows(np.concatenate(columns)) for name, columns in tables.items()}


def _grows(table: NDArray[np.float64]) -> bool:
    mean, spread = table[:, 0], np.abs(table[:, 1])
    if len(table) < 3 or np.ptp(mean) == 0 or np.ptp(spread) == 0:
        return False
    return bool(stats.spearmanr(mean, spread).statistic > SPREAD_GROWS)


def bland_altman(sources: Sequence[Source]) -> str | None:
    """Draw difference against mean of the two volumes, a panel a class and run."""
    shown = shown_together(sources)
    percent = in_percent(sources)
    if not any(len(volume_pairs(s, name)) for s in shown for name in s.class_names):
        return None
    with styled():
        figure, panels = run_panels(shown, height=1.9)
        for axes, source, name in panels:
            table = points(volume_pairs(source, name), percent[name])
            axes.plot(*table.T, **dots(sources.index(source)), alpha=0.8)
            _lines(axes, agreement(table[:, 1]))
            name_panel(axes, source, name, len(table))
            if grid_place(axes).is_first_col():
                axes.set_ylabel("difference, %" if percent[name] else "difference, ml")
        name_axes(figure, "mean of reference and predicted volume, ml", "")
        return image(figure)


def _lines(axes: Axes, found: Agreement) -> None:
    axes.axhline(0, color="#999999", lw=0.5)
    if math.isnan(found.bias):
        return
    for value, half, style in (
        (found.bias, found.bias_half, "-"),
        (found.low, found.limit_half, (0, (4, 2))),
        (found.high, found.limit_half, (0, (4, 2))),
    ):
        axes.axhspan(value - half, value + half, color=INK, alpha=0.08, lw=0)
        axes.axhline(value, color=INK, lw=0.9, ls=style)
        axes.annotate(f"{value:+.3g}".replace("-", "−"), (1, value), (-1, 1.5), size=6.5, color=INK,
                      xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
                      va="bottom", path_effects=[withStroke(linewidth=1.6, foreground="white")],
                      )  # fmt: skip


def agreement_groups(sources: Sequence[Source]) -> list[tuple[str, list[dict[str, str]]]]:
    """Return the table of agreement: for each class a row a run."""
    percent = in_percent(sources)
    return [
        (
            name,
            [_row(source, name, percent[name]) for source in sources if name in source.class_names],
        )
        for name in percent
    ]


def _row(source: Source, name: str, percent: bool) -> dict[str, str]:
    found = agreement(points(volume_pairs(source, name), percent)[:, 1])
    digits = 1 if percent else 3

    def interval(value: float, half: float) -> str:
        ends = [number(end, digits, signed=True) for end in (value - half, value + half)]
        return (
            DASH
            if math.isnan(value)
            else f"{number(value, digits, signed=True)} [{', '.join(ends)}]"
        )

    return {
        "run": source.name,
        "n": str(found.n),
        "unit": "%" if percent else "ml",
        "bias": interval(found.bias, found.bias_half),
        "low": interval(found.low, found.limit_half),
        "high": interval(found.high, found.limit_half),
    }
