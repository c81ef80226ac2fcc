"""The baseline of a study beside each other norm, at every batch size they share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from medseg.study.choosing import Choice, choices_at, chosen
from medseg.study.claim_intervals import SIZE, Limits, difference_row, mean_row, ratio_row
from medseg.study.claim_rows import NOT_DECIDABLE, Row
from medseg.study.outcomes import Outcome, Study

Reading = Callable[[Outcome], float | None]
"""A number of one run, None where it was not measured."""

MODES = {
    "dice_running": "Dice with running statistics",
    "dice_precise": "Dice with precise statistics",
    "dice_own": "Dice with own statistics",
}
"""Probes of the three ways to evaluate batch norm."""


@dataclass(frozen=True)
class Pairing:
    """Everything a claim asks of a study.

    Attributes:
        study: The study.
    """

    study: Study

    @cached_property
    def choices(self) -> dict[int, dict[str, Choice]]:
        """The learning rate of each norm at each batch size."""
        return {size: choices_at(self.study, size) for size in self.study.batch_sizes}

    def runs(self, size: int, norm: str) -> tuple[Outcome, ...]:
        """Return the runs of a norm at its own learning rate, one a seed."""
        return chosen(self.study, self.choices[size][norm])

    def shared_rate(self, size: int, norm: str) -> float | None:
        """Return the smaller of the baseline's and a norm's own learning rate: both train at it."""
        rates = [self.choices[size][n].learning_rate for n in (self.study.baseline, norm)]
        return min((rate for rate in rates if rate is not None), default=None)

    def norms(self, size: int) -> list[str]:
        """Return the norms with a learning rate at a batch size, the baseline first."""
        able = [n for n, choice in self.choices[size].items() if choice.learning_rate is not None]
        return sorted(able, key=lambda norm: (norm != self.study.baseline, norm))

    def pairs(self) -> Iterator[tuple[int, str]]:
        """Yield each batch size with each norm that the baseline can be compared with there."""
        for size in self.study.batch_sizes:
            names = self.norms(size)
            if self.study.baseline in names:
                yield from ((size, norm) for norm in names[1:])

    def settled(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield rows; a contrast decides nothing where a norm's best rate may be another.

        For contrasts of norms at their own learning rates.
        """
        for row in rows:
            norms = (row.norm, row.against) if row.against else ()
            choices = self.choices.get(row.batch_size, {})
            if any(norm in choices and choices[norm].incomplete for norm in norms):
                how = f"{row.method}; not all learning rates are known"
                yield replace(row, decision=NOT_DECIDABLE, method=how.removeprefix("; "))
            else:
                yield row

    def setting(self, words: str) -> str:
        """Return what the study would need; the runs that it lacks come first."""
        lacking = any(c.incomplete for there in self.choices.values() for c in there.values())
        return f"the runs that failed or are missing, {words}" if lacking else words

    def contrast(self, quantity: str, size: int, norm: str, primary: bool = False) -> Row:
        """Return an empty contrast of the baseline with a norm, to be filled in."""
        return Row(quantity, self.study.baseline, size, float("nan"), against=norm, primary=primary)

    def values(
        self, size: int, norm: str, read: Reading, rate: float | None = None
    ) -> list[float] | None:
        """Return a number of each seed; None if one that finished was not measured.

        A seed that diverged counts with what it has, and not where it has nothing.

        Args:
            size: The batch size.
            norm: The norm.
            read: Returns the number of one run.
            rate: A learning rate; the norm's own if not given.
        """
        known = []
        for outcome in all_ended(chosen(self.study, self.choices[size][norm], rate)):
            value = read(outcome)
            if value is not None and math.isfinite(value):
                known.append(value)
            elif outcome.status == "finished":
                return None
        return known or None

    def means(self, quantity: str, read: Reading, limits: Limits = SIZE) -> Iterator[Row]:
        """Yield the mean over seeds of every norm."""
        for size in self.study.batch_sizes:
            for norm in self.norms(size):
                values = self.values(size, norm, read)
                if values is not None:
                    row = mean_row(quantity, norm, size, values, limits)
                    lost = len(all_ended(self.runs(size, norm))) - len(values)
                    yield replace(row, method=f"{row.method}; {lost} diverged") if lost else row

    def differences(
        self,
        quantity: str,
        read: Reading,
        claimed: int,
        margin: float,
        limits: Limits = SIZE,
        primary: bool = True,
    ) -> Iterator[Row]:
        """Yield the difference of the baseline to each norm, over seeds."""
        for size, norm in self.pairs():
            ours = self.values(size, self.study.baseline, read)
            theirs = self.values(size, norm, read)
            if ours and theirs:
                row = self.contrast(quantity, size, norm, primary)
                yield difference_row(row, ours, theirs, claimed, margin, limits)

    def ratios_at_one_rate(self, quantity: str, read: Reading, claimed: int) -> Iterator[Row]:
        """Yield the ratio of the baseline to each norm at one rate; only of numbers above 0."""
        for size, norm in self.pairs():
            rate = self.shared_rate(size, norm)
            ours = self.values(size, self.study.baseline, read, rate)
            theirs = self.values(size, norm, read, rate)
            if rate and ours and theirs and min(*ours, *theirs) > 0:
                name = f"ratio of {quantity} {at_rates(rate)}"
                yield ratio_row(self.contrast(name, size, norm, True), ours, theirs, claimed)


def at_rates(*rates: float) -> str:
    """Return learning rates in words, equal ones once."""
    found = [f"{rate:g}" for rate in dict.fromkeys(rates)]
    if len(found) == 1:
        return f"at a learning rate of {found[0]}"
    return f"at learning rates of {' and '.join(found)}"


def final_dice(outcome: Outcome) -> float | None:
    """Return the mean Dice of the reporting cases; of the choosing fold where there is none.

    A network that diverged and labels nothing has Dice 0.
    """
    if outcome.scores is not None and not np.isnan(outcome.scores.dice).all():
        return float(np.nanmean(outcome.scores.dice))
    if outcome.choosing is not None:
        return outcome.choosing
    return 0.0 if outcome.status == "diverged" else None


def probe(name: str) -> Reading:
    """Return the reading of a probe."""

    def read(outcome: Outcome) -> float | None:
        value: float | None = getattr(outcome.probes, name)
        return value

    return read


def all_ended(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the runs that came to an end of their own."""
    return [outcome for outcome in outcomes if outcome.has_ended]
