"""Figures of a study of norms: Dice by batch size, ranks, modes and a map."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medseg.core.endpoints import Array
from medseg.report.style import INK, WIDTH, guide_lines, image, label, line, styled
from medseg.study.accuracy_table import Accuracy, accuracies
from medseg.study.choosing import choices_at, choosing_dice, chosen
from medseg.study.outcomes import Outcome, Study
from medseg.study.recommendation import Recommendation

SPAN = 0.2
"""Of an axis of Dice, below the best: what lies far lower would hide the rest."""

ACROSS = 3
"""Panels side by side."""

DIVERGED: dict[str, Any] = {"marker": "x", "ms": 5.0, "mew": 1.4, "ls": "none"}
"""The look of a run that diverged."""


def dice_by_batch_size(study: Study) -> str | None:
    """Draw the reported Dice of each norm, at its own learning rate, against the batch size.

    Wu & He's first figure (2018), on the user's data; None with one batch size.
    """
    rows = {size: accuracies(study, size) for size in study.batch_sizes}
    found = [row for size in rows for row in rows[size]]
    if len(study.batch_sizes) < 2 or not found:
        return None
    with styled():
        figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        axes = figure.subplots()
        shift = 0.08 / max(len(study.norms) - 1, 1)
        for place, norm in enumerate(study.norms):
            points = [
                (math.log2(size) + shift * (2 * place - len(study.norms) + 1), row)
                for size in study.batch_sizes
                for row in rows[size]
                if row.norm == norm
            ]
            _with_intervals(axes, place, points)
        sizes = [math.log2(size) for size in study.batch_sizes]
        axes.set_xticks(sizes, [str(size) for size in study.batch_sizes])
        axes.set(xlabel="batch size", ylabel="mean foreground Dice, reported cases")
        dice = [row.dice for row in found]
        bottom = max(min(dice), max(dice) - SPAN) - 0.02
        # Intervals of norms that lie below the axis would stretch it to 0 and 1.
        # One case of one seed has no interval.
        tops = [max(row.dice, np.nan_to_num(row.ci_high)) for row in found if row.dice >= bottom]
        axes.set_ylim(bottom, max(tops) + 0.02)
        guide_lines(axes)
        name_norms(figure, study)
        return image(figure)


def _with_intervals(axes: Axes, place: int, points: Sequence[tuple[float, Accuracy]]) -> None:
    at = [x for x, _ in points]
    axes.plot(at, [row.dice for _, row in points], **line(place))
    axes.vlines(at, [row.ci_low for _, row in points], [row.ci_high for _, row in points],
                color=line(place)["color"], lw=0.8)  # fmt: skip


def three_modes(study: Study) -> str | None:
    """Draw Dice with running, precise and own statistics, of norms that keep statistics."""
    modes = ("running", "precise", "own")
    rows = [
        (f"{outcome_norm}, batch {size}", [_mode(runs, mode) for mode in modes])
        for size in study.batch_sizes
        for outcome_norm, runs in _kept(study, size)
    ]
    rows = [(name, values) for name, values in rows if all(values)]
    if not rows:
        return None
    with styled():
        figure = Figure(figsize=(WIDTH, 0.9 + 0.34 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for place, mode in enumerate(modes):
            for row, (_, values) in enumerate(rows):
                height = row + 0.24 * (place - 1)
                axes.barh(height, float(np.mean(values[place])), 0.2, lw=0,
                          color=line(place)["color"], label=mode if row == 0 else None)  # fmt: skip
                axes.plot(values[place], [height] * len(values[place]), "o", ms=2.6, color=INK)
        shown = [value for _, values in rows for group in values for value in group]
        axes.set_xlim(max(min(shown) - 0.1 * (max(shown) - min(shown)) - 0.02, 0), None)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.invert_yaxis()
        axes.set_xlabel("Dice on cases of the choosing fold; a dot is a seed; the axis is cut")
        figure.legend(loc="outside lower center", ncols=3)
        return image(figure)


def _kept(study: Study, size: int) -> Iterator[tuple[str, Sequence[Outcome]]]:
    """Yield norms with running statistics, and their runs at their own learning rate."""
    for norm, choice in choices_at(study, size).items():
        runs = chosen(study, choice)
        if any(o.probes.statistics_distance is not None for o in runs):
            yield norm, runs


def _mode(runs: Sequence[Outcome], mode: str) -> list[float]:
    values = [getattr(o.probes, f"dice_{mode}") for o in runs]
    return [value for value in values if value is not None]


def rank_shares(found: Mapping[int, Recommendation]) -> str | None:
    """Draw how often each norm comes first, second, ... in the resamples, a panel a batch size."""
    shown = {size: r.standing for size, r in found.items() if len(r.standing.norms) > 1}
    if not shown:
        return None
    most = max(len(standing.norms) for standing in shown.values())
    with styled():
        rows = math.ceil(len(shown) / ACROSS)
        columns = min(len(shown), ACROSS)
        figure = Figure(figsize=(WIDTH, (0.9 + 0.24 * most) * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False)
        for axes in panels.flat[len(shown) :]:
            axes.axis("off")
        for axes, (size, standing) in zip(panels.flat, shown.items(), strict=False):
            left: Array = np.zeros(len(standing.norms))
            for rank, shares in enumerate(np.array(standing.rank_shares).T):
                shade = 0.12 + 0.8 * rank / max(len(standing.norms) - 1, 1)
                axes.barh(range(len(shares)), shares, 0.7, left, color=str(shade), lw=0)
                left = left + shares
            axes.set_yticks(range(len(standing.norms)), [label(n, 12) for n in standing.norms])
            axes.invert_yaxis()
            axes.set_title(f"batch size {size}")
            axes.set_xlabel("share of resamples")
        return image(figure)


def heat_map(study: Study) -> str | None:
    """Draw the Dice on the choosing fold of each norm at each batch size and learning rate."""
    rates = sorted({o.learning_rate for o in study.select()})
    cells = [(size, rate) for size in study.batch_sizes for rate in rates]
    table = np.full((len(study.norms), len(cells)), np.nan)
    for row, norm in enumerate(study.norms):
        for column, (size, rate) in enumerate(cells):
            group = [o for o in study.select(norm, size) if o.learning_rate == rate]
            values = [dice for o in group if (dice := choosing_dice(o)) is not None]
            if values:
                table[row, column] = np.mean(values)
    if len(cells) < 2 or np.isnan(table).all():
        return None
    with styled():
        figure = Figure(figsize=(WIDTH, 1.0 + 0.3 * len(study.norms)), layout="constrained")
        axes = figure.subplots()
        low = max(float(np.nanmin(table)), float(np.nanmax(table)) - 0.2)
        axes.imshow(table, cmap="cividis", aspect="auto", vmin=low)
        for (row, column), value in np.ndenumerate(table):
            bright = value > (low + float(np.nanmax(table))) / 2
            text = "–" if math.isnan(value) else f"{value:.3f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=6.5,
                      color="black" if bright else "white")  # fmt: skip
        axes.set_yticks(range(len(study.norms)), [label(norm) for norm in study.norms])
        axes.set_xticks(range(len(cells)), [f"{size}\n{rate:g}" for size, rate in cells])
        axes.set_xlabel("batch size, and learning rate below it")
        axes.tick_params(length=0)
        return image(figure)


def name_norms(figure: Figure, study: Study) -> None:
    """Name the norms beside a figure."""
    handles = [mpl.lines.Line2D([], [], **line(place)) for place in range(len(study.norms))]
    names = [label(norm) for norm in study.norms]
    figure.legend(handles, names, loc="outside right center")
