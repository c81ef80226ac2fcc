"""The sentence of a recommendation; a norm is praised only as far as the numbers go."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medseg.core.paired import POWER
from medseg.core.verdicts import MINUS
from medseg.study.outcomes import NONE
from medseg.study.standing import Standing
from medseg.study.tie_breaks import Pick

FEWEST_DIGITS = 3

_BECAUSE = {
    "missed structures": "the fewest missed structures",
    "statistics gap": "the smallest gap between running and own statistics",
    "learning-rate tolerance": "the widest range of learning rates that work",
    "folded inference time": "the shortest inference",
    "peak memory": "the least memory",
    "in use": "the norm in use, against which there is no evidence",
    "simplicity": "the simplest of them",
}


def sentence(
    batch_size: int, standing: Standing, picked: Pick, needed: int | None, difference: float
) -> str:
    """Say in one sentence what to take at a batch size, and how sure that is.

    Args:
        batch_size: The batch size.
        standing: How the norms stand.
        picked: The norm to take.
        needed: Cases that would show `difference`, if known.
        difference: The mean difference of Dice worth seeing.
    """
    at = f"At batch size {batch_size}"
    if not standing.contrasts:
        return f"{at} only {shown(standing.best)} can be compared: there is nothing to choose from."
    told = {
        "clear": _named(standing, "clearly has a higher Dice"),
        "slight": f"there is slight evidence that {_named(standing, 'has a higher Dice')}",
        "no evidence of a difference": _undecided(standing, needed, difference),
        "descriptive only": _descriptive(standing),
    }
    until = "until there are more, " if standing.confidence == "descriptive only" else ""
    return f"{at} {told[standing.confidence]}; {until}{_advice(picked, batch_size)}."


def shown(norm: str) -> str:
    """Return the name of a norm in a sentence."""
    return "none (no normalization layer)" if norm == NONE else norm


def _named(standing: Standing, words: str) -> str:
    others = len(standing.contrasts)
    than = "the other norm" if others == 1 else f"any of the {others} other norms"
    first = 100 * standing.rank_shares[0][0]
    return (
        f"{shown(standing.best)} {words} than {than} ({_next(standing)}; first in "
        f"{first:.0f} % of the resamples)"
    )


def _undecided(standing: Standing, needed: int | None, difference: float) -> str:
    power = f"to see {difference:g} with {100 * POWER:.0f} % power"
    cases = "" if needed is None else f", and {needed} cases would be needed {power}"
    if needed is not None and needed <= standing.n:
        cases = f", though {needed} cases are enough {power}"
    if len(standing.candidates) == 1:
        return (
            f"there is no evidence of a difference that would outlast other seeds: "
            f"{shown(standing.best)} has the highest Dice ({_next(standing)}{cases})"
        )
    among = _listed([shown(norm) for norm in sorted(standing.candidates)])
    return (
        f"there is no evidence of a difference between {among}: "
        f"{shown(standing.best)} has the highest Dice ({_next(standing)}{cases})"
    )


def _descriptive(standing: Standing) -> str:
    return (
        "the numbers are descriptive only, since a norm has one seed: "
        f"{shown(standing.best)} has the highest Dice ({_next(standing)}), which other seeds may "
        "undo"
    )


def _next(standing: Standing) -> str:
    """Return the difference to the next norm, with its interval and what it rests on."""
    second = standing.contrasts[0]
    low, high = _signed(second.ci_low), _signed(second.ci_high)
    cases = "1 case" if standing.n == 1 else f"{standing.n} cases"
    seeds = "1 seed" if standing.seeds == 1 else f"{standing.seeds} seeds"
    interval = "" if math.isnan(second.ci_low) else f" [{low}, {high}]"
    return (
        f"{standing.means[0]:.3f}; {_signed(second.difference)}{interval} over "
        f"{shown(second.norm)}, {cases}, {seeds}"
    )


def _advice(picked: Pick, batch_size: int) -> str:
    if picked.by == "Dice":
        return f"take {shown(picked.norm)}"
    if picked.by == "default":
        why = f"the default at batch size {batch_size}, a convention after Wu & He (2018)"
    else:
        why = _BECAUSE[picked.by]
    return f"take {shown(picked.norm)}, {why}"


def _signed(value: float) -> str:
    text = f"{value:+.{FEWEST_DIGITS}f}"
    return text.replace("-", MINUS)


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
