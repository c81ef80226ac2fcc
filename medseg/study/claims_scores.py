"""Claims about Dice of the reporting cases: accuracy, and what dropout does to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from medseg.core.endpoints import Array
from medseg.core.paired import ALPHA, difference_interval, difference_of, holm, signed_rank
from medseg.study.choosing import choose
from medseg.study.claim_intervals import CHANGE, SHARE, apart, within
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


def with_dropout(study: Study) -> Claim:
    """Judge: dropout does it no harm. Primary: interaction of norm and dropout in Dice."""
    seen = Pairing(study)
    rows: list[Row] = []
    rates = sorted({o.dropout for o in study.outcomes} - {study.dropout})
    for dropout in rates:
        for size in study.batch_sizes:
            for norm in seen.norms(size):
                rows += _effect(seen, size, norm, dropout)
        for size, norm in seen.pairs():
            rows += _interaction(seen, size, norm, dropout)
        rows += _shifts(seen, dropout)
    return conclude(
        "can be combined with dropout",
        f"Dropout costs a network with {study.baseline} norm no Dice that it does not cost others.",
        rows,
        f"grid.dropout, as in [0, 0.2], {MORE_SEEDS} and more reporting cases",
    )


def _effect(seen: Pairing, size: int, norm: str, dropout: float) -> Iterator[Row]:
    for effect in _effects(seen, size, (norm,), dropout):
        seeds, cases = effect.shape
        interval = difference_interval(0 * effect[:1], effect)
        name = f"Dice with dropout {dropout:g} minus without"
        row = Row(name, norm, size, float(effect.mean()), interval.low, interval.high, cases,
                  "cases", f"{interval.method}, {seeds} seeds")  # fmt: skip
        yield within(row, CHANGE)


def _interaction(seen: Pairing, size: int, norm: str, dropout: float) -> Iterator[Row]:
    """Yield how much more Dice dropout gives the baseline than the other norm.

    The claim holds if it gives no less: the interval lies above minus the difference worth seeing.
    """
    effects = _effects(seen, size, (seen.study.baseline, norm), dropout)
    if not effects:
        return
    ours, theirs = effects
    interval = difference_interval(theirs, ours)
    decision = decide(interval.low + seen.study.difference, interval.high, 1)
    if min(len(ours), len(theirs)) < 2:
        decision = NOT_DECIDABLE
    row = seen.contrast(f"interaction with dropout {dropout:g}", size, norm, primary=True)
    row = replace(row, value=float(ours.mean() - theirs.mean()), low=interval.low,
                  high=interval.high, n=ours.shape[1], of="cases", method=interval.method,
                  decision=decision)  # fmt: skip
    yield within(row, apart(CHANGE))


def _effects(seen: Pairing, size: int, norms: Sequence[str], dropout: float) -> list[Array]:
    """Return Dice with dropout minus without of each norm, by seed and unit; none if one lacks it.

    Each norm is at its own learning rate with dropout and without; all have the same units.
    """
    runs = {}
    for norm in norms:
        with_it = seen.study.select(norm, size, dropout=dropout)
        rate = choose(with_it).learning_rate if with_it else None
        dropped = {o.seed: o for o in with_it if o.learning_rate == rate}
        plain = {o.seed: o for o in seen.runs(size, norm)}
        seeds = dropped.keys() & plain.keys()
        runs[f"{norm} with"] = [dropped[seed] for seed in seeds]
        runs[f"{norm} without"] = [plain[seed] for seed in seeds]
    found = {table.norm: table.values for table in tables(seen.study, runs, DICE) or ()}
    return [found[f"{norm} with"] - found[f"{norm} without"] for norm in norms if found]


def _shifts(seen: Pairing, dropout: float) -> Iterator[Row]:
    for size in seen.study.batch_sizes:
        for norm in seen.norms(size):
            found = [
                outcome.probes.variance_shift
                for outcome in seen.study.select(norm, size, dropout=dropout)
            ]
            known = [value for value in found if value is not None]
            if known:
                yield Row(f"variance shift with dropout {dropout:g}", norm, size,
                          max(known), n=len(known), of="runs", method="largest")  # fmt: skip
