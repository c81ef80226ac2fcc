"""The dropout and the initial scale that norms are compared at: the configuration's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from medseg.study.flags import SHORT_NAMES, is_part, setting, told
from medseg.study.grid import Run
from medseg.study.planned import Planned
from medseg.study.resolving import resolved

NEUTRAL = {"dropout": 0.0, "init_scale": 1.0}
"""Values that change nothing."""


def compared_at(planned: Sequence[Planned], name: str) -> float:
    """Return the value of a flag that norms are compared at, whatever came of the runs.

    It is the configuration's, if some run has it; else the neutral one; else the nearest to it.

    Args:
        planned: All runs of the study, in any state; none have the neutral value.
        name: `dropout` or `init_scale`.
    """
    flag = SHORT_NAMES[name]
    tried = sorted({float(setting(entry.settings, flag)) for entry in planned})
    if len(tried) < 2:
        return tried[0] if tried else NEUTRAL[name]
    for value in (float(configured(planned, flag)), NEUTRAL[name]):
        if value in tried:
            return value
    return min(tried, key=lambda value: _distance(value, NEUTRAL[name]))


def configured(planned: Sequence[Planned], flag: str) -> Any:
    """Return what the configuration says of a flag where no cell of the grid says otherwise.

    None if it has no place for the flag.
    """
    for entry in planned:
        cell = entry.run.cell
        if flag not in cell and not any(is_part(flag, n) or is_part(n, flag) for n in cell):
            return told(entry.settings, flag)
    run = planned[0].run
    return told(resolved(Run({}, run.config, run.fixed)), flag)


def _distance(value: float, neutral: float) -> float:
    """Return how far a value is; of a factor, whose neutral is not 0, by what it multiplies."""
    return abs(math.log(value / neutral)) if neutral else value
