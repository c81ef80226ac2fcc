"""Does the rule behave? Applied to simulated studies, in which the truth is known."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from medseg.core.paired import ALPHA
from medseg.core.runs import write_json
from medseg.study.contrasts import Table
from medseg.study.options import BenchmarkOptions
from medseg.study.standing import Standing, stand

NORMS = ("batch", "batch_renorm", "group", "instance", "layer", "none")
BETTER = "group"
"""The one that is truly better, if any is."""

MEAN, CASE_SD, CASE_NORM_SD, SEED_SD = 0.85, 0.06, 0.025, 0.007
"""Dice, and its spread over cases, of a norm over cases, and over seeds: those of hard organs."""

KINDS = (
    (0.0, 10, 1),
    (0.0, 20, 3),
    (0.0, 40, 3),
    (0.0, 100, 5),
    (0.01, 20, 3),
    (0.01, 100, 5),
    (0.02, 20, 3),
    (0.02, 40, 3),
    (0.02, 100, 5),
    (0.03, 20, 3),
    (0.03, 40, 3),
)
"""True gain of one norm, cases and seeds."""

log = logging.getLogger("medseg")


@dataclass(frozen=True)
class Behaviour:
    """What the rule says of studies of one kind; every number but the first four is a share.

    Attributes:
        gain: True difference of one norm to all others.
        cases: Reporting cases.
        seeds: Of each norm.
        studies: How many were simulated.
        clear: Called clear.
        slight: Called slight.
        undecided: Neither.
        right: The norm that is truly better was named, clear or slight.
        wrong: Another norm was named.
        naive: Some norm differs from the best by Wilcoxon's test without correction.
    """

    gain: float
    cases: int
    seeds: int
    studies: int
    clear: float
    slight: float
    undecided: float
    right: float
    wrong: float
    naive: float


def simulated(gain: float, cases: int, seeds: int, rng: np.random.Generator) -> list[Table]:
    """Return the scores of one study."""
    difficulty = rng.normal(MEAN, CASE_SD, cases)
    tables = []
    for norm in NORMS:
        level = gain * (norm == BETTER) + rng.normal(0, SEED_SD, (seeds, 1))
        values = difficulty + rng.normal(0, CASE_NORM_SD, cases) + level
        tables.append(Table(norm, tuple(range(seeds)), values))
    return tables


def behaviour(gain: float, cases: int, seeds: int, studies: int) -> Behaviour:
    """Apply the rule to simulated studies of one kind."""
    rng = np.random.default_rng([round(1000 * gain), cases, seeds])
    found = [stand(simulated(gain, cases, seeds, rng)) for _ in range(studies)]
    named = [standing for standing in found if standing.confidence in ("clear", "slight")]
    right = [standing for standing in named if gain and standing.best == BETTER]
    clear = _share([standing.confidence == "clear" for standing in found])
    return Behaviour(
        gain=gain,
        cases=cases,
        seeds=seeds,
        studies=studies,
        clear=clear,
        slight=len(named) / studies - clear,
        undecided=1 - len(named) / studies,
        right=len(right) / studies,
        wrong=(len(named) - len(right)) / studies,
        naive=_share([_naive(standing) for standing in found]),
    )


def _naive(standing: Standing) -> bool:
    return any(contrast.p <= ALPHA for contrast in standing.contrasts)


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


def benchmark_recommendation(options: BenchmarkOptions) -> None:
    """Log how the rule behaves in each kind of study; `steps` studies of each."""
    log.info("%-6s %5s %5s %6s %6s %9s %6s %6s %6s", "gain", "cases", "seeds", "clear", "slight",
             "undecided", "right", "wrong", "naive")  # fmt: skip
    rows = []
    for kind in KINDS:
        row = behaviour(*kind, options.steps)
        rows.append(row)
        error = stats.norm.ppf(1 - ALPHA / 2) / 2 / np.sqrt(options.steps)
        log.info("%-6g %5d %5d %6.3f %6.3f %9.3f %6.3f %6.3f %6.3f", *kind, row.clear, row.slight,
                 row.undecided, row.right, row.wrong, row.naive)  # fmt: skip
    log.info("shares of %d studies each, to +-%.3f at most", options.steps, error)
    if options.output:
        write_json(options.output, {"rows": [asdict(row) for row in rows]})
