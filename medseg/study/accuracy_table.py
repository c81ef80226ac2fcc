"""The accuracy of every norm beside the baseline's: at its own learning rate, or at one for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medseg.core.endpoints import PRIMARY_ENDPOINT, Array
from medseg.core.paired import difference_interval, difference_of, holm, signed_rank
from medseg.core.statistics import NAN, wilson_interval
from medseg.study.choosing import choices_at, chosen
from medseg.study.contrasts import Table
from medseg.study.measurements import CaseScores
from medseg.study.outcomes import Outcome, Study
from medseg.study.score_tables import DICE, tables


@dataclass(frozen=True)
class Accuracy:
    """One norm at one batch size; differences are the norm minus the baseline.

    Attributes:
        norm: Its name.
        learning_rate: That it was trained at.
        seeds: How many.
        n: Independent units.
        dice: Mean over units and seeds.
        ci_low: Lower end of its 95 % interval, over units and seeds.
        ci_high: Upper end.
        class_dice: Mean of each class over cases and seeds.
        seed_dice: Mean of each seed.
        missed: Structures of all cases that were not predicted, mean over seeds; None where not
            counted.
        invented: Structures predicted where there are none, likewise.
        difference: To the baseline; NaN for the baseline itself and where it has no scores, as all
            that follows from it.
        difference_low: Lower end of its 95 % interval.
        difference_high: Upper end.
        p_holm: Wilcoxon's test, corrected for the number of norms compared with the baseline.
        rank_biserial: Above 0 favours the norm.
        wins: Units in which the norm is better.
        ties: Units without a difference.
        losses: Units in which the baseline is better.
        p_better: Share of units in which the norm is better, ties counted half.
        p_better_low: Lower end of its 95 % interval.
        p_better_high: Upper end.
    """

    norm: str
    learning_rate: float
    seeds: int
    n: int
    dice: float
    ci_low: float
    ci_high: float
    class_dice: Mapping[str, float]
    seed_dice: tuple[float, ...]
    missed: float | None
    invented: float | None
    difference: float = NAN
    difference_low: float = NAN
    difference_high: float = NAN
    p_holm: float = NAN
    rank_biserial: float = NAN
    wins: int = 0
    ties: int = 0
    losses: int = 0
    p_better: float = NAN
    p_better_low: float = NAN
    p_better_high: float = NAN


def accuracies(study: Study, batch_size: int, rate: float | None = None) -> tuple[Accuracy, ...]:
    """Return every norm at one batch size, compared with the baseline where that was scored.

    Norms that diverged are in it as far as they were scored: what their networks do is a result.

    Args:
        study: All outcomes.
        batch_size: One of the study's.
        rate: Learning rate of all norms; each its own if not given.

    Returns:
        The baseline first, then the others by name; nothing without scores.
    """
    runs = {
        norm: group
        for norm, choice in choices_at(study, batch_size).items()
        if (group := chosen(study, choice, rate)) and all(o.scores is not None for o in group)
    }
    found = {table.norm: table for table in tables(study, runs, DICE) or ()}
    own = {norm: _accuracy(table, runs[norm]) for norm, table in sorted(found.items())}
    baseline = found.pop(study.baseline, None)
    if baseline is None:
        return tuple(own.values())
    corrected = holm([signed_rank(_paired(baseline, table)).p for table in found.values()])
    others = zip(found.items(), corrected, strict=True)
    contrasted = (_contrasted(own[norm], baseline, table, p) for (norm, table), p in others)
    return (own[study.baseline], *contrasted)


def drop_in(study: Study, batch_size: int) -> tuple[Accuracy, ...]:
    """Compare the norms at the baseline's best learning rate: what a mere exchange would give."""
    choice = choices_at(study, batch_size).get(study.baseline)
    if choice is None or choice.learning_rate is None:
        return ()
    return accuracies(study, batch_size, choice.learning_rate)


def _paired(baseline: Table, table: Table) -> Array:
    return difference_of(baseline.values.mean(axis=0), table.values.mean(axis=0))


def _accuracy(table: Table, group: Sequence[Outcome]) -> Accuracy:
    """Return a norm by itself, without a contrast."""
    own = difference_interval(np.zeros((1, table.values.shape[1])), table.values)
    own = own.within(*PRIMARY_ENDPOINT.limits)
    scores = [o.scores for o in group if o.scores is not None]
    return Accuracy(
        norm=table.norm,
        learning_rate=group[0].learning_rate,
        seeds=len(group),
        n=table.values.shape[1],
        dice=float(table.values.mean()),
        ci_low=own.low,
        ci_high=own.high,
        class_dice=_by_class(scores),
        seed_dice=tuple(map(float, table.values.mean(axis=1))),
        missed=_count([s.missed for s in scores]),
        invented=_count([s.invented for s in scores]),
    )


def _contrasted(row: Accuracy, baseline: Table, table: Table, p_holm: float) -> Accuracy:
    """Return a norm beside the baseline."""
    values = _paired(baseline, table)
    against = difference_interval(baseline.values, table.values)
    against = against.within(*PRIMARY_ENDPOINT.difference_limits)
    wins, losses = int((values > 0).sum()), int((values < 0).sum())
    ties = len(values) - wins - losses
    better = wilson_interval(wins + ties / 2, len(values))
    return replace(
        row,
        difference=float(table.values.mean() - baseline.values.mean()),
        difference_low=against.low,
        difference_high=against.high,
        p_holm=p_holm,
        rank_biserial=signed_rank(values).effect,
        wins=wins,
        ties=ties,
        losses=losses,
        p_better=(wins + ties / 2) / len(values),
        p_better_low=better.low,
        p_better_high=better.high,
    )


def _by_class(scores: Sequence[CaseScores]) -> dict[str, float]:
    classes = [s.class_dice or {} for s in scores]
    names = sorted(set.intersection(*(set(found) for found in classes)))
    tables_ = {name: np.array([found[name] for found in classes], np.float64) for name in names}
    return {n: float(np.nanmean(t)) if not np.isnan(t).all() else NAN for n, t in tables_.items()}


def _count(counts: Sequence[tuple[int, ...] | None]) -> float | None:
    """Return the sum over cases, mean over seeds."""
    known = [sum(count) for count in counts if count is not None]
    return sum(known) / len(known) if known and len(known) == len(counts) else None
