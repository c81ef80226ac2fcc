"""Variants compared case by case: every pair, every endpoint, a ranking and a verdict.

The mean foreground Dice of a case is the one endpoint that is tested for a verdict. All others are
descriptive; their p values are corrected within each family (one metric, all pairs and classes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from medseg.core.endpoints import PRIMARY, PRIMARY_ENDPOINT, Array, Design, Variant
from medseg.core.paired import difference_interval
from medseg.core.pairs import Pair, compare_family
from medseg.core.ranking import Ranking, rankings
from medseg.core.statistics import NAN, wilson_interval
from medseg.core.verdicts import judge, overall

FEW_WITH_FAILURES = 50
"""Cases below which no interval of a mean covers where whole structures are missed at times."""


@dataclass(frozen=True)
class Level:
    """One variant on the primary endpoint.

    Attributes:
        name: Of the variant.
        n: Units with a value.
        mean: Over them, seeds averaged.
        ci_low: Lower end of its 95 % interval, over cases and seeds.
        ci_high: Upper end.
        ci_method: How it was computed.
        median: Over the units.
        sd: Over the units.
        seed_means: The mean of each seed.
        seed_sd: Their standard deviation, NaN for one seed.
        n_cases: Cases with a value.
        n_failed: Cases with a Dice of 0 in a class, in any seed: missed, invented or elsewhere.
        failed_low: Lower end of the 95 % interval of their rate.
        failed_high: Upper end.
        values: Of each unit, seeds averaged; NaN where undefined.
    """

    name: str
    n: int
    mean: float
    ci_low: float
    ci_high: float
    ci_method: str
    median: float
    sd: float
    seed_means: tuple[float, ...]
    seed_sd: float
    n_cases: int
    n_failed: int
    failed_low: float
    failed_high: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        levels: Each variant on the primary endpoint.
        units: Names of the independent units, in the order of the values of `levels`.
        n_cases: Cases that all variants have.
        primary: Every pair on the primary endpoint, with its verdict.
        descriptive: Every pair on every other endpoint.
        rankings: Of the variants, in two orders of aggregation; none without a common case.
        overall: One sentence on more than two variants, or nothing.
        notes: What limits the conclusions, one sentence each.
        difference: The mean difference of Dice worth seeing.
    """

    levels: tuple[Level, ...]
    units: tuple[str, ...]
    n_cases: int
    primary: tuple[Pair, ...]
    descriptive: tuple[Pair, ...]
    rankings: tuple[Ranking, ...]
    overall: str
    notes: tuple[str, ...]
    difference: float

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What may be said: overall, then of each pair."""
        return tuple(filter(None, (self.overall, *(pair.verdict for pair in self.primary))))


def compare_variants(design: Design, notes: tuple[str, ...] = ()) -> Comparison:
    """Compare variants.

    Args:
        design: What is compared, on what.
        notes: What the caller knows to limit the conclusions.
    """
    pairs = compare_family(design, [PRIMARY_ENDPOINT])
    primary = tuple(judge(pair, design.difference) for pair in pairs)
    levels = tuple(_level(design, variant) for variant in design.variants)
    return Comparison(
        levels=levels,
        units=design.unit_names,
        n_cases=len(design.units),
        primary=primary,
        descriptive=tuple(p for family in design.families for p in compare_family(design, family)),
        rankings=_rankings(design),
        overall=overall(primary, [variant.name for variant in design.variants]),
        notes=(*notes, *_notes(design, levels, primary)),
        difference=design.difference,
    )


def _level(design: Design, variant: Variant) -> Level:
    table = design.values(variant, PRIMARY_ENDPOINT)
    known = ~np.isnan(table[0])
    values = design.by_unit(table, known)
    means = values.mean(axis=0)
    interval = difference_interval(np.zeros((1, values.shape[1])), values)
    interval = interval.within(*PRIMARY_ENDPOINT.limits)
    failed = int(_failed(design, variant)[known].sum())
    rate = wilson_interval(failed, int(known.sum()))
    seed_means = values.mean(axis=1) if len(means) else np.full(len(values), NAN)
    return Level(
        name=variant.name,
        n=len(means),
        mean=float(seed_means.mean()),
        ci_low=interval.low,
        ci_high=interval.high,
        ci_method=interval.method,
        median=float(np.median(means)) if len(means) else NAN,
        sd=float(means.std(ddof=1)) if len(means) > 1 else NAN,
        seed_means=tuple(map(float, seed_means)),
        seed_sd=float(seed_means.std(ddof=1)) if len(seed_means) > 1 else NAN,
        n_cases=int(known.sum()),
        n_failed=failed,
        failed_low=rate.low,
        failed_high=rate.high,
        values=_all_units(design, table),
    )


def _failed(design: Design, variant: Variant) -> Array:
    """Return for each case whether a class has Dice 0 in any seed: missed, invented, elsewhere."""
    cases = list(design.units)
    tables = [variant.values(cases, name, PRIMARY) for name in design.class_names]
    return np.asarray((np.stack(tables) == 0).any(axis=(0, 1)))


def _all_units(design: Design, table: Array) -> tuple[float, ...]:
    """Return the mean of each unit over its cases and seeds, NaN where none is known."""
    means: Mapping[str, list[float]] = {name: [] for name in design.unit_names}
    for unit, value in zip(design.units.values(), table.mean(axis=0), strict=True):
        if not np.isnan(value):
            means[unit].append(float(value))
    return tuple(float(np.mean(found)) if found else NAN for found in means.values())


def _rankings(design: Design) -> tuple[Ranking, ...]:
    tables = [design.values(variant, PRIMARY_ENDPOINT) for variant in design.variants]
    known = ~np.isnan(np.stack([table[0] for table in tables])).any(axis=0)
    return rankings([design.by_unit(table, known) for table in tables]) if known.any() else ()


def _notes(design: Design, levels: tuple[Level, ...], pairs: tuple[Pair, ...]) -> list[str]:
    found = []
    single = [variant.name for variant in design.variants if len(variant.seeds) == 1]
    if single:
        found.append(
            f"One training each of {', '.join(single)}: what differs are these networks. How much "
            "another seed would change is not known; give several seeds of each variant."
        )
    if any(level.n_failed for level in levels) and levels[0].n < FEW_WITH_FAILURES:
        found.append(
            "Some cases have a Dice of 0 in a class: a structure was missed, invented or found "
            "elsewhere. With such failures no interval of a mean "
            f"holds what it says below about {FEW_WITH_FAILURES} cases: read the counts first."
        )
    if undefined := max(pair.n_one_sided for pair in pairs):
        found.append(
            f"Up to {undefined} case(s) of a pair are left out because Dice is defined in one "
            "variant only: the reference is empty, and only one of them predicts nothing. There "
            "the other one invents a structure, which its count of cases with a Dice of 0 shows."
        )
    return found
