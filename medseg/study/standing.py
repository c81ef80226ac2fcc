"""How norms stand on the same reporting cases: steps 2, 3 and 5 of the rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from medseg.core.endpoints import DIFFERENCE, PRIMARY_ENDPOINT, Array
from medseg.core.paired import case_weights, resampled_means
from medseg.core.statistics import RESAMPLES
from medseg.study.contrasts import Contrast, Table, contrasts_of, without_seed

Confidence = Literal["clear", "slight", "no evidence of a difference", "descriptive only"]

CLEAR, SLIGHT = 0.95, 0.8
"""Shares of resamples in which the best must come first."""

FEWEST_SEEDS, CLEAR_SEEDS = 2, 3
"""Seeds below which nothing is more than descriptive, and nothing is clear: resampling two seeds
shows half of their variance, and too many of equal norms would be called clearly better."""

SIMPLER = ("batch", "instance", "group", "layer")
"""Norms by how simple they are; all others come after them, by name."""


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


def stand(
    tables: Sequence[Table],
    difference: float = DIFFERENCE,
    seed: int = 0,
    largest: float = PRIMARY_ENDPOINT.difference_limits[1],
) -> Standing:
    """Rank norms, and say which of them may be as good as the best.

    Args:
        tables: One for each norm, in any order.
        difference: The mean difference worth seeing.
        seed: Of the bootstrap; its draws are shared by everything that is resampled.
        largest: Difference that there can be: of Dice, 1.
    """
    ordered = _by_mean(tables)
    replicates = _resample(ordered, np.random.default_rng(seed))
    contrasts = contrasts_of(ordered, replicates, difference, largest)
    shares = _rank_shares(replicates)
    without = _best_without_seed(ordered)
    fewest = min(len(table.seeds) for table in ordered)
    # Where the interval over cases and seeds holds 0, other seeds might turn the order.
    alone = not any(contrast.candidate or contrast.ci_low <= 0 for contrast in contrasts)
    best = ordered[0].norm
    return Standing(
        norms=tuple(table.norm for table in ordered),
        means=tuple(float(table.values.mean()) for table in ordered),
        seed_means=tuple(tuple(map(float, table.values.mean(axis=1))) for table in ordered),
        rank_shares=shares,
        contrasts=contrasts,
        candidates=(best, *(c.norm for c in contrasts if c.candidate)),
        best_without_seed=without,
        confidence=_confidence(
            shares[0][0], fewest if contrasts else 0, alone and set(without.values()) == {best}
        ),
        n=ordered[0].values.shape[1],
        seeds=fewest,
    )


def _confidence(first: float, seeds: int, beats_all: bool) -> Confidence:
    if seeds < FEWEST_SEEDS:
        return "descriptive only"
    if beats_all and first >= CLEAR and seeds >= CLEAR_SEEDS:
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


def _best_without_seed(tables: Sequence[Table]) -> dict[int, str]:
    """Return who has the highest mean where a seed is left out of all norms that have it."""
    found = {}
    for seed in sorted({seed for table in tables for seed in table.seeds}):
        kept = [without_seed(table, seed) for table in tables]
        if all(table.seeds for table in kept):
            found[seed] = _by_mean(kept)[0].norm
    return found
