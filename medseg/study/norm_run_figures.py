"""Figures of a study of norms run by run: learning rates, samples, seeds and cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from medseg.core.endpoints import Array
from medseg.report.style import INK, WIDTH, guide_lines, image, label, line, styled
from medseg.study.choosing import choices_at, choosing_dice, chosen
from medseg.study.curve_reading import dice_at
from medseg.study.norm_figures import ACROSS, SPAN, name_norms
from medseg.study.outcomes import Outcome, Study

DPI = 200
"""Of what is drawn as pixels."""

HEIGHT = 2.6
"""Of a row of panels, inches."""

DIVERGED: dict[str, Any] = {"marker": "x", "ms": 5.0, "mew": 1.4, "ls": "none"}
"""The look of a run that diverged."""


def dice_by_rate(study: Study) -> str | None:
    """Draw the Dice on the choosing fold against the learning rate, a panel a batch size."""
    if len({o.learning_rate for o in study.select()}) < 2:
        return None

    floor = _floor(study)

    def draw(axes: Axes, size: int) -> None:
        for place, norm in enumerate(study.norms):
            group = study.select(norm, size)
            _mean_and_range(axes, place, _by(group, lambda o: o.learning_rate))
            bad = [
                (o.learning_rate, max(choosing_dice(o) or 0.0, floor))
                for o in group
                if o.status == "diverged"
            ]
            if bad:
                axes.plot(*zip(*bad, strict=True), color=line(place)["color"], **DIVERGED)
        rates = sorted({o.learning_rate for o in study.select()})
        axes.set_xscale("log")
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("learning rate")

    return _panels(study, draw, "Dice, choosing fold", cut=floor)


def curves_by_samples(study: Study) -> str | None:
    """Draw validation Dice against samples seen, each norm at its own learning rate."""
    if not any(o.curve for o in study.select()):
        return None

    def draw(axes: Axes, size: int) -> None:
        choices = choices_at(study, size)
        for place, norm in enumerate(study.norms):
            runs = chosen(study, choices[norm]) if norm in choices else ()
            _mean_and_range(axes, place, _along(runs), band=True)
        axes.set_xlabel("samples seen")

    return _panels(study, draw, "validation Dice", cut=_floor(study))


def _along(runs: Sequence[Outcome]) -> dict[float, list[float]]:
    """Return the validation Dice of every run at each count of samples that one has.

    One that diverged is 0 from there on, with or without a curve; one that finished is not read
    beyond its end.
    """
    kept = [o for o in runs if o.curve is not None or o.status == "diverged"]
    read = [(o, o.curve.samples if o.curve is not None else ()) for o in kept]
    counts = sorted({count for _, samples in read for count in samples})
    return {
        count: [
            dice_at(outcome, count, "samples")
            for outcome, samples in read
            if outcome.status == "diverged" or count <= samples[-1]
        ]
        for count in counts
    }


def every_run(study: Study) -> str | None:
    """Draw every training as a point: outcomes come in two kinds, which a mean would hide."""
    if not any(choosing_dice(o) is not None for o in study.select()):
        return None
    floor = _floor(study)

    def draw(axes: Axes, size: int) -> None:
        choices = choices_at(study, size)
        for place, norm in enumerate(study.norms):
            best = choices[norm].learning_rate if norm in choices else None
            for outcome in study.select(norm, size):
                dice = choosing_dice(outcome)
                if dice is None:
                    continue
                filled = outcome.learning_rate == best
                shift = 0.12 * (outcome.seed % 5 - 2) / 2
                look: dict[str, Any] = {"marker": "o", "ms": 4.2, "ls": "none"}
                if outcome.status == "diverged":
                    look = dict(DIVERGED)
                colour = line(place)["color"]
                axes.plot(place + shift, max(dice, floor), color=colour,
                          mfc=colour if filled else "none", clip_on=False, **look)  # fmt: skip
        names = [label(norm, 12) for norm in study.norms]
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
        axes.tick_params(axis="x", length=0)

    return _panels(study, draw, "Dice, choosing fold", named=False, cut=floor)


def differences(study: Study) -> str | None:
    """Draw each reported case's difference to the baseline, mean over seeds.

    The points are pixels: thousands of them as shapes would be most of the page.
    """

    def draw(axes: Axes, size: int) -> None:
        choices = choices_at(study, size)
        tables = {n: _case_means(chosen(study, choice)) for n, choice in choices.items()}
        ours = tables.get(study.baseline)
        others = [norm for norm in study.norms if norm != study.baseline]
        for row, norm in enumerate(others):
            table = tables.get(norm)
            if ours is None or table is None:
                continue
            values = table - ours
            spread: Array = np.random.default_rng(0).uniform(-0.2, 0.2, values.shape)
            place = study.norms.index(norm)
            axes.plot(row + spread, values, "o", ms=2.2, mec="none", alpha=0.7,
                      color=line(place)["color"], rasterized=True)  # fmt: skip
            axes.plot([row - 0.3, row + 0.3], [np.nanmean(values)] * 2, color=INK, lw=1.4)
        axes.axhline(0, color=INK, lw=0.6)
        axes.set_xticks(range(len(others)), [label(n, 12) for n in others], rotation=40, ha="right")
        axes.tick_params(axis="x", length=0)

    if study.baseline not in study.norms or len(study.norms) < 2 or not study.cases:
        return None
    return _panels(study, draw, f"Dice less that of {study.baseline}", named=False)


def _case_means(runs: Sequence[Outcome]) -> Array | None:
    rows = [o.scores.dice for o in runs if o.scores is not None]
    return np.array(rows, np.float64).mean(axis=0) if rows and len(rows) == len(runs) else None


def _floor(study: Study) -> float:
    """Return where axes of Dice are cut: what lies far below the best would hide the rest."""
    values = [dice for o in study.select() if (dice := choosing_dice(o)) is not None]
    best = max(values, default=1.0)
    return max(min(values, default=0.0), best - SPAN)


def _panels(
    study: Study,
    draw: Callable[[Axes, int], None],
    y: str,
    named: bool = True,
    cut: float | None = None,
) -> str | None:
    """Draw a panel for each batch size, side by side on one axis of Dice."""
    sizes = study.batch_sizes
    rows, columns = math.ceil(len(sizes) / ACROSS), min(len(sizes), ACROSS)
    with styled():
        figure = Figure(figsize=(WIDTH, HEIGHT * rows), dpi=DPI, layout="constrained")
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes in panels.flat[len(sizes) :]:
            axes.axis("off")
        for axes, size in zip(panels.flat, sizes, strict=False):
            draw(axes, size)
            axes.set_title(f"batch size {size}")
            guide_lines(axes)
            if cut is not None:
                axes.set_ylim(bottom=cut - 0.005)
        for axes in panels[:, 0]:
            axes.set_ylabel(y)
        if named:
            name_norms(figure, study)
        return image(figure)


def _by(outcomes: Sequence[Outcome], key: Callable[[Outcome], float]) -> dict[float, list[float]]:
    grouped: dict[float, list[float]] = {}
    for outcome in outcomes:
        if (dice := choosing_dice(outcome)) is not None:
            grouped.setdefault(key(outcome), []).append(dice)
    return grouped


def _mean_and_range(
    axes: Axes, place: int, grouped: Mapping[float, Sequence[float]], band: bool = False
) -> None:
    """Draw the mean over seeds, and from the lowest to the highest."""
    at = sorted(grouped)
    if not at:
        return
    look = line(place)
    axes.plot(at, [float(np.mean(grouped[x])) for x in at], **look)
    low, high = [min(grouped[x]) for x in at], [max(grouped[x]) for x in at]
    if band:
        axes.fill_between(at, low, high, color=look["color"], alpha=0.15, lw=0)
    else:
        axes.vlines(at, low, high, color=look["color"], lw=0.8)
