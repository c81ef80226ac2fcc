"""How long the trainings of a study will take, as far as that is known."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from medseg.study.planned import Planned

UNKNOWN = "predicted hours: unknown until one run is done (or give trainer.max_time)"


def predicted_hours(planned: Sequence[Planned], mine: Sequence[Planned], workers: int) -> str:
    """Say how many hours the trainings that are left take, and where that is known from.

    Args:
        planned: All runs of the study; the finished ones tell the seconds of a step.
        mine: Those that are asked for.
        workers: Runs side by side.
    """
    left = [entry for entry in mine if entry.state in ("new", "interrupted")]
    if not left:
        return "predicted hours: 0; every run is trained"
    pace = _seconds_per_step([e.fitted for e in planned if e.state in ("trained", "scored")])
    limits = [_limit(entry.settings["trainer"].get("max_time")) for entry in left]
    unlimited = [e for e, limit in zip(left, limits, strict=True) if limit is None]
    if unlimited and pace is None:
        return UNKNOWN
    seconds = sum(limit for limit in limits if limit is not None)
    seconds += sum(_steps(entry.settings) * (pace or 0) for entry in unlimited)
    sources = ["max_time"] if len(unlimited) < len(left) else []
    if unlimited:
        sources.append(f"{pace:.3g} s a step in the finished runs")
    words = f"predicted hours: {seconds / 3600:.2f} for {len(left)} trainings"
    side_by_side = min(max(workers, 1), len(left))
    if side_by_side > 1:
        words += f", {seconds / 3600 / side_by_side:.2f} with {side_by_side} side by side"
    return f"{words} (from {' and '.join(sources)})"


def _seconds_per_step(fits: Sequence[dict[str, Any]]) -> float | None:
    """Return the mean over the finished runs: those that are left are much like them."""
    paces = [fit["seconds"] / fit["steps"] for fit in fits if fit.get("steps")]
    return statistics.fmean(paces) if paces else None


def _steps(settings: dict[str, Any]) -> float:
    """Return the steps after which a training ends."""
    trainer = settings["trainer"]
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps")
    # Lightning takes -1 for no limit.
    by_epochs = epochs * settings["data"]["steps_per_epoch"] if epochs and epochs > 0 else None
    limits = [limit for limit in (by_epochs, steps) if limit and limit > 0]
    return min(limits, default=0)


def _limit(max_time: Any) -> float | None:
    """Return Lightning's max_time in seconds: DD:HH:MM:SS, or a mapping of days to seconds."""
    if not max_time:
        return None
    if isinstance(max_time, str):
        names = ("days", "hours", "minutes", "seconds")
        max_time = dict(zip(names, map(int, max_time.split(":")), strict=True))
    return timedelta(**max_time).total_seconds()
