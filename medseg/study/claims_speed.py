"""The claim that training is faster: times to a level, censored where it is not reached."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from medseg.study.claim_intervals import SHARE, bootstrap_ratio_row, mean_row
from medseg.study.claim_rows import (
    MORE_SEEDS,
    NOT_DECIDABLE,
    NOT_SUPPORTED,
    SUPPORTED,
    Claim,
    Row,
    conclude,
)
from medseg.study.curve_reading import View, first_reached, horizon, mean_until
from medseg.study.outcomes import Outcome, Study
from medseg.study.pairing import Pairing, all_ended

LEVELS = (0.9, 0.95)
"""Shares of the baseline's final validation Dice, at which times are read."""

VIEWS: tuple[View, ...] = ("samples", "steps", "seconds")


def faster(study: Study) -> Claim:
    """Judge: networks with it train faster. Primary: samples to 90 % of its final Dice."""
    seen = Pairing(study)
    rows = [row for size in study.batch_sizes for row in _times(seen, size)]
    return conclude(
        "faster training",
        f"With {study.baseline} norm a network reaches the same Dice after fewer samples.",
        seen.settled(rows),
        seen.setting(f"{MORE_SEEDS}, and validations so often that curves begin below the level"),
    )


def _times(seen: Pairing, size: int) -> Iterator[Row]:
    norms = seen.norms(size)
    runs = {norm: all_ended(seen.runs(size, norm)) for norm in norms}
    baseline = seen.study.baseline
    ours = [o.curve for o in runs.get(baseline, []) if o.curve is not None and o.curve.dice]
    if not ours:
        return
    final = float(np.nan_to_num([curve.dice[-1] for curve in ours]).mean())
    if final <= 0:
        return  # everything is as good as a network that found nothing
    for view in VIEWS:
        end = horizon([outcome for group in runs.values() for outcome in group], view)
        if end is None:
            continue
        for share in LEVELS:
            yield from _times_to(seen, size, runs, (share, final), view, end)
        for norm, group in runs.items():
            areas = [mean_until(outcome.curve, end, view) for outcome in group]
            yield mean_row(f"mean validation Dice over {view}", norm, size, areas, SHARE)


def _times_to(
    seen: Pairing,
    size: int,
    runs: dict[str, list[Outcome]],
    level: tuple[float, float],
    view: View,
    end: float,
) -> Iterator[Row]:
    """Yield restricted mean times to a share of the final Dice, and their ratios."""
    share, final = level
    name = f"{view} to {100 * share:.0f} % of the final Dice"
    times = {
        norm: [first_reached(outcome.curve, share * final, view) for outcome in group]
        for norm, group in runs.items()
    }
    restricted = {norm: [min(time, end) for time in group] for norm, group in times.items()}
    for norm, group in restricted.items():
        reached = sum(time <= end for time in times[norm])
        method = f"{reached} of {len(group)} reached it; others count {end:g}"
        yield replace(mean_row(name, norm, size, group, (0.0, end)), method=method)
    primary = view == "samples" and share == LEVELS[0]
    ours = seen.study.baseline
    for norm, group in restricted.items():
        if norm == ours:
            continue
        base = seen.contrast(f"speed-up in {name}", size, norm, primary)
        base = replace(base, value=math.nan, n=min(len(group), len(restricted[ours])))
        if min(*group, *restricted[ours]) <= 0 or min(*times[norm], *times[ours]) > end:
            yield base  # a level that nobody reached, or that was there from the start
            continue
        early = [any(_before_first(o, share * final) for o in runs[n]) for n in (ours, norm)]
        if all(early):
            yield replace(base, method="none: both reached it before the first validation")
            continue
        row = bootstrap_ratio_row(base, group, restricted[ours], claimed=1)
        at_least = "" if min(times[norm]) <= end else f"at least: {norm} never reached it; "
        yield _bounded(replace(row, method=at_least + row.method), *early)


def _before_first(outcome: Outcome, level: float) -> bool:
    """Return whether a training was at a level when it was first looked at, since when unknown."""
    return outcome.curve is not None and max(outcome.curve.dice[:1], default=0.0) >= level


def _bounded(row: Row, ours_early: bool, theirs_early: bool) -> Row:
    """Return a speed-up as the bound that it is where one norm was there before the first look."""
    if ours_early:
        kept = row.decision if row.decision == SUPPORTED else NOT_DECIDABLE
        early = f"at least: {row.norm} reached it before the first validation; "
    elif theirs_early:
        kept = row.decision if row.decision == NOT_SUPPORTED else NOT_DECIDABLE
        early = f"at most: {row.against} reached it before the first validation; "
    else:
        return row
    return replace(row, decision=kept, method=early + row.method)
