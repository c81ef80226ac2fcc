"""Validation curves read: when a level is reached, and all at the same count of samples or steps.

A level that is not reached is censored: its time counts as the horizon, the end that all curves
have in common, so that a mean over seeds is the restricted mean of Kaplan and Meier's estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from medseg.core.endpoints import Array
from medseg.study.choosing import choices_at, chosen
from medseg.study.claim_intervals import SHARE, mean_row
from medseg.study.claim_rows import Row
from medseg.study.measurements import Curve
from medseg.study.outcomes import Outcome, Study

View = Literal["samples", "steps", "seconds"]

VIEWS_OF_BUDGET: tuple[View, ...] = ("samples", "steps")
"""Budgets that are equal for all trainings of a study; the other one is read from the curves."""


def horizon(runs: Sequence[Outcome], view: View) -> float | None:
    """Return the largest count that every finished run reached; None without curves."""
    curves = [o.curve for o in runs if o.status == "finished"]
    known = [curve for curve in curves if curve is not None and curve.dice]
    if not known or len(known) < len(curves):
        return None
    return min(float(counts(curve, view)[-1]) for curve in known)


def counts(curve: Curve, view: View) -> Array:
    """Return where a curve was read."""
    return np.asarray(getattr(curve, view), dtype=np.float64)


def first_reached(curve: Curve | None, level: float, view: View, values: str = "dice") -> float:
    """Return when a curve first reaches a level, by linear interpolation; infinite if never."""
    if curve is None:
        return math.inf
    dice, at = np.nan_to_num(np.asarray(getattr(curve, values), np.float64)), counts(curve, view)
    above = np.flatnonzero(dice >= level)
    if not len(above):
        return math.inf
    place = int(above[0])
    if place == 0:
        return float(at[0])
    rise = (level - dice[place - 1]) / (dice[place] - dice[place - 1])
    return float(at[place - 1] + rise * (at[place] - at[place - 1]))


def read_at(curve: Curve, count: float, view: View, values: str = "dice") -> float:
    """Return a curve at one count, by linear interpolation; NaN counts 0."""
    dice = np.nan_to_num(np.asarray(getattr(curve, values), np.float64))
    return float(np.interp(count, counts(curve, view), dice))


def dice_at(outcome: Outcome, count: float, view: View) -> float:
    """Return the validation Dice of a training that has ended; 0 from its divergence on.

    Args:
        outcome: Without a curve it diverged before its first validation.
        count: Where to read it.
        view: What is counted.
    """
    curve = outcome.curve
    if curve is None or (outcome.status == "diverged" and count > counts(curve, view)[-1]):
        return 0.0
    return read_at(curve, count, view)


def _with_curves(runs: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """Return the runs that have ended; none if a finished one among them has no curve."""
    ended = tuple(outcome for outcome in runs if outcome.has_ended)
    lacking = any(o.curve is None for o in ended if o.status == "finished")
    return () if lacking else ended


def mean_until(curve: Curve | None, end: float, view: View) -> float:
    """Return the mean of a curve up to an end: its area over its width; 0 without a curve.

    From 0 to the first validation the curve rises from 0. What follows a divergence counts 0.
    """
    if curve is None:
        return 0.0
    at = np.concatenate([[0.0], counts(curve, view)])
    dice = np.concatenate([[0.0], np.nan_to_num(np.asarray(curve.dice, np.float64))])
    inside = at < end
    x, y = at[inside], dice[inside]
    if at[-1] >= end:
        x, y = np.append(x, end), np.append(y, np.interp(end, at, dice))
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2 / end)


def at_common_count(study: Study, view: View) -> tuple[Row, ...]:
    """Return validation Dice of each norm and batch size at the largest count all reached.

    Equal samples and equal steps are two views and two tables: what is read in one is never
    compared with what is read in the other. Each norm is at its own learning rate; runs that
    diverged keep what they have, which is 0 after that.
    """
    groups = [
        group
        for size in study.batch_sizes
        for choice in choices_at(study, size).values()
        if (group := _with_curves(chosen(study, choice)))
    ]
    end = horizon([outcome for group in groups for outcome in group], view)
    if end is None:
        return ()
    rows = []
    for group in groups:
        dice = [dice_at(outcome, end, view) for outcome in group]
        name = f"validation Dice at {end:g} {view}"
        row = mean_row(name, group[0].norm, group[0].batch_size, dice, SHARE)
        diverged = sum(outcome.status == "diverged" for outcome in group)
        told = f"; {diverged} diverged" if diverged else ""
        rows.append(replace(row, method=row.method + told))
    return tuple(rows)
