"""Which runs of a study a comparison of norms is made of; others would be taken for more seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medseg.study.compared_at import configured
from medseg.study.flags import SHORT_NAMES, told, word
from medseg.study.planned import Plan


@dataclass(frozen=True)
class Comparable:
    """What is left of a study where all but the axes of a comparison of norms is held still.

    Attributes:
        plan: The runs, in any state, and the cells that cannot be built.
        held: Flags that vary in the study beside the axes of `SHORT_NAMES`, and the one value of
            each that the runs of `plan` have: the configuration's own, if some run has it.
        others: Number of runs with another value.
    """

    plan: Plan
    held: Mapping[str, Any]
    others: int


def comparable(plan: Plan) -> Comparable:
    """Return the part of a study that norms can be compared in.

    An outcome tells norms, batch sizes, rates, seeds, folds, dropouts and initial scales apart.
    Runs that differ in more, as of a grid of weight decays or of variants, are not the same cell.
    """
    named = {flag for entry in plan.runs for flag in entry.run.cell} - set(SHORT_NAMES.values())
    held = {}
    for flag in sorted(named):
        found = [told(entry.settings, flag) for entry in plan.runs]
        if any(value != found[0] for value in found):
            own = configured(plan.runs, flag)
            held[flag] = own if own in found else found[0]

    def is_alike(settings: Mapping[str, Any]) -> bool:
        return all(told(settings, flag) == value for flag, value in held.items())

    runs = [entry for entry in plan.runs if is_alike(entry.settings)]
    left_out = [cell for cell in plan.left_out if is_alike(cell.settings)]
    return Comparable(Plan(runs, left_out), held, len(plan.runs) - len(runs))


def held_words(held: Mapping[str, Any]) -> str:
    """Return held flags as text: `model.ema_decay 0.9, data.fold 1`."""
    return ", ".join(f"{flag} {word(value)}" for flag, value in held.items())
