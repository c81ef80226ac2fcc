"""The claim that dropout does a network with it no harm: Dice with and without, at one rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from medseg.core.endpoints import Array
from medseg.core.paired import difference_interval
from medseg.study.choosing import choosing_dice
from medseg.study.claim_intervals import CHANGE, apart, within
from medseg.study.claim_rows import MORE_SEEDS, NOT_DECIDABLE, Claim, Row, conclude, decide
from medseg.study.outcomes import Outcome, Study
from medseg.study.pairing import Pairing, at_rates
from medseg.study.score_tables import DICE, tables


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


@dataclass(frozen=True)
class _Pair:
    """The runs of one norm with dropout and without it, of the same seeds at one learning rate."""

    rate: float
    dropped: Sequence[Outcome]
    plain: Sequence[Outcome]


def _pair(seen: Pairing, size: int, norm: str, dropout: float) -> _Pair | None:
    """Return the pair at the rate with the most seeds, then the highest Dice on the choosing fold.

    Over both, so that the rate favours neither; the smaller of equals.
    """
    dropped, plain = (
        {
            (o.learning_rate, o.seed): o
            for o in seen.study.select(norm, size, dropout=value)
            if o.has_ended and o.scores is not None
        }
        for value in (dropout, seen.study.dropout)
    )
    both = sorted(dropped.keys() & plain.keys())

    def worth(rate: float) -> tuple[int, float, float]:
        cells = [cell for cell in both if cell[0] == rate]
        dice = [choosing_dice(runs[cell]) or 0.0 for runs in (dropped, plain) for cell in cells]
        return len(cells), math.fsum(dice) / len(dice), -rate

    rate = max({rate for rate, _ in both}, key=worth, default=None)
    if rate is None:
        return None
    cells = [cell for cell in both if cell[0] == rate]
    return _Pair(rate, [dropped[cell] for cell in cells], [plain[cell] for cell in cells])


def _effect(seen: Pairing, size: int, norm: str, dropout: float) -> Iterator[Row]:
    pair = _pair(seen, size, norm, dropout)
    for effect in _effects(seen, {norm: pair} if pair else {}):
        seeds, cases = effect.shape
        interval = difference_interval(0 * effect[:1], effect)
        at = at_rates(pair.rate) if pair else ""
        name = f"Dice with dropout {dropout:g} minus without {at}"
        row = Row(name, norm, size, float(effect.mean()), interval.low, interval.high, cases,
                  "cases", f"{interval.method}, {seeds} seeds")  # fmt: skip
        yield within(row, CHANGE)


def _interaction(seen: Pairing, size: int, norm: str, dropout: float) -> Iterator[Row]:
    """Yield how much more Dice dropout gives the baseline than the other norm.

    The claim holds if it gives no less: the interval lies above minus the difference worth seeing.
    """
    found = {name: _pair(seen, size, name, dropout) for name in (seen.study.baseline, norm)}
    pairs = {name: pair for name, pair in found.items() if pair is not None}
    effects = _effects(seen, pairs)
    if len(effects) < 2:
        return
    ours, theirs = effects
    interval = difference_interval(theirs, ours)
    decision = decide(interval.low + seen.study.difference, interval.high, 1)
    if min(len(ours), len(theirs)) < 2:
        decision = NOT_DECIDABLE
    at = at_rates(*(pair.rate for pair in pairs.values()))
    row = seen.contrast(f"interaction with dropout {dropout:g} {at}", size, norm, primary=True)
    row = replace(row, value=float(ours.mean() - theirs.mean()), low=interval.low,
                  high=interval.high, n=ours.shape[1], of="cases", method=interval.method,
                  decision=decision)  # fmt: skip
    yield within(row, apart(CHANGE))


def _effects(seen: Pairing, pairs: Mapping[str, _Pair]) -> list[Array]:
    """Return Dice with dropout minus without of each norm, by seed and unit, the units the same."""
    runs = {f"{norm} with": pair.dropped for norm, pair in pairs.items()}
    runs |= {f"{norm} without": pair.plain for norm, pair in pairs.items()}
    found = {table.norm: table.values for table in tables(seen.study, runs, DICE) or ()}
    return [found[f"{norm} with"] - found[f"{norm} without"] for norm in pairs if found]


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
