"""Would another measure, one seed fewer or one learning rate for all choose otherwise? Step 7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.study.choosing import Choice, chosen
from medseg.study.contrasts import Table, without_seed
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
from medseg.study.standing import Standing, simplicity, stand
from medseg.study.tie_breaks import Pick, pick


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
class Again:
    """The rule applied again to other numbers.

    Attributes:
        study: All outcomes.
        choices: The learning rate of each norm.
        standing: What the rule said.
        picked: What it picked.
        current: The norm in use, if any.
        seed: Of the bootstrap.
    """

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
        standing = stand(found, difference, self.seed, measure.limits[1])
        return self._picked(measure.name, standing, runs)

    def _alternative(
        self, by: str, found: Sequence[Table], runs: Runs, note: str = ""
    ) -> Alternative:
        return self._picked(by, stand(found, self.study.difference, self.seed), runs, note)

    def _picked(self, by: str, standing: Standing, runs: Runs, note: str = "") -> Alternative:
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
        return self._alternative(name, kept, fewer)

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
        return self._alternative(name, found, runs, note)


def _whole(group: Sequence[Outcome], choice: Choice) -> bool:
    """Return whether every seed of a norm finished and was scored."""
    seeds = max((rate.seeds for rate in choice.rates), default=0)
    good = [o for o in group if o.status == "finished" and o.scores is not None]
    return 0 < seeds == len(good)


def _unmeasured(by: str, note: str) -> Alternative:
    return Alternative(by, None, None, best_changes=False, pick_changes=False, note=note)
