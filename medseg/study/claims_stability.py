"""Claims about what may go wrong: divergence, the luck of a seed, the initial weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from medseg.core.paired import ALPHA
from medseg.core.statistics import CONFIDENCE
from medseg.study.choosing import choosing_dice
from medseg.study.claim_intervals import SHARE, sd_ratio_row, sd_row
from medseg.study.claim_rows import (
    MORE_SEEDS,
    NOT_DECIDABLE,
    NOT_SUPPORTED,
    SUPPORTED,
    Claim,
    Decision,
    Row,
    conclude,
)
from medseg.study.outcomes import Outcome, Study
from medseg.study.pairing import Pairing, all_ended, at_rates, final_dice, probe


def stabler(study: Study) -> Claim:
    """Judge: training is more stable. Primary: divergence rate, SD over seeds."""
    seen = Pairing(study)
    rows = [*_divergences(seen), *seen.settled(_spreads(seen))]
    rows += seen.means("gradient spikes per 1000 steps", probe("gradient_spikes"))
    return conclude(
        "stability",
        f"With {study.baseline} norm training diverges less often and depends less on the seed.",
        rows,
        f"{MORE_SEEDS} and of grid.learning_rate, the largest ones too",
    )


def _divergences(seen: Pairing) -> Iterator[Row]:
    """Yield the rate of divergence of each norm, over the learning rates and seeds of both."""
    study, name = seen.study, "rate of divergence"
    for size in study.batch_sizes:
        for norm in seen.choices[size]:
            ended = all_ended(study.select(norm, size))
            if ended:
                test = stats.binomtest(_diverged(ended), len(ended))
                ends = test.proportion_ci(CONFIDENCE, method="exact")
                yield Row(name, norm, size, _diverged(ended) / len(ended), float(ends.low),
                          float(ends.high), len(ended), "runs", "Clopper-Pearson")  # fmt: skip
    for size, norm in seen.pairs():
        ours, theirs = _shared(study, size, norm)
        if ours:
            yield _fisher(seen.contrast(f"difference in {name}", size, norm, True), ours, theirs)


def _shared(study: Study, size: int, norm: str) -> tuple[list[Outcome], list[Outcome]]:
    """Return the runs of the baseline and a norm at the learning rates and seeds of both."""
    groups = [all_ended(study.select(name, size)) for name in (study.baseline, norm)]
    cells = [{(o.learning_rate, o.seed) for o in group} for group in groups]
    both = cells[0] & cells[1]
    first, second = ([o for o in g if (o.learning_rate, o.seed) in both] for g in groups)
    return first, second


def _fisher(base: Row, ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> Row:
    counts = [_diverged(ours), _diverged(theirs)]
    n = len(ours)
    p = float(stats.fisher_exact(np.array([[count, n - count] for count in counts])).pvalue)
    difference = (counts[0] - counts[1]) / n
    decision: Decision = NOT_DECIDABLE
    if p <= ALPHA:
        decision = SUPPORTED if difference < 0 else NOT_SUPPORTED
    return replace(base, value=difference, n=n, of="runs of each", p=p, decision=decision,
                   method="Fisher's exact test")  # fmt: skip


def _diverged(outcomes: Sequence[Outcome]) -> int:
    return sum(outcome.status == "diverged" for outcome in outcomes)


def _spreads(seen: Pairing) -> Iterator[Row]:
    name = "SD of the final Dice over seeds"
    for size in seen.study.batch_sizes:
        for norm in seen.norms(size):
            yield sd_row(name, norm, size, _finals(seen.runs(size, norm)), SHARE)
    for size, norm in seen.pairs():
        ours, theirs = (_finals(seen.runs(size, n)) for n in (seen.study.baseline, norm))
        yield sd_ratio_row(seen.contrast(f"ratio of {name}", size, norm, True), ours, theirs, -1)


def _finals(outcomes: Sequence[Outcome]) -> list[float]:
    found = (final_dice(outcome) for outcome in outcomes)
    return [dice for dice in found if dice is not None]


def less_sensitive(study: Study) -> Claim:
    """Judge: it depends less on the initialization. Primary: SD over seeds and scales."""
    seen = Pairing(study)
    rows: list[Row] = []
    name = "SD of the final Dice over seeds and initial scales"
    for size in study.batch_sizes:
        found = {norm: _over_scales(seen, size, norm) for norm in seen.norms(size)}
        known = {norm: scaled for norm, scaled in found.items() if scaled is not None}
        for norm, scaled in known.items():
            at = at_rates(scaled.rate)
            rows.append(sd_row(f"{name} {at}", norm, size, scaled.finals, SHARE))
            rows.append(_range(at, norm, size, scaled.finals))
        ours = known.pop(study.baseline, None)
        for norm, theirs in known.items():
            if ours is not None:
                at = at_rates(ours.rate, theirs.rate)
                base = seen.contrast(f"ratio of {name} {at}", size, norm, True)
                base = replace(base, of="runs")
                rows.append(sd_ratio_row(base, ours.finals, theirs.finals, -1))
    return conclude(
        "less sensitive to initialization",
        f"With {study.baseline} norm the final Dice depends less on the initial weights.",
        rows,
        f"grid.init_scale, as in [0.25, 1, 4], and {MORE_SEEDS}",
    )


def _range(at: str, norm: str, size: int, finals: Sequence[float]) -> Row:
    name = f"range of the final Dice over seeds and initial scales {at}"
    return Row(name, norm, size, max(finals) - min(finals), n=len(finals), of="runs")


@dataclass(frozen=True)
class _Scaled:
    """The final Dice of one norm at every initial scale, at one learning rate."""

    rate: float
    finals: Sequence[float]


def _over_scales(seen: Pairing, size: int, norm: str) -> _Scaled | None:
    """Return the runs of every scale at the norm's own learning rate, if there are some.

    Else at the rate with the highest Dice on the choosing fold of those with runs of every scale;
    none with a single scale.
    """
    study = seen.study
    here = [o for o in study.outcomes if (o.batch_size, o.dropout) == (size, study.dropout)]
    scales = {outcome.init_scale for outcome in here}
    by_rate: dict[float, list[Outcome]] = {}
    for scale in sorted(scales):
        for outcome in all_ended(study.select(norm, size, init_scale=scale)):
            by_rate.setdefault(outcome.learning_rate, []).append(outcome)
    whole = {r: group for r, group in by_rate.items() if {o.init_scale for o in group} == scales}
    own = seen.choices[size][norm].learning_rate

    def worth(rate: float) -> tuple[bool, float, float]:
        dice = [choosing_dice(outcome) or 0.0 for outcome in whole[rate]]
        return rate == own, math.fsum(dice) / len(dice), -rate

    rate = max(whole, key=worth, default=None)
    finals = _finals(whole[rate]) if rate is not None and len(scales) > 1 else []
    return _Scaled(rate, finals) if rate is not None and finals else None
