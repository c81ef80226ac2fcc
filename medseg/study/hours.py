"""How long the runs of a study will take, as far as that is known."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

from medseg.study.planned import Planned
from medseg.study.work import Work

UNKNOWN = "predicted hours: unknown until one run is done (or give trainer.max_time)"

START_SECONDS = 8.0
"""Of a run's processes, until they train, label, score and measure: 7 s measured on one thread,
most of it for the process in which predict labels."""

CASE_SECONDS = 0.1
"""To read a case, and to write or score it, each time it is labelled: half of it for phantoms, more
for large volumes."""

FORWARD = 1 / 3
"""A pass forwards as a share of a training step."""

Kind = tuple[str, int]
"""Norm and batch size."""


class Hours(NamedTuple):
    """What the runs that are left take.

    Attributes:
        words: In hours, and where that is known from.
        seconds: Of each run, by its name; empty if not known.
    """

    words: str
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Known:
    """What is known of the seconds that runs take.

    Attributes:
        paces: Of a step, validations included, by norm and batch size; of finished runs.
        rest: Of what follows a training, from start to end; mean of the finished runs.
        steps: Of a bare step, measured now, by the run's name.
    """

    paces: Mapping[Kind, float] = field(default_factory=dict)
    rest: float | None = None
    steps: Mapping[str, float] = field(default_factory=dict)

    def training(self, entry: Planned, work: Work, share: float) -> float | None:
        """Return the seconds that are left of a training; None if that is not known."""
        if entry.state == "trained":
            return 0.0
        trainer = entry.settings["trainer"]
        if (limit := limit_of(entry)) is not None:
            return limit
        count = _steps(entry.settings) * share
        if self.paces:
            return count * _pace(self.paces, _kind(entry))
        if (step := self.steps.get(entry.run.name)) is None:
            return None
        epoch = entry.settings["data"]["steps_per_epoch"]
        validations: float = count / (epoch * (trainer.get("check_val_every_n_epoch") or 1))
        return count * step + validations * work.validated * self._window(entry)

    def after(self, entry: Planned, work: Work) -> float:
        """Return the seconds of what follows a training."""
        if self.rest is not None:
            return self.rest
        return START_SECONDS + work.cases * CASE_SECONDS + work.labelled * self._window(entry)

    def _window(self, entry: Planned) -> float:
        """Return the seconds of a window that goes forwards; 0 if that is not known."""
        return self.steps.get(entry.run.name, 0.0) * FORWARD / _kind(entry)[1]


def predicted_hours(
    planned: Sequence[Planned],
    left: Sequence[Planned],
    workers: int,
    work_of: Callable[[Planned], Work],
    measure: Callable[[], Mapping[str, float]] = dict,
    shares: Mapping[str, float] | None = None,
) -> Hours:
    """Predict how many hours the runs that are left take.

    Args:
        planned: All runs of the study; the finished ones tell their seconds.
        left: Those that are not done yet.
        workers: Runs side by side.
        work_of: Returns what a run does besides its steps.
        measure: Returns the seconds of a bare step by the run's name; called only where finished
            runs do not tell.
        shares: Of its steps that a run will take, by name; all of them if not given.
    """
    if not left:
        return Hours("predicted hours: 0; every run is done", {})
    paces, rest = _paces(planned), _rest(planned)
    known = Known(paces, rest, {} if paces and rest is not None else measure())
    of_runs = {}
    for entry in left:
        work = work_of(entry)
        training = known.training(entry, work, (shares or {}).get(entry.run.name, 1.0))
        if training is None:
            return Hours(UNKNOWN, {})
        of_runs[entry.run.name] = training + known.after(entry, work)
    seconds = sum(of_runs.values())
    words = f"predicted hours: {seconds / 3600:.2f} for {len(left)} runs"
    side_by_side = min(max(workers, 1), len(left))
    if side_by_side > 1:
        words += f", {seconds / 3600 / side_by_side:.2f} with {side_by_side} side by side"
    return Hours(f"{words} (from {' and '.join(_sources(known, left))})", of_runs)


def _sources(known: Known, left: Sequence[Planned]) -> list[str]:
    """Say where the seconds are known from."""
    limited = [limit_of(entry) is not None for entry in left]
    found = ["max_time"] if any(limited) else []
    if known.paces and not all(limited):
        found.append(f"finished runs, {_range(known.paces.values())} s a step")
    if known.rest is not None:
        found.append(f"{known.rest:.3g} s a run for all but training, as in the finished ones")
    if known.steps:
        found.append(f"bare steps of {_range(known.steps.values())} s, measured now")
    return found


def _range(values: Any) -> str:
    low, high = (f"{value:.3g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _paces(planned: Sequence[Planned]) -> dict[Kind, float]:
    """Return the mean seconds of a step by norm and batch size, validations included."""
    found: dict[Kind, list[float]] = {}
    for entry in planned:
        fit = entry.fitted
        if entry.state in ("trained", "scored") and fit.get("steps"):
            found.setdefault(_kind(entry), []).append(fit["seconds"] / fit["steps"])
    return {kind: statistics.fmean(paces) for kind, paces in found.items()}


def _rest(planned: Sequence[Planned]) -> float | None:
    """Return the mean seconds of the finished runs without their trainings."""
    found = [
        max(entry.record["seconds"] - entry.fitted["seconds"], 0.0)
        for entry in planned
        if entry.state == "scored" and entry.record.get("seconds")
    ]
    return statistics.fmean(found) if found else None


def _pace(paces: Mapping[Kind, float], kind: Kind) -> float:
    """Return the seconds of a step; of another batch size they grow as its samples."""
    norm, batch_size = kind

    def nearness(known: Kind) -> tuple[bool, int, float]:
        return known[0] == norm, -abs(known[1] - batch_size), paces[known]

    nearest = max(paces, key=nearness)
    return paces[nearest] * batch_size / nearest[1]


def _kind(entry: Planned) -> Kind:
    settings = entry.settings
    return str(settings["model"]["norm"]), int(settings["data"]["batch_size"])


def _steps(settings: dict[str, Any]) -> float:
    """Return the steps after which a training ends."""
    trainer = settings["trainer"]
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps")
    # Lightning takes -1 for no limit.
    by_epochs = epochs * settings["data"]["steps_per_epoch"] if epochs and epochs > 0 else None
    limits = [limit for limit in (by_epochs, steps) if limit and limit > 0]
    return min(limits, default=0)


def limit_of(entry: Planned) -> float | None:
    """Return Lightning's max_time in seconds: DD:HH:MM:SS, or a mapping of days to seconds."""
    max_time = entry.settings["trainer"].get("max_time")
    if not max_time:
        return None
    if isinstance(max_time, str):
        names = ("days", "hours", "minutes", "seconds")
        max_time = dict(zip(names, map(int, max_time.split(":")), strict=True))
    return timedelta(**max_time).total_seconds()
