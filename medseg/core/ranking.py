"""How stable a ranking of variants is: ranks over resampled cases and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medseg.core.statistics import CONFIDENCE

RANK_RESAMPLES = 1000

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """Ranks of variants by one order of aggregation; 1 is best, ties share the better rank.

    Attributes:
        order: `mean, then rank` ranks the means over cases; `rank, then mean` ranks the variants
            within each case and then their mean ranks.
        ranks: Of each variant over all cases.
        frequencies: For each variant, the share of resamples in which it has rank 1, 2, …
        kendall_tau: Mean over resamples of the agreement with `ranks` (Kendall's tau-a).
        kendall_tau_low: What 95 % of the resamples reach.
    """

    order: str
    ranks: tuple[int, ...]
    frequencies: tuple[tuple[float, ...], ...]
    kendall_tau: float
    kendall_tau_low: float


def rankings(values: Sequence[Array], seed: int = 0) -> tuple[Ranking, Ranking]:
    """Rank variants in both orders of aggregation, as challengeR does (Wiesenfarth et al., 2021).

    Args:
        values: For each variant finite numbers of the same cases, shape (seeds, cases), higher is
            better. Cases are resampled together, seeds within their variant.
        seed: Of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    ranked = [_rank(np.stack([table.mean(axis=0) for table in values]))]
    ranked += [_rank(_resample(values, rng)) for _ in range(RANK_RESAMPLES)]
    by_order = np.array(ranked).swapaxes(0, 1)
    first, second = (
        _ranking(order, table)
        for order, table in zip(("mean, then rank", "rank, then mean"), by_order, strict=True)
    )
    return first, second


def _resample(values: Sequence[Array], rng: np.random.Generator) -> Array:
    """Return one resample, mean over its seeds, shape (variants, cases)."""
    count = values[0].shape[1]
    cases = rng.integers(count, size=count)
    seeds = [rng.integers(len(table), size=len(table)) for table in values]
    rows = [table[drawn][:, cases].mean(axis=0) for table, drawn in zip(values, seeds, strict=True)]
    return np.stack(rows)


def _rank(table: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ranks of the rows by their mean, and by their mean rank within columns."""
    within = stats.rankdata(-table, axis=0).mean(axis=1)
    by_mean = stats.rankdata(-table.mean(axis=1), method="min")
    return by_mean.astype(int), stats.rankdata(within, method="min").astype(int)


def _ranking(order: str, table: NDArray[np.int64]) -> Ranking:
    """Return the ranking of the first row, and how the others scatter."""
    given, resampled = table[0], table[1:]
    count = len(given)
    frequencies = [
        [float(np.mean(column == r + 1)) for r in range(count)] for column in resampled.T
    ]
    i, j = np.triu_indices(count, 1)
    signs = np.sign(table[:, i] - table[:, j])
    taus = (signs[1:] * signs[0]).mean(axis=1)
    low = np.quantile(taus, 1 - CONFIDENCE, method="inverted_cdf")
    return Ranking(
        order=order,
        ranks=tuple(map(int, given)),
        frequencies=tuple(map(tuple, frequencies)),
        kendall_tau=float(taus.mean()),
        kendall_tau_low=float(low),
    )
