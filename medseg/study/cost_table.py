"""What each norm costs at one batch size: its fastest run, since other work only slows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from medseg.study.choosing import choices_at
from medseg.study.measurements import Costs
from medseg.study.outcomes import Outcome, Study


def costs(study: Study, batch_size: int) -> dict[str, Costs]:
    """Return each cost of every norm: the shortest times and the median of memory of all its runs.

    All, whatever their learning rate: it changes no cost, and of more runs one was undisturbed.

    Args:
        study: All outcomes.
        batch_size: One of the study's.

    Returns:
        By norm; None where no run measured a cost.
    """
    names = choices_at(study, batch_size)
    return {norm: _of_all(study.select(norm, batch_size)) for norm in names}


def _of_all(runs: Sequence[Outcome]) -> Costs:
    known = {
        field.name: [v for o in runs if (v := getattr(o.costs, field.name)) is not None]
        for field in fields(Costs)
    }
    times = {n: min(v, default=None) for n, v in known.items() if n.endswith(("_step", "_seconds"))}
    sizes = known["parameters"]
    return Costs(
        **times,
        peak_mib=float(np.median(known["peak_mib"])) if known["peak_mib"] else None,
        parameters=int(sizes[0]) if sizes else None,
    )
