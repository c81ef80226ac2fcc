"""Claims about what a network with a norm is like: regular, fed by its batch, invariant."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from medseg.study.claim_intervals import CHANGE, SHARE, SIZE, Limits, difference_row
from medseg.study.claim_rows import (
    MORE_SEEDS,
    NOT_DECIDABLE,
    NOT_SUPPORTED,
    SUPPORTED,
    Claim,
    Row,
    conclude,
)
from medseg.study.curve_reading import first_reached, read_at
from medseg.study.outcomes import Outcome, Study
from medseg.study.pairing import MODES, Pairing, Reading, probe

PEERS = ("instance", "layer")


def regularizes(study: Study) -> Claim:
    """Judge: it regularizes. Primary: the gap between training and validation Dice."""
    seen, name = Pairing(study), "gap of training to validation Dice"
    rows = [*seen.means(f"final {name}", _final_gap, CHANGE)]
    matched = [row for size, norm in seen.pairs() for row in _matched(seen, size, norm, name)]
    rows += matched or seen.differences(f"final {name}", _final_gap, -1, study.difference, CHANGE)
    rows += seen.means("batch-mate noise", probe("batch_mate_noise"))
    return conclude(
        "regularizes",
        f"With {study.baseline} norm validation falls less behind training.",
        seen.settled(rows),
        seen.setting(f"probes: true, best with training Dice at each validation, and {MORE_SEEDS}"),
    )


def _matched(seen: Pairing, size: int, norm: str, name: str) -> Iterator[Row]:
    """Yield the difference of the gaps where both norms reach the same training Dice."""
    baseline = seen.study.baseline
    tops = [seen.values(size, of, _highest_train_dice) for of in (baseline, norm)]
    if tops[0] is None or tops[1] is None:
        return
    level = min(*tops[0], *tops[1])
    ours, theirs = (seen.values(size, of, _gap_at(level)) for of in (baseline, norm))
    if ours and theirs:
        row = seen.contrast(f"{name} at training Dice {level:.3g}", size, norm, primary=True)
        yield difference_row(row, ours, theirs, -1, seen.study.difference, CHANGE)


def _final_gap(outcome: Outcome) -> float | None:
    if outcome.probes.train_dice is None or outcome.choosing is None:
        return None
    return outcome.probes.train_dice - outcome.choosing


def _highest_train_dice(outcome: Outcome) -> float | None:
    """Return it; None for a run that diverged, which would pull the level down to where all are."""
    curve = outcome.curve if outcome.status == "finished" else None
    return max(curve.train_dice) if curve is not None and curve.train_dice else None


def _gap_at(level: float) -> Reading:
    def read(outcome: Outcome) -> float | None:
        curve = outcome.curve
        if curve is None or curve.train_dice is None:
            return None
        at = first_reached(curve, level, "samples", "train_dice")
        return level - read_at(curve, at, "samples") if math.isfinite(at) else None

    return read


def batch_statistics(study: Study) -> Claim:
    """Judge: training uses the batch, evaluation does not; gamma and beta are learned."""
    seen = Pairing(study)
    names = {
        "batch_mate_noise": "batch-mate noise",
        "statistics_distance": "distance of running from own statistics",
        **MODES,
        "gamma_sd": "SD of gamma",
        "gamma_small": "share of gammas below 0.01",
        "beta_sd": "SD of beta",
    }
    shares = (*MODES, "gamma_small")
    rows = [
        row
        for name, quantity in names.items()
        for row in seen.means(quantity, probe(name), SHARE if name in shares else SIZE)
    ]
    for name in ("batch_mate_noise", "gamma_sd"):
        rows += _above_zero(seen, names[name], probe(name))
    return conclude(
        "batch statistics in training, gamma and beta learned",
        f"With {study.baseline} norm what a patch gets in training depends on its batch, unlike in "
        "evaluation; gamma and beta move away from 1 and 0.",
        rows,
        "probes: true, and a batch size of 2 or more",
    )


def _above_zero(seen: Pairing, quantity: str, read: Reading) -> Iterator[Row]:
    """Yield whether a number of the baseline is above 0 in every run, where batches have mates."""
    baseline = seen.study.baseline
    for size in seen.study.batch_sizes:
        if size < 2 or baseline not in seen.norms(size):
            continue
        values = seen.values(size, baseline, read)
        if values is not None:
            low = min(values)
            row = seen.contrast(f"smallest {quantity}", size, "0", primary=True)
            yield replace(row, value=low, n=len(values), method="smallest of the seeds",
                          decision=SUPPORTED if low > 0 else NOT_SUPPORTED)  # fmt: skip


def differs_from_peers(study: Study) -> Claim:
    """Judge: it differs from instance and layer norm in what it computes and ignores."""
    seen = Pairing(study)
    changes = sorted({n for o in study.outcomes for n in o.probes.invariance or {}})
    readings: dict[str, tuple[Reading, Limits]] = {
        "batch-mate noise": (probe("batch_mate_noise"), SIZE),
        "window sensitivity": (probe("window_sensitivity"), SIZE),
        **{f"Dice lost to {name}": (_lost_to(name), CHANGE) for name in changes},
    }
    rows = [row for quantity, what in readings.items() for row in seen.means(quantity, *what)]
    contrasts = [
        _either_side(row)
        for quantity, (read, ends) in readings.items()
        for row in seen.differences(f"difference in {quantity}", read, 1, 0.0, ends, primary=False)
        if row.against in PEERS
    ]
    # One difference to each of them is enough, and only if all are known to be none there is none.
    order = (SUPPORTED, NOT_DECIDABLE, NOT_SUPPORTED)
    found = {peer: {r.decision for r in contrasts if r.against == peer} for peer in PEERS}
    telling = {peer: min(seen_, key=order.index) for peer, seen_ in found.items() if seen_}
    worst = max(telling.values(), key=order.index, default=None)
    rows += [
        replace(row, primary=row.decision == telling[row.against] == worst) for row in contrasts
    ]
    return conclude(
        "differs from instance and layer norm",
        f"A network with {study.baseline} norm reacts otherwise than one with instance or layer "
        "norm to batch mates, the window and the intensities.",
        rows,
        f"grid.norm with {study.baseline}, instance and layer, probes: true, and {MORE_SEEDS}",
    )


def _either_side(row: Row) -> Row:
    """Return a contrast that is for the claim on whichever side of 0 its interval lies."""
    if row.low > 0 or row.high < 0:
        return replace(row, decision=SUPPORTED)
    same = row.low == row.high == 0
    return replace(row, decision=NOT_SUPPORTED if same else NOT_DECIDABLE)


def _lost_to(name: str) -> Reading:
    return lambda outcome: (outcome.probes.invariance or {}).get(name)
