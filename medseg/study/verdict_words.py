"""The sentence of a recommendation; a norm is praised only as far as the numbers go."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from medseg.core.paired import POWER
from medseg.core.verdicts import MINUS
from medseg.study.choosing import Choice
from medseg.study.outcomes import NONE
from medseg.study.sample_size import Needed
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
    choices: Mapping[str, Choice],
    standing: Standing,
    picked: Pick,
    needed: Needed | None,
    difference: float,
) -> str:
    """Say in one sentence what to take at a batch size, how sure that is, and who is not in it.

    Args:
        choices: The learning rate of each norm at the batch size, and why some are left out.
        standing: How the norms stand.
        picked: The norm to take.
        needed: Cases and seeds that would show `difference`, if known.
        difference: The mean difference of Dice worth seeing.
    """
    batch_size = next(iter(choices.values())).batch_size
    at, missing = f"At batch size {batch_size}", "".join(_missing(choices))
    if not standing.contrasts:
        only = f"only {shown(standing.best)} can be compared: there is nothing to choose from"
        return f"{at} {only}{missing}."
    told = {
        "clear": _named(standing, "clearly has a higher Dice"),
        "slight": f"there is slight evidence that {_named(standing, 'has a higher Dice')}",
        "no evidence of a difference": _undecided(standing, needed, difference),
        "descriptive only": _descriptive(standing),
    }
    until = "until there are more, " if standing.confidence == "descriptive only" else ""
    advice = f"{until}{_advice(picked, batch_size)}"
    return f"{at} {told[standing.confidence]}; {advice}{missing}."


def nothing(batch_size: int, choices: Mapping[str, Choice]) -> str:
    """Say why no norm can be recommended at a batch size."""
    told = "; ".join(f"{norm}: {choice.left_out}" for norm, choice in choices.items())
    why = told or "none was trained there as norms are compared"
    return f"at batch size {batch_size} no norm can be recommended: {why}."


def _missing(choices: Mapping[str, Choice]) -> Iterator[str]:
    """Yield whose best learning rate may be another, and who was left out and why."""
    for norm, choice in choices.items():
        if choice.incomplete and not choice.left_out:
            rate = f"the learning rate of {shown(norm)} is not settled ({choice.incomplete})"
            yield f"; {rate}"
    by_reason: dict[str, list[str]] = {}
    for norm, choice in choices.items():
        if choice.left_out:
            why = choice.left_out.partition(": ")[0]  # what follows is for the table
            by_reason.setdefault(why, []).append(shown(norm))
    told = [f"{_listed(norms)} ({why})" for why, norms in by_reason.items()]
    if told:
        yield f"; left out: {', '.join(told)}"


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


def _undecided(standing: Standing, needed: Needed | None, difference: float) -> str:
    cases = "" if needed is None else _enough(needed, standing.n, difference)
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


def _enough(needed: Needed, n: int, difference: float) -> str:
    """Say what would show a difference; more cases alone may not."""
    seen = f"{difference:g} with {100 * POWER:.0f} % power"
    if needed.lacks_seeds:
        return (
            f"; no number of cases with {needed.seeds_at_hand} seeds would show {seen}, about "
            f"{needed.seeds} seeds and {needed.cases} cases would"
        )
    cases = f"{needed.cases} cases with {needed.seeds} seeds"
    if needed.cases <= n:
        return f", though {cases} are enough to see {seen}"
    return f", and {cases} would be needed to see {seen}"


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
    first = f"{', '.join(names[:-1])} and " if len(names) > 1 else ""
    return f"{first}{names[-1]}"
