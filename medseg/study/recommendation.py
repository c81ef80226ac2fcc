"""Which norm to take at one batch size, how sure that is, and what would change it.

The rule, in this order: (1) each norm at the learning rate that the choosing fold prefers; norms
that diverge there, or could not run, are left out; (2) the best on the reporting cases, against
each other by a two-level bootstrap and Holm-corrected tests; (3) who may be as good; (4) ties
broken by what was measured; (5) words for how sure it is; (6) a default where nothing tells;
(7) whether another measure, one seed fewer or the baseline's learning rate would choose otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.core.errors import OptionError
from medseg.core.paired import cases_needed
from medseg.study.choosing import Choice, choices_at, chosen
from medseg.study.outcomes import Outcome, Study
from medseg.study.score_tables import (
    DICE,
    HD95,
    NSD,
    Measure,
    Runs,
    class_measure,
    tables,
    worst_class,
)
from medseg.study.standing import Standing, Table, simplicity, stand, without_seed
from medseg.study.tie_breaks import Pick, pick
from medseg.study.verdict_words import sentence


@dataclass(frozen=True)
class Alternative:
    """What the rule would say of other numbers.

    Attributes:
        by: What is different.
        best: The norm that is best then; None where it was not measured.
        pick: The norm that would be picked; None likewise.
        best_changes: Whether another norm is best.
        pick_changes: Whether another norm would be picked.
        note: Why it was not measured, or what to know.
    """

    by: str
    best: str | None
    pick: str | None
    best_changes: bool
    pick_changes: bool
    note: str = ""


@dataclass(frozen=True)
class Recommendation:
    """The norm to take at one batch size, with every number behind it.

    Attributes:
        batch_size: The batch size.
        verdict: One sentence.
        choices: The learning rate of each norm, and why some are left out.
        standing: Of the others, on the reporting cases.
        pick: The norm to take, and what decided.
        needed: Cases that would show the difference worth seeing between the best and the next
            with 80 % power; None if nothing can be compared.
        alternatives: Whether another measure would choose otherwise.
        difference: The mean difference of Dice worth seeing.
    """

    batch_size: int
    verdict: str
    choices: Mapping[str, Choice]
    standing: Standing
    pick: Pick
    needed: int | None
    alternatives: tuple[Alternative, ...]
    difference: float

    @property
    def left_out(self) -> dict[str, str]:
        """Norms that cannot be recommended, and why."""
        return {norm: c.left_out for norm, c in self.choices.items() if c.left_out}


def recommend(
    study: Study, batch_size: int, current: str | None = None, seed: int = 0
) -> Recommendation:
    """Apply the rule at one batch size.

    Args:
        study: All outcomes.
        batch_size: One of the study's.
        current: The norm in use, kept if there is no evidence against it.
        seed: Of the bootstrap.

    Raises:
        OptionError: If no norm can be recommended; the message names why for each.
    """
    choices = choices_at(study, batch_size)
    runs = {n: chosen(study, choice) for n, choice in choices.items() if not choice.left_out}
    found = tables(study, runs, DICE) if runs else None
    if found is None:
        told = "; ".join(f"{norm}: {choice.left_out}" for norm, choice in choices.items())
        raise OptionError(f"no norm can be recommended at batch size {batch_size}: {told}.")
    standing = stand(found, study.difference, seed)
    picked = pick(standing, study, runs, choices, current)
    needed = _needed(standing, study.difference)
    again = _Again(study, choices, standing, picked, current, seed)
    return Recommendation(
        batch_size=batch_size,
        verdict=sentence(batch_size, standing, picked, needed, study.difference),
        choices=choices,
        standing=standing,
        pick=picked,
        needed=needed,
        alternatives=again.alternatives(runs, found),
        difference=study.difference,
    )


def recommend_all(study: Study, current: str | None = None) -> dict[int, Recommendation]:
    """Apply the rule at every batch size at which some norm can be recommended."""
    able = {
        size: any(not choice.left_out for choice in choices_at(study, size).values())
        for size in study.batch_sizes
    }
    return {size: recommend(study, size, current) for size, is_able in able.items() if is_able}


def _needed(standing: Standing, difference: float) -> int | None:
    if not standing.contrasts or math.isnan(standing.contrasts[0].sd):
        return None
    return cases_needed(difference, standing.contrasts[0].sd, len(standing.contrasts))


@dataclass(frozen=True)
class _Again:
    """The rule applied again to other numbers: step 7."""

    study: Study
    choices: Mapping[str, Choice]
    standing: Standing
    picked: Pick
    current: str | None
    seed: int

    def alternatives(self, runs: Runs, found: Sequence[Table]) -> tuple[Alternative, ...]:
        """Return what each other way of looking at it would choose."""
        worst = worst_class(runs)
        seeds = sorted({seed for table in found for seed in table.seeds})
        return (
            self._measured(runs, HD95, 0.0),
            self._measured(runs, NSD, self.study.difference),
            self._measured(runs, class_measure(worst), self.study.difference)
            if worst
            else _unmeasured("worst class", "there are no scores of two classes"),
            self._median(found),
            *(self._without(runs, found, seed) for seed in seeds if len(seeds) > 1),
            self._drop_in(),
        )

    def _measured(self, runs: Runs, measure: Measure, difference: float) -> Alternative:
        found = tables(self.study, runs, measure)
        if found is None:
            return _unmeasured(measure.name, "not measured for every norm")
        return self._alternative(measure.name, found, runs, difference)

    def _alternative(
        self, by: str, found: Sequence[Table], runs: Runs, difference: float, note: str = ""
    ) -> Alternative:
        standing = stand(found, difference, self.seed)
        picked = pick(standing, self.study, runs, self.choices, self.current)
        return self._compared(by, standing.best, picked.norm, note)

    def _compared(self, by: str, best: str, picked: str, note: str = "") -> Alternative:
        return Alternative(
            by=by,
            best=best,
            pick=picked,
            best_changes=best != self.standing.best,
            pick_changes=picked != self.picked.norm,
            note=note,
        )

    def _median(self, found: Sequence[Table]) -> Alternative:
        """Return who has the highest median; the tests, which go by ranks, stay as they are."""
        medians = {table.norm: float(np.median(table.values.mean(axis=0))) for table in found}
        best = min(medians, key=lambda norm: (-medians[norm], simplicity(norm)))
        by_dice = self.picked.by == "Dice"
        note = "only who is highest is looked at"
        return self._compared("median", best, best if by_dice else self.picked.norm, note)

    def _without(self, runs: Runs, found: Sequence[Table], seed: int) -> Alternative:
        name = f"without seed {seed}"
        kept = [without_seed(table, seed) for table in found]
        if not all(table.seeds for table in kept):
            return _unmeasured(name, "a norm has no other seed")
        fewer = {norm: [o for o in group if o.seed != seed] for norm, group in runs.items()}
        return self._alternative(name, kept, fewer, self.study.difference)

    def _drop_in(self) -> Alternative:
        """Return the rule with every norm at the baseline's learning rate."""
        name, baseline = "drop-in learning rate", self.choices.get(self.study.baseline)
        if baseline is None or baseline.learning_rate is None:
            return _unmeasured(name, f"{self.study.baseline} has no learning rate here")
        rate = baseline.learning_rate
        runs = {n: chosen(self.study, choice, rate) for n, choice in self.choices.items()}
        runs = {norm: group for norm, group in runs.items() if _whole(group, self.choices[norm])}
        found = tables(self.study, runs, DICE)
        if found is None:
            return _unmeasured(name, f"no norm finished at {rate:g}")
        missing = sorted(set(self.standing.norms) - set(runs))
        note = f"at {rate:g}" + (f"; not finished there: {', '.join(missing)}" if missing else "")
        return self._alternative(name, found, runs, self.study.difference, note)


def _whole(group: Sequence[Outcome], choice: Choice) -> bool:
    """Return whether every seed of a norm finished and was scored."""
    seeds = max((rate.seeds for rate in choice.rates), default=0)
    good = [o for o in group if o.status == "finished" and o.scores is not None]
    return 0 < seeds == len(good)


def _unmeasured(by: str, note: str) -> Alternative:
    return Alternative(by, None, None, best_changes=False, pick_changes=False, note=note)
