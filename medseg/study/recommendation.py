"""Which norm to take at one batch size, how sure that is, and what would change it.

The rule, in this order: (1) each norm at the learning rate that the choosing fold prefers; norms
that diverge there, or could not run, are left out, and nothing is clear while one may have a better
rate whose runs failed; (2) the best on the reporting cases, against
each other by a two-level bootstrap and Holm-corrected tests; (3) who may be as good; (4) ties
broken by what was measured; (5) words for how sure it is; (6) a default where nothing tells;
(7) whether another measure, one seed fewer or the baseline's learning rate would choose otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from medseg.core.errors import OptionError, check_choice
from medseg.study.alternatives import Again, Alternative
from medseg.study.choosing import Choice, choices_at, chosen
from medseg.study.contrasts import Table
from medseg.study.outcomes import Study
from medseg.study.sample_size import Needed, needed, spread_of
from medseg.study.score_tables import DICE, tables
from medseg.study.standing import Standing, stand
from medseg.study.tie_breaks import Pick, pick
from medseg.study.verdict_words import nothing, sentence


@dataclass(frozen=True)
class Recommendation:
    """The norm to take at one batch size, with every number behind it.

    Attributes:
        batch_size: The batch size.
        verdict: One sentence.
        choices: The learning rate of each norm, and why some are left out.
        standing: Of the others, on the reporting cases.
        pick: The norm to take, and what decided.
        needed: Cases and seeds that would show the difference worth seeing between the best and
            the next with 80 % power; None if nothing can be compared, or one has a single seed.
        alternatives: Whether another measure would choose otherwise.
        difference: The mean difference of Dice worth seeing.
    """

    batch_size: int
    verdict: str
    choices: Mapping[str, Choice]
    standing: Standing
    pick: Pick
    needed: Needed | None
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
        OptionError: If no norm can be recommended; the message names why for each. If the norm in
            use is not in the study.
    """
    if current is not None:
        check_choice("the norm in use", current, study.norms)
    choices = choices_at(study, batch_size)
    runs = {n: chosen(study, choice) for n, choice in choices.items() if not choice.left_out}
    found = tables(study, runs, DICE) if runs else None
    if found is None:
        raise OptionError(nothing(batch_size, choices))
    standing = _capped(stand(found, study.difference, seed), choices)
    picked = pick(standing, study, runs, choices, current)
    wanted = _needed(standing, found, study.difference)
    again = Again(study, choices, standing, picked, current, seed)
    return Recommendation(
        batch_size=batch_size,
        verdict=sentence(choices, standing, picked, wanted, study.difference),
        choices=choices,
        standing=standing,
        pick=picked,
        needed=wanted,
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


def _capped(standing: Standing, choices: Mapping[str, Choice]) -> Standing:
    """Return a standing that is not clear where a norm might have had a better learning rate."""
    if standing.confidence == "clear" and any(c.incomplete for c in choices.values()):
        return replace(standing, confidence="slight")
    return standing


def _needed(standing: Standing, found: Sequence[Table], difference: float) -> Needed | None:
    if not standing.contrasts:
        return None
    by_norm = {table.norm: table for table in found}
    pair = by_norm[standing.best], by_norm[standing.contrasts[0].norm]
    spread = spread_of(*pair)
    if spread is None:
        return None
    seeds = [len(table.seeds) for table in pair]
    return needed(spread, difference, seeds, len(standing.contrasts))
