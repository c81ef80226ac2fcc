"""What each run cost: training, memory, prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg.report.sources import Source
from medseg.report.tables import DASH, number


def cost_rows(sources: Sequence[Source]) -> list[dict[str, str]]:
    """Return the table of costs: a row a run; no row where nothing is known of any."""
    known = any(source.fit or _seconds(source) for source in sources)
    return [_cost_row(source) for source in sources] if known else []


def _cost_row(source: Source) -> dict[str, str]:
    fit, seconds = source.fit, _seconds(source)
    return {
        "run": source.name,
        "norm": source.norm,
        "parameters": number(fit.get("parameters"), 0),
        "batch": number(fit.get("batch_size"), 0),
        "steps": number(fit.get("steps"), 0),
        "seconds": number(fit.get("seconds"), 0),
        "rate": number(_ratio(fit.get("seconds"), fit.get("steps")), 3),
        "memory": number(fit.get("peak_memory_mib"), 0),
        "device": str(fit.get("device", DASH)),
        "predicted": str(len(seconds)) if seconds else DASH,
        "median": number(float(np.median(seconds)), 2) if seconds else DASH,
        "slowest": number(max(seconds), 2) if seconds else DASH,
    }


def _seconds(source: Source) -> list[float]:
    """Return what each predicted case took."""
    values = (r.get("seconds") for r in source.journal.values() if r.get("status") == "ok")
    return [float(value) for value in values if isinstance(value, int | float)]


def _ratio(above: Any, below: Any) -> float | None:
    numbers = isinstance(above, int | float) and isinstance(below, int | float)
    return above / below if numbers and below else None
