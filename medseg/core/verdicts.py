"""What the numbers of a comparison say, in words; a winner is named only where they show one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from medseg.core.paired import ALPHA, POWER, fewest_cases
from medseg.core.pairs import Outcome, Pair

MINUS = "−"
FEWEST_DIGITS, MOST_DIGITS = 3, 6


def judge(pair: Pair, difference: float) -> Pair:
    """Return a pair of the primary endpoint with its outcome and verdict.

    `better` needs both the corrected test and the interval of the mean, on the same side.

    Args:
        pair: With its corrected test.
        difference: The difference worth seeing.
    """
    outcome = _outcome(pair)
    if outcome == "too few":
        return replace(pair, outcome=outcome, verdict=_too_few(pair))
    if outcome == "unclear":
        return replace(pair, outcome=outcome, verdict=_unclear(pair, difference))
    names = (pair.second, pair.first) if outcome == "better" else (pair.first, pair.second)
    sign = 1 if outcome == "better" else -1
    return replace(
        pair,
        outcome=outcome,
        verdict=f"{names[0]} is better than {names[1]} by {estimate(pair, sign)} "
        f"({counted(pair)}, {p_words(pair)}).",
    )


def _outcome(pair: Pair) -> Outcome:
    if pair.n < fewest_cases(pair.comparisons):
        return "too few"
    if pair.p_holm <= ALPHA:
        if pair.ci_low > 0 and pair.rank_biserial > 0:
            return "better"
        if pair.ci_high < 0 and pair.rank_biserial < 0:
            return "worse"
    return "unclear"


def _too_few(pair: Pair) -> str:
    needed = fewest_cases(pair.comparisons)
    against = "one comparison" if pair.comparisons == 1 else f"{pair.comparisons} comparisons"
    found = "" if not pair.n else f"; {pair.second} minus {pair.first}: {estimate(pair)}"
    return (
        f"{pair.first}, {pair.second}: too few cases to test ({counted(pair)}; "
        f"{against} need{'s' if pair.comparisons == 1 else ''} at least {needed}){found}."
    )


def _unclear(pair: Pair, difference: float) -> str:
    head = f"{pair.first}, {pair.second}: no clear difference"
    if pair.wins == pair.losses == 0:
        return f"{head}: they are equal in {'every case' if pair.n == pair.n_cases else 'all'}."
    found = f"{pair.second} minus {pair.first}: {estimate(pair)}, {counted(pair)}, {p_words(pair)}"
    return f"{head} ({found}); {_disagreement(pair) or _needed(pair, difference)}."


def _disagreement(pair: Pair) -> str:
    """Say so where the test and the interval do not agree; more cases might not help there."""
    tested = pair.p_holm <= ALPHA
    excluded = pair.ci_low > 0 or pair.ci_high < 0
    if tested and not excluded:
        return (
            f"the test sees a shift ({pair.second} is higher in {pair.wins}, lower in "
            f"{pair.losses}), but the interval of the mean includes 0"
        )
    if excluded and not tested:
        return "the interval of the mean excludes 0, but the corrected test does not confirm it"
    if excluded:
        return "the mean and the ranks point in opposite directions"
    return ""


def _needed(pair: Pair, difference: float) -> str:
    """Say how many cases the difference worth seeing would need."""
    noun = _noun(pair)
    if pair.needed is None:
        return f"how many {noun} would be needed is not known"
    seen = f"to see {difference:g}, with {100 * POWER:.0f} % power"
    if pair.needed <= pair.n:
        return f"{pair.needed} {noun} are enough {seen}"
    return f"{pair.needed} {noun} would be needed {seen}"


def overall(pairs: Sequence[Pair], names: Sequence[str]) -> str:
    """Return one sentence about all variants; empty for two, whose pair says it all."""
    if len(names) < 3:
        return ""
    if all(pair.outcome == "too few" for pair in pairs):
        return "Overall: too few cases to test any pair."
    wins = dict.fromkeys(names, 0)
    for pair in pairs:
        if pair.outcome in ("better", "worse"):
            wins[pair.second if pair.outcome == "better" else pair.first] += 1
    if not any(wins.values()):
        return f"Overall: no clear difference between any two of the {len(names)} variants."
    for name, count in wins.items():
        if count == len(names) - 1:
            return f"Overall: {name} is better than each of the other {count} variants."
    shown = sum(wins.values())
    return f"Overall: {shown} of {len(pairs)} pairs differ; no variant is better than all others."


def estimate(pair: Pair, sign: int = 1) -> str:
    """Return the mean difference with its interval, `0.012 Dice [0.007, 0.017]`."""
    ends = sorted((sign * pair.ci_low, sign * pair.ci_high))
    digits = digits_for(pair)
    if math.isnan(ends[0]):
        return f"{signed(sign * pair.difference, digits)} Dice"
    low, high = (signed(end, digits) for end in ends)
    return f"{signed(sign * pair.difference, digits)} Dice [{low}, {high}]"


def signed(value: float, digits: int) -> str:
    """Return a number with a true minus sign, and no sign for what rounds to 0."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "" if float(text) == 0 else MINUS)


def digits_for(pair: Pair) -> int:
    """Return how many decimals show two digits of the interval's width."""
    width = pair.ci_high - pair.ci_low
    if not width > 0:
        return FEWEST_DIGITS
    return min(max(1 - math.floor(math.log10(width)), FEWEST_DIGITS), MOST_DIGITS)


def p_words(pair: Pair) -> str:
    """Return the corrected p, named for how it was corrected."""
    name = "Holm p" if pair.comparisons > 1 else "p"
    return f"{name} < 0.001" if pair.p_holm < 0.001 else f"{name} = {pair.p_holm:.2g}"


def counted(pair: Pair) -> str:
    """Return `52 cases`, or `40 groups of 52 cases`."""
    if pair.n == pair.n_cases:
        return f"{pair.n} {_noun(pair)}"
    return f"{pair.n} groups of {pair.n_cases} cases"


def _noun(pair: Pair) -> str:
    noun = "case" if pair.n == pair.n_cases else "group"
    return noun if pair.n == 1 else f"{noun}s"
