"""Claims about what may go wrong: divergence, the luck of a seed, the initial weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from medseg.core.paired import ALPHA
from medseg.core.statistics import CONFIDENCE
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
from medseg.study.pairing import Pairing, all_ended, final_dice, probe


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
    found = {
        (size, norm): _over_scales(seen, size, norm)
        for size in study.batch_sizes
        for norm in seen.norms(size)
    }
    for (size, norm), finals in found.items():
        if finals:
            rows += [sd_row(name, norm, size, finals, SHARE), _range(norm, size, finals)]
    for size, norm in seen.pairs():
        ours, theirs = found[size, study.baseline], found[size, norm]
        if ours and theirs:
            base = seen.contrast(f"ratio of {name}", size, norm, True)
            rows.append(sd_ratio_row(base, ours, theirs, -1))
    return conclude(
        "less sensitive to initialization",
        f"With {study.baseline} norm the final Dice depends less on the initial weights.",
        rows,
        f"grid.init_scale, as in [0.25, 1, 4], and {MORE_SEEDS}",
    )


def _range(norm: str, size: int, finals: Sequence[float]) -> Row:
    name = "range of the final Dice over seeds and initial scales"
    return Row(name, norm, size, max(finals) - min(finals), n=len(finals), of="runs")


def _over_scales(seen: Pairing, size: int, norm: str) -> list[float]:
    """Return the final Dice at every scale at one learning rate; none with a single scale."""
    scales = sorted({outcome.init_scale for outcome in seen.study.outcomes})
    rate = seen.choices[size][norm].learning_rate
    runs = [
        all_ended([o for o in seen.study.select(norm, size, init_scale=scale)
                   if o.learning_rate == rate])
        for scale in scales
    ]  # fmt: skip
    ended = [group for group in runs if group]
    return _finals([o for group in ended for o in group]) if len(ended) > 1 else []
