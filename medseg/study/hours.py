"""How long the trainings of a study will take, as far as that is known."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from medseg.study.planned import Planned

UNKNOWN = "predicted hours: unknown until one run is done (or give trainer.max_time)"


def predicted_hours(
    planned: Sequence[Planned],
    left: Sequence[Planned],
    workers: int,
    measure: Callable[[], Mapping[int, float]] = dict,
    shares: Mapping[str, float] | None = None,
) -> str:
    """Say how many hours the trainings that are left take, and where that is known from.

    Args:
        planned: All runs of the study; the finished ones tell the seconds of a step.
        left: Those that are not trained yet.
        workers: Runs side by side.
        measure: Returns the seconds of a bare step by batch size; called only where neither a
            limit of time nor a finished run tells.
        shares: Of its steps that a run will take, by name; all of them if not given.
    """
    if not left:
        return "predicted hours: 0; every run is trained"
    limits = [_limit(entry.settings["trainer"].get("max_time")) for entry in left]
    unlimited = [e for e, limit in zip(left, limits, strict=True) if limit is None]
    finished = _paces(planned)
    pace = finished or (measure() if unlimited else {})
    if unlimited and not pace:
        return UNKNOWN
    seconds = sum(limit for limit in limits if limit is not None)
    seconds += sum(
        _steps(e.settings) * _pace(pace, _batch_size(e)) * (shares or {}).get(e.run.name, 1.0)
        for e in unlimited
    )
    sources = ["max_time"] if len(unlimited) < len(left) else []
    if unlimited:
        shown = ", ".join(f"{pace[n]:.3g} s at batch size {n}" for n in sorted(pace))
        how = "a step in the finished runs" if finished else "a bare step, measured now"
        sources.append(f"{how}: {shown}")
    words = f"predicted hours: {seconds / 3600:.2f} for {len(left)} trainings"
    side_by_side = min(max(workers, 1), len(left))
    if side_by_side > 1:
        words += f", {seconds / 3600 / side_by_side:.2f} with {side_by_side} side by side"
    return f"{words} (from {' and '.join(sources)})"


def _paces(planned: Sequence[Planned]) -> dict[int, float]:
    """Return the mean seconds of a step by batch size, validation included."""
    found: dict[int, list[float]] = {}
    for entry in planned:
        fit = entry.fitted
        if entry.state in ("trained", "scored") and fit.get("steps"):
            found.setdefault(_batch_size(entry), []).append(fit["seconds"] / fit["steps"])
    return {batch_size: statistics.fmean(paces) for batch_size, paces in found.items()}


def _pace(paces: Mapping[int, float], batch_size: int) -> float:
    """Return the seconds of a step; of another batch size they grow as its samples."""
    if batch_size in paces:
        return paces[batch_size]
    nearest = min(paces, key=lambda known: abs(known - batch_size))
    return paces[nearest] * batch_size / nearest


def _batch_size(entry: Planned) -> int:
    return int(entry.settings["data"]["batch_size"])


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
