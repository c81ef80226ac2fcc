"""Norms against the best of them, on tables of scores: steps 2, 3 and 5 of the rule.

A table is the score of each reporting unit by each seed, shape (seeds, units), higher is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from medseg.core.endpoints import DIFFERENCE, Array
from medseg.core.paired import (
    ALPHA,
    SignedRank,
    case_weights,
    difference_interval,
    difference_of,
    holm,
    resampled_means,
    signed_rank,
    two_level_interval,
)
from medseg.core.statistics import RESAMPLES, Interval

Confidence = Literal["clear", "slight", "no evidence of a difference", "descriptive only"]

CLEAR, SLIGHT = 0.95, 0.8
"""Shares of resamples in which the best must come first (B8)."""

SIMPLER = ("batch", "instance", "group", "layer")
"""Norms by how simple they are; all others come after them, by name."""


@dataclass(frozen=True)
class Table:
    """The scores of one norm.

    Attributes:
        norm: Its name.
        seeds: Of its trainings, ascending.
        values: Shape (seeds, units), finite; all norms have the same units.
    """

    norm: str
    seeds: tuple[int, ...]
    values: Array


@dataclass(frozen=True)
class Contrast:
    """The best norm against another; every difference is best minus other.

    Attributes:
        norm: The other.
        difference: Mean over units and seeds.
        ci_low: Lower end of its 95 % interval over units and seeds.
        ci_high: Upper end.
        ci_method: How it was computed.
        sd: Over units, of the differences between means over seeds.
        p: Wilcoxon's signed-rank test over the units.
        p_holm: Corrected for the number of others.
        rank_biserial: Above 0 favours the best.
        wins: Units in which the best is better.
        ties: Units without a difference.
        losses: Units in which the other is better.
        equivalent: Whether the interval's upper end is below the difference worth seeing.
        candidate: Whether the other may still be as good.
    """

    norm: str
    difference: float
    ci_low: float
    ci_high: float
    ci_method: str
    sd: float
    p: float
    p_holm: float
    rank_biserial: float
    wins: int
    ties: int
    losses: int
    equivalent: bool
    candidate: bool


@dataclass(frozen=True)
class Standing:
    """How the norms stand at one batch size.

    Attributes:
        norms: By descending mean; the first is the best.
        means: Over units and seeds.
        seed_means: Of each seed.
        rank_shares: For each norm, the share of resamples in which it has rank 1, 2, ...
        contrasts: The best against each other norm, in their order.
        candidates: The best, and who may be as good.
        best_without_seed: The norm with the highest mean where one seed is left out of all.
        confidence: How sure it is that the first is the best.
        n: Independent units.
        seeds: Fewest seeds of any norm.
    """

    norms: tuple[str, ...]
    means: tuple[float, ...]
    seed_means: tuple[tuple[float, ...], ...]
    rank_shares: tuple[tuple[float, ...], ...]
    contrasts: tuple[Contrast, ...]
    candidates: tuple[str, ...]
    best_without_seed: Mapping[int, str]
    confidence: Confidence
    n: int
    seeds: int

    @property
    def best(self) -> str:
        """The norm with the highest mean."""
        return self.norms[0]


def simplicity(norm: str) -> tuple[int, str]:
    """Return a key that sorts simpler norms first."""
    return (SIMPLER.index(norm) if norm in SIMPLER else len(SIMPLER), norm)


def stand(tables: Sequence[Table], difference: float = DIFFERENCE, seed: int = 0) -> Standing:
    """Rank norms, and say which of them may be as good as the best.

    Args:
        tables: One for each norm, in any order.
        difference: The mean difference worth seeing.
        seed: Of the bootstrap; its draws are shared by everything that is resampled.
    """
    ordered = _by_mean(tables)
    replicates = _resample(ordered, np.random.default_rng(seed))
    contrasts = _contrasts(ordered, replicates, difference)
    shares = _rank_shares(replicates)
    without = _best_without_seed(ordered)
    fewest = min(len(table.seeds) for table in ordered)
    alone = not any(contrast.candidate for contrast in contrasts)
    best = ordered[0].norm
    return Standing(
        norms=tuple(table.norm for table in ordered),
        means=tuple(float(table.values.mean()) for table in ordered),
        seed_means=tuple(tuple(map(float, table.values.mean(axis=1))) for table in ordered),
        rank_shares=shares,
        contrasts=contrasts,
        candidates=(best, *(c.norm for c in contrasts if c.candidate)),
        best_without_seed=without,
        confidence=_confidence(shares[0][0], fewest, alone and set(without.values()) == {best}),
        n=ordered[0].values.shape[1],
        seeds=fewest,
    )


def _confidence(first: float, seeds: int, beats_all: bool) -> Confidence:
    if seeds < 2:
        return "descriptive only"
    if beats_all and first >= CLEAR:
        return "clear"
    return "slight" if first >= SLIGHT else "no evidence of a difference"


def _by_mean(tables: Sequence[Table]) -> list[Table]:
    simplest = sorted(tables, key=lambda table: simplicity(table.norm))
    return sorted(simplest, key=lambda table: -float(table.values.mean()))


def _resample(tables: Sequence[Table], rng: np.random.Generator) -> Array:
    """Return the mean of each norm in each resample, shape (resamples, norms).

    Norms draw in the order of their names, so that what is best changes no draw.
    """
    count = tables[0].values.shape[1]
    cases = case_weights(count, rng) if count > 1 else np.ones((RESAMPLES, 1))
    drawn = {
        table.norm: resampled_means(table.values, cases, rng)
        for table in sorted(tables, key=lambda table: table.norm)
    }
    return np.stack([drawn[table.norm] for table in tables], axis=1)


def _rank_shares(replicates: Array) -> tuple[tuple[float, ...], ...]:
    """Return how often each norm has each rank; those that tie share their ranks."""
    rounded = np.round(replicates, 12)
    best = stats.rankdata(-rounded, method="min", axis=1)
    worst = stats.rankdata(-rounded, method="max", axis=1)
    ranks = np.arange(1, replicates.shape[1] + 1)
    inside = (best[..., None] <= ranks) & (ranks <= worst[..., None])
    shares = (inside / inside.sum(axis=2, keepdims=True)).mean(axis=0)
    return tuple(tuple(map(float, row)) for row in shares)


def _contrasts(
    tables: Sequence[Table], replicates: Array, difference: float
) -> tuple[Contrast, ...]:
    best, others = tables[0], tables[1:]
    differences = [
        difference_of(other.values.mean(axis=0), best.values.mean(axis=0)) for other in others
    ]
    tests = [signed_rank(values) for values in differences]
    corrected = holm([test.p for test in tests])
    intervals = [
        _interval(other.values, best.values, replicates[:, 0] - replicates[:, place])
        for place, other in enumerate(others, start=1)
    ]
    rows = zip(others, differences, tests, corrected, intervals, strict=True)
    return tuple(
        _contrast(table.norm, values, test, p, interval, difference)
        for table, values, test, p, interval in rows
    )


def _interval(other: Array, best: Array, replicates: Array) -> Interval:
    if other.shape[1] < 2 or len(other) == len(best) == 1:
        return difference_interval(other, best)
    return two_level_interval(other, best, replicates)


def _contrast(
    norm: str,
    values: Array,
    test: SignedRank,
    p_holm: float,
    interval: Interval,
    difference: float,
) -> Contrast:
    worse = p_holm <= ALPHA and test.effect > 0
    wins, losses = int((values > 0).sum()), int((values < 0).sum())
    equivalent = interval.high < difference
    return Contrast(
        norm=norm,
        difference=float(values.mean()),
        ci_low=interval.low,
        ci_high=interval.high,
        ci_method=interval.method,
        sd=float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
        p=test.p,
        p_holm=p_holm,
        rank_biserial=test.effect,
        wins=wins,
        ties=len(values) - wins - losses,
        losses=losses,
        equivalent=equivalent,
        candidate=not worse or equivalent,
    )


def _best_without_seed(tables: Sequence[Table]) -> dict[int, str]:
    """Return who has the highest mean where a seed is left out of all norms that have it."""
    found = {}
    for seed in sorted({seed for table in tables for seed in table.seeds}):
        kept = [without_seed(table, seed) for table in tables]
        if all(table.seeds for table in kept):
            found[seed] = _by_mean(kept)[0].norm
    return found


def without_seed(table: Table, seed: int) -> Table:
    """Return a table without one seed."""
    kept = [place for place, name in enumerate(table.seeds) if name != seed]
    return Table(table.norm, tuple(table.seeds[place] for place in kept), table.values[kept])
