"""Claims about the course of training: a smoother loss, larger learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from medseg.study.choosing import Choice, choose
from medseg.study.claim_rows import (
    MORE_SEEDS,
    NOT_SUPPORTED,
    SUPPORTED,
    Claim,
    Row,
    conclude,
)
from medseg.study.outcomes import Study
from medseg.study.pairing import Pairing, probe

FEWEST_RATES = 3
"""Learning rates that both norms were tried at, below which no highest one can be told."""


def smoother(study: Study) -> Claim:
    """Judge: the loss is smoother. Primary: roughness, and Santurkar's three numbers.

    Both at one learning rate: a loss is rougher where the steps are longer, whatever the norm.
    """
    seen = Pairing(study)
    rows: list[Row] = []
    for name, quantity in {
        "roughness": "roughness of the loss",
        "loss_range": "loss range along the gradient",
        "gradient_change": "relative gradient change",
        "effective_beta": "effective beta",
    }.items():
        rows += [
            *seen.means(quantity, probe(name)),
            *seen.ratios_at_one_rate(quantity, probe(name), -1),
        ]
    return conclude(
        "smoother convergence",
        f"With {study.baseline} norm the loss is smoother from step to step, and along its "
        "gradient.",
        rows,
        f"probes: true, and {MORE_SEEDS}",
    )


def higher_rates(study: Study) -> Claim:
    """Judge: larger learning rates work. Primary: the largest at which every seed holds."""
    seen = Pairing(study)
    rows: list[Row] = []
    for size in study.batch_sizes:
        for norm in seen.norms(size):
            rows += _tolerance(seen.choices[size][norm])
    for size, norm in seen.pairs():
        base = seen.contrast("ratio of the highest stable learning rate", size, norm, True)
        rows.append(_highest(seen, base))
    return conclude(
        "higher learning rates",
        f"With {study.baseline} norm larger learning rates can be used.",
        seen.settled(rows),
        seen.setting(
            f"{MORE_SEEDS} and of grid.learning_rate, at least {FEWEST_RATES}, better 5, a factor "
            "of 3.16 apart and up to where every norm fails"
        ),
    )


def _tolerance(choice: Choice) -> Iterator[Row]:
    seeds = max((rate.seeds for rate in choice.rates), default=0)
    edge = "at the edge of the grid" if choice.at_edge else ""
    for name, value in (
        ("highest stable learning rate", choice.highest_stable),
        ("tolerance in decades", choice.decades),
    ):
        if value is not None:
            yield Row(name, choice.norm, choice.batch_size, value, n=seeds, method=edge)


def _highest(seen: Pairing, base: Row) -> Row:
    """Return the ratio; decided only where leaving out any one seed would not undo it."""
    pair = [seen.choices[base.batch_size][norm] for norm in (base.norm, base.against)]
    tops = [choice.highest_stable or 0.0 for choice in pair]
    seeds = min(rate.seeds for choice in pair for rate in choice.rates)
    value = tops[0] / tops[1] if tops[1] else math.inf
    row = replace(base, value=value, n=seeds, method="the same without any one seed")
    grid = [{rate.learning_rate for rate in choice.rates} for choice in pair]
    if max(tops) == 0 or seeds < 2 or len(grid[0] & grid[1]) < FEWEST_RATES:
        return replace(row, method="none: too few seeds or learning rates")
    if any(rate > top for choice, top in zip(pair, tops, strict=True) for rate in choice.halved):
        return replace(row, method="none: larger learning rates were halved away")
    if tops[0] == tops[1] and pair[0].at_edge:
        return replace(row, method="both are stable at the largest learning rate of the grid")
    signs = {_sign(tops), *_signs_without_a_seed(seen.study, base)}
    if signs == {1}:
        return replace(row, decision=SUPPORTED)
    return replace(row, decision=NOT_SUPPORTED) if 1 not in signs else row


def _signs_without_a_seed(study: Study, base: Row) -> Iterator[int]:
    groups = [study.select(norm, base.batch_size) for norm in (base.norm, base.against)]
    for seed in sorted({outcome.seed for group in groups for outcome in group}):
        kept = [[o for o in group if o.seed != seed] for group in groups]
        if all(kept):
            yield _sign([choose(group).highest_stable or 0.0 for group in kept])


def _sign(tops: Sequence[float]) -> int:
    return (tops[0] > tops[1]) - (tops[0] < tops[1])
