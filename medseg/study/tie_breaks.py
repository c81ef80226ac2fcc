"""Which of several norms to take where Dice does not tell: steps 4 and 6 of the rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from medseg.core.statistics import ROUNDING
from medseg.study.choosing import Choice
from medseg.study.cost_table import costs
from medseg.study.outcomes import Outcome, Study
from medseg.study.score_tables import Runs
from medseg.study.standing import Standing, simplicity

SAME_COST = 0.05
"""Share by which times and sizes must differ to decide; a convention."""

SAME_DECADES = 0.01
"""Decades below which tolerances are the same: rates in a YAML are rounded, as 0.0316 is."""

SMALL_BATCH, LARGE_BATCH = 4, 16
"""Batch sizes between which the default is group norm. Conventions, after Wu & He (2018, Fig. 1):
batch norm lost accuracy below 8 images per device."""


@dataclass(frozen=True)
class TieBreak:
    """One criterion.

    Attributes:
        criterion: What was looked at.
        values: Of each norm that was still in, None where it was not measured.
        kept: The norms that stay.
        decided: Whether any was left behind.
    """

    criterion: str
    values: Mapping[str, float | None]
    kept: tuple[str, ...]
    decided: bool


@dataclass(frozen=True)
class Pick:
    """The norm to take.

    Attributes:
        norm: Its name.
        by: What decided: `Dice`, the name of a criterion, `in use`, `default` or `simplicity`.
        breaks: The criteria in their order.
        default: The default at this batch size, whether it was needed or not.
    """

    norm: str
    by: str
    breaks: tuple[TieBreak, ...]
    default: str


def default_norm(batch_size: int) -> str:
    """Return the norm to take at a batch size where nothing was measured to decide."""
    if batch_size <= SMALL_BATCH:
        return "instance"
    return "group" if batch_size < LARGE_BATCH else "batch"


def pick(
    standing: Standing,
    study: Study,
    runs: Runs,
    choices: Mapping[str, Choice],
    current: str | None = None,
) -> Pick:
    """Pick a norm among the candidates.

    With slight evidence only the best and its equivalents (those that differ by less than is worth
    seeing) are picked from, and the best stays unless a criterion decides. Without evidence all
    candidates are, then what is in use, then the default, then the simplest.

    Args:
        standing: Of the norms.
        study: Its difference worth seeing is also the margin of the statistics gap.
        runs: The outcomes of each norm.
        choices: The learning rate of each norm.
        current: The norm in use, if any.
    """
    batch_size = next(iter(choices.values())).batch_size
    default = default_norm(batch_size)
    pool = _pool(standing)
    if len(pool) == 1:
        return Pick(pool[0], "Dice", (), default)
    breaks = []
    for criterion in _criteria(study, runs, choices, batch_size):
        breaks.append(criterion.applied(pool))
        pool = list(breaks[-1].kept)
        if len(pool) == 1:
            return Pick(pool[0], criterion.name, tuple(breaks), default)
    if standing.confidence == "slight":
        named = standing.best if standing.best in pool else min(pool, key=simplicity)
        return Pick(named, "Dice", tuple(breaks), default)
    for norm, by in ((current, "in use"), (default, "default")):
        if norm in pool:
            return Pick(str(norm), by, tuple(breaks), default)
    return Pick(min(pool, key=simplicity), "simplicity", tuple(breaks), default)


def _pool(standing: Standing) -> list[str]:
    if standing.confidence != "slight":
        return list(standing.candidates)
    equivalent = [c.norm for c in standing.contrasts if c.equivalent]
    return [standing.best, *equivalent]


@dataclass(frozen=True)
class _Criterion:
    """A number of each norm; `margin` maps the best to the worst that counts as equal to it."""

    name: str
    read: Callable[[str], float | None]
    margin: Callable[[float], float]
    higher: bool = False

    def applied(self, pool: Sequence[str]) -> TieBreak:
        """Keep the norms that are best; all, where one was not measured."""
        values = {norm: self.read(norm) for norm in pool}
        known = {norm: value for norm, value in values.items() if value is not None}
        if len(known) < len(values):
            return TieBreak(self.name, values, tuple(values), decided=False)
        limit = self.margin(max(known.values()) if self.higher else min(known.values()))
        kept = tuple(n for n, v in known.items() if (v >= limit if self.higher else v <= limit))
        return TieBreak(self.name, values, kept, decided=len(kept) < len(known))


def _criteria(
    study: Study, runs: Runs, choices: Mapping[str, Choice], batch_size: int
) -> Sequence[_Criterion]:
    known = costs(study, batch_size)

    def cost(name: str) -> Callable[[str], float | None]:
        return lambda norm: getattr(known[norm], name)

    return (
        _Criterion("missed structures", lambda norm: _missed(runs[norm]), lambda v: v + ROUNDING),
        _Criterion("statistics gap", lambda n: _gap(runs[n]), lambda v: v + study.difference),
        _Criterion(
            "learning-rate tolerance",
            lambda norm: choices[norm].decades,
            lambda v: v - SAME_DECADES,
            higher=True,
        ),
        _Criterion("folded inference time", cost("folded_seconds"), lambda v: v * (1 + SAME_COST)),
        _Criterion("peak memory", cost("peak_mib"), lambda v: v * (1 + SAME_COST)),
    )


def _missed(group: Sequence[Outcome]) -> float | None:
    """Return the missed structures of all cases, mean over seeds."""
    counts = (None if o.scores is None else o.scores.missed for o in group)
    return _mean(None if c is None else float(sum(c)) for c in counts)


def _gap(group: Sequence[Outcome]) -> float | None:
    return _mean(o.probes.statistics_gap for o in group)


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of numbers, None if one was not measured."""
    found = list(values)
    known = [value for value in found if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(found) else None
