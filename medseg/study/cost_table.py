"""What each norm costs: medians over the runs of one batch size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from medseg.study.choosing import choices_at
from medseg.study.measurements import Costs
from medseg.study.outcomes import Outcome, Study


def costs(study: Study, batch_size: int) -> dict[str, Costs]:
    """Return the median of each cost over all runs of a norm, whatever their learning rate.

    Args:
        study: All outcomes.
        batch_size: One of the study's.

    Returns:
        By norm; None where no run measured a cost.
    """
    names = choices_at(study, batch_size)
    return {norm: _median_of(study.select(norm, batch_size)) for norm in names}


def _median_of(runs: Sequence[Outcome]) -> Costs:
    found = {}
    for field in fields(Costs):
        values = [getattr(outcome.costs, field.name) for outcome in runs]
        known = [value for value in values if value is not None]
        found[field.name] = float(np.median(known)) if known else None
    parameters = found.pop("parameters")
    return Costs(**found, parameters=None if parameters is None else int(parameters))
