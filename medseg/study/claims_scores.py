"""The claim about Dice of the reporting cases: the labels are better."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from medseg.core.endpoints import Array
from medseg.core.paired import ALPHA, difference_interval, difference_of, holm, signed_rank
from medseg.study.claim_intervals import SHARE, apart, within
from medseg.study.claim_rows import (
    MORE_SEEDS,
    NOT_DECIDABLE,
    Claim,
    Row,
    conclude,
    decide,
)
from medseg.study.outcomes import Study
from medseg.study.pairing import MODES, Pairing, probe
from medseg.study.score_tables import DICE, HD95, NSD, Measure, tables


def more_accurate(study: Study) -> Claim:
    """Judge: Dice is higher. Primary: paired difference, Holm-corrected, and its interval."""
    seen = Pairing(study)
    rows: list[Row] = []
    for size in study.batch_sizes:
        rows += [*_accuracies(seen, size, DICE, 1), *_accuracies(seen, size, NSD, 1)]
        rows += _accuracies(seen, size, HD95, -1)
    for name, quantity in MODES.items():
        rows += seen.means(quantity, probe(name), SHARE)
    return conclude(
        "accuracy",
        f"With {study.baseline} norm the labels are better.",
        seen.settled(rows),
        seen.setting(_unscored(seen) or f"more reporting cases, and {MORE_SEEDS}"),
    )


def _unscored(seen: Pairing) -> str:
    """Say why nothing can be compared at any batch size; empty if something can."""
    baseline, told = seen.study.baseline, []
    for size in seen.study.batch_sizes:
        scored = [n for n in seen.norms(size) if all(o.scores for o in seen.runs(size, n))]
        if baseline in scored and len(scored) > 1:
            return ""
        lacking = "any other" if baseline in scored else baseline
        choice = seen.choices[size].get(lacking)
        why = f" ({choice.left_out})" if choice and choice.left_out else ""
        told.append(f"scores of {lacking} norm at batch size {size}{why}")
    return "; ".join(told)


def _accuracies(seen: Pairing, size: int, measure: Measure, claimed: int) -> Iterator[Row]:
    """Yield the paired difference of the baseline to each norm, corrected for their number."""
    others = [norm for at, norm in seen.pairs() if at == size]
    found = {norm: _pair(seen, size, norm, measure) for norm in others}
    pairs = {norm: pair for norm, pair in found.items() if pair is not None}
    tests = [
        signed_rank(difference_of(theirs.mean(axis=0), ours.mean(axis=0)))
        for ours, theirs in pairs.values()
    ]
    corrected = holm([test.p for test in tests])
    for (norm, pair), test, p in zip(pairs.items(), tests, corrected, strict=True):
        row = seen.contrast(f"difference in {measure.name}", size, norm, measure is DICE)
        margin = 0.0 if measure is HD95 else seen.study.difference
        found_row = _accuracy(replace(row, p=p), pair, test.effect, claimed, margin)
        yield within(found_row, apart(measure.limits))


def _accuracy(
    base: Row, pair: tuple[Array, Array], effect: float, claimed: int, margin: float
) -> Row:
    """Fill in a paired difference; what the interval says counts only if the test agrees."""
    ours, theirs = pair
    interval = difference_interval(theirs, ours)
    difference, seeds = float(ours.mean() - theirs.mean()), min(len(ours), len(theirs))
    small = max(abs(interval.low), abs(interval.high)) <= margin
    tested = base.p <= ALPHA and (effect > 0) == (difference > 0)
    decision = decide(interval.low, interval.high, claimed, margin)
    return replace(
        base,
        value=difference,
        low=interval.low,
        high=interval.high,
        n=ours.shape[1],
        of="cases",
        method=interval.method if seeds > 1 else f"{interval.method}; one seed decides nothing",
        decision=decision if seeds > 1 and (small or tested) else NOT_DECIDABLE,
    )


def _pair(seen: Pairing, size: int, norm: str, measure: Measure) -> tuple[Array, Array] | None:
    """Return the scores of the baseline and a norm, shape (seeds, units), as they are."""
    runs = {name: seen.runs(size, name) for name in (seen.study.baseline, norm)}
    found = tables(seen.study, runs, measure)
    if found is None:
        return None
    values = {table.norm: measure.sign * table.values for table in found}
    return values[seen.study.baseline], values[norm]
