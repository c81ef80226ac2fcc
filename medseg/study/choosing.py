"""The learning rate of each norm, chosen where nothing is reported, and who is left out and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from medseg.study.outcomes import BACKGROUND, KILLED, Outcome, Study

STABLE_SHARE = 0.95
"""Of the norm's best Dice on the choosing fold: what a stable learning rate reaches (B5)."""


@dataclass(frozen=True)
class Rate:
    """One learning rate of one norm at one batch size.

    Attributes:
        learning_rate: The rate.
        choosing: Mean over seeds of the Dice on the choosing fold; a network without one counts 0.
        worst: Lowest over seeds.
        diverged: Seeds that diverged.
        seeds: Seeds in all.
    """

    learning_rate: float
    choosing: float
    worst: float
    diverged: int
    seeds: int


@dataclass(frozen=True)
class Choice:
    """The learning rate of one norm at one batch size.

    Attributes:
        norm: The norm.
        batch_size: The batch size.
        rates: Every learning rate that all seeds came to the end of, ascending.
        learning_rate: The one with the highest mean on the choosing fold, the smaller of equals;
            None if there is none.
        highest_stable: Largest rate at which every seed finished with `STABLE_SHARE` of the norm's
            best Dice or more; None if there is none.
        decades: Tolerance: from the smallest to the largest of the stable rates around the chosen
            one; None with fewer than two rates.
        at_edge: Whether the highest stable rate is the highest that was tried.
        halved: Rates at which a run was stopped on purpose: whether they hold is not known.
        left_out: Why the norm cannot be recommended; empty if it can.
        incomplete: Where runs failed or are missing, so that another rate might be the best one;
            empty if none, and for a norm of which it is known that it cannot run.
    """

    norm: str
    batch_size: int
    rates: tuple[Rate, ...]
    learning_rate: float | None
    highest_stable: float | None
    decades: float | None
    at_edge: bool
    halved: tuple[float, ...]
    left_out: str
    incomplete: str


def choose(outcomes: Sequence[Outcome]) -> Choice:
    """Choose the learning rate of one norm at one batch size, by the choosing fold only.

    Args:
        outcomes: All learning rates and seeds of the norm; at least one.
    """
    seeds = {outcome.seed for outcome in outcomes}
    tried = sorted({outcome.learning_rate for outcome in outcomes})
    by_rate = [[o for o in outcomes if o.learning_rate == rate] for rate in tried]
    rates = [_rate(group) for group in by_rate if _ended(group, seeds)]
    best = max(rates, key=lambda rate: (rate.choosing, -rate.learning_rate), default=None)
    stable = _stable(rates, best)
    decades = math.log10(stable[-1] / stable[0]) if stable and len(rates) > 1 else None
    return Choice(
        norm=outcomes[0].norm,
        batch_size=outcomes[0].batch_size,
        rates=tuple(rates),
        learning_rate=best.learning_rate if best else None,
        highest_stable=stable[-1] if stable else None,
        decades=0.0 if len(rates) > 1 and not stable else decades,
        at_edge=bool(stable) and stable[-1] == tried[-1],
        halved=tuple(sorted({o.learning_rate for o in outcomes if o.status == "halved"})),
        left_out=_left_out(outcomes, best),
        incomplete=_incomplete(outcomes, seeds),
    )


def choices_at(study: Study, batch_size: int) -> dict[str, Choice]:
    """Return the choice of every norm at one batch size, by name."""
    groups = {norm: study.select(norm, batch_size) for norm in study.norms}
    return {norm: choose(group) for norm, group in groups.items() if group}


def chosen(study: Study, choice: Choice, rate: float | None = None) -> tuple[Outcome, ...]:
    """Return the outcomes of a norm at its chosen learning rate or another, by ascending seed."""
    wanted = choice.learning_rate if rate is None else rate
    found = study.select(choice.norm, choice.batch_size)
    return tuple(sorted((o for o in found if o.learning_rate == wanted), key=lambda o: o.seed))


def _ended(group: Sequence[Outcome], seeds: set[int]) -> bool:
    return {o.seed for o in group if o.has_ended} == seeds


def _rate(group: Sequence[Outcome]) -> Rate:
    values = [choosing_dice(outcome) or 0.0 for outcome in group]
    return Rate(
        learning_rate=group[0].learning_rate,
        choosing=math.fsum(values) / len(values),
        worst=min(values),
        diverged=sum(o.status == "diverged" for o in group),
        seeds=len(group),
    )


def choosing_dice(outcome: Outcome) -> float | None:
    """Return the Dice on the choosing fold; 0 of a divergence without one, None if not known."""
    value = outcome.choosing
    if value is not None and not math.isnan(value):
        return value
    return 0.0 if outcome.status == "diverged" else None


def _stable(rates: Sequence[Rate], best: Rate | None) -> list[float]:
    """Return the rates in a row around the best one that are stable."""
    if best is None or best.choosing <= 0:
        return []
    level = STABLE_SHARE * best.choosing
    around: list[float] = []
    for rate in rates:
        if rate.diverged or rate.worst < level:
            if around and around[-1] >= best.learning_rate:
                break
            around = []
        else:
            around.append(rate.learning_rate)
    return around if around and around[0] <= best.learning_rate <= around[-1] else []


def _left_out(outcomes: Sequence[Outcome], best: Rate | None) -> str:
    """Say why a norm is dropped: step 1 of the rule."""
    if best is None:
        told = {o.status: o.reason for o in outcomes if not o.has_ended}
        for status, words in (
            ("impossible", "it cannot be built"),
            ("out of memory", "it does not fit in memory"),
        ):
            if status in told:
                return f"{words}: {told[status]}" if told[status] else words
        return "no learning rate has a finished run of every seed"
    at_best = [o for o in outcomes if o.learning_rate == best.learning_rate]
    if best.diverged:
        silent = {o.reason for o in at_best if o.status == "diverged"} == {BACKGROUND}
        what = "called everything background" if silent else "diverged"
        return (
            f"{best.diverged} of {best.seeds} seeds {what} at {best.learning_rate:g}, its best "
            "learning rate"
        )
    if any(o.scores is None for o in at_best):
        return "its runs were not scored on the reporting cases"
    return ""


def _incomplete(outcomes: Sequence[Outcome], seeds: set[int]) -> str:
    """Say at which rates seeds did not come to an end though nobody stopped them on purpose."""
    if {o.status for o in outcomes} <= {"impossible", "out of memory"}:
        return ""
    told = []
    for rate in sorted({o.learning_rate for o in outcomes}):
        group = [o for o in outcomes if o.learning_rate == rate]
        lacking = seeds - {o.seed for o in group if o.has_ended}
        if lacking and not any(o.status == "halved" for o in group):
            why = {_how_it_failed(o) for o in group if not o.has_ended}
            why |= {"not run"} if seeds - {o.seed for o in group} else set()
            told.append(
                f"{len(lacking)} of {len(seeds)} seeds at {rate:g} {' or '.join(sorted(why))}"
            )
    return ", ".join(told)


def _how_it_failed(outcome: Outcome) -> str:
    return KILLED if outcome.reason == KILLED else outcome.status
