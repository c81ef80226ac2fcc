"""From the files of a study's runs to its table of outcomes; what is not there stays None."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from medseg.report.files import read_curves, read_json
from medseg.report.sources import Source, read_source
from medseg.study.compared_at import compared_at
from medseg.study.flags import SHORT_NAMES, setting
from medseg.study.measurements import CaseScores, Costs, Curve, Probes
from medseg.study.outcomes import BACKGROUND, KILLED, Outcome, Status, Study
from medseg.study.planned import HALVED, LeftOut, Planned

SIGKILL_STATUSES = (-9, 137)
"""Exit statuses of a process that was killed, as Python and as a shell tell it."""

RISEN_FOR = 3
"""Validations in a row with a loss above that of the first epoch: the training has diverged."""


def outcomes_of(planned: Sequence[Planned], left_out: Sequence[LeftOut] = ()) -> Study:
    """Return the outcomes of a study, one for each cell and seed; folds of a cell are one.

    Cases that some run did not score are left out of all scores.

    Args:
        planned: Its runs, in any state; those that have not begun are no outcome yet.
        left_out: Cells that cannot be built.
    """
    groups: dict[str, list[Planned]] = {}
    for entry in planned:
        if _has_ended(entry) or entry.record.get("status") == "failed":
            groups.setdefault(entry.run.variant, []).append(entry)
    read = [_Read.of(entries) for entries in groups.values()]
    scored = [set(item.case_ids) for item in read if item.sources]
    cases = sorted(set.intersection(*scored)) if scored else []
    found = [item.outcome(cases) for item in read]
    impossible = (
        _outcome(cell.settings, status="impossible", reason=cell.reason) for cell in left_out
    )
    by_case: dict[str, str] = {}
    for item in read:
        for source in item.sources:
            by_case |= dict(source.groups)
    return Study(
        outcomes=(*found, *impossible),
        cases=tuple(cases),
        units=tuple(by_case.get(case, case) for case in cases) if by_case else (),
        dropout=compared_at(planned, "dropout"),
        init_scale=compared_at(planned, "init_scale"),
    )


def _has_ended(entry: Planned) -> bool:
    """Return whether a training is a result, even if what follows it is not done or failed."""
    return entry.has_scores or entry.state in ("diverged", HALVED)


@dataclass(frozen=True)
class _Read:
    """The runs of one cell and seed, one a fold, and the sources of those that were scored."""

    entries: Sequence[Planned]
    sources: Sequence[Source]

    @classmethod
    def of(cls, entries: Sequence[Planned]) -> _Read:
        scored = [entry for entry in entries if entry.has_scores]
        return cls(entries, [read_source(entry.files.run_dir) for entry in scored])

    @property
    def case_ids(self) -> list[str]:
        return [case_id for source in self.sources for case_id in source.case_ids]

    def outcome(self, cases: Sequence[str]) -> Outcome:
        status, reason = self._status()
        curves = [read_curves(entry.files.curves) for entry in self.entries]
        last = [rows[-1]["val/dice"] for rows in map(_validated, curves) if rows]
        complete = len(self.sources) == len(self.entries)
        return _outcome(
            self.entries[0].settings,
            status=status,
            reason=reason,
            choosing=math.fsum(last) / len(last) if last and len(last) == len(curves) else None,
            scores=_scores(self.sources, cases) if complete and cases else None,
            # Folds have curves of their own; a mean of them would be no training's.
            curve=_curve(curves[0]) if len(curves) == 1 else None,
            probes=_probes(self.entries),
            costs=_costs(self.entries),
        )

    def _status(self) -> tuple[Status, str]:
        """Return how the runs ended: the worst of the folds."""
        for entry in self.entries:
            if entry.state == HALVED:
                return HALVED, str(entry.record.get("reason", ""))
            if not _has_ended(entry):
                return _failure(entry)
        for entry in self.entries:
            if reason := entry.divergence or collapse(read_curves(entry.files.curves)):
                return "diverged", reason
        return "finished", ""


def _failure(entry: Planned) -> tuple[Status, str]:
    said = str(entry.record.get("last_line", ""))
    if entry.record.get("exit_code") in SIGKILL_STATUSES:
        return "failed", KILLED
    return ("out of memory" if "memory" in said else "failed"), said or entry.why_not


def collapse(curve: Sequence[Mapping[str, float]]) -> str:
    """Return why a training that came to its end has failed all the same; empty if it has not.

    Args:
        curve: Rows of metrics.csv.
    """
    rows = _validated(curve)
    if rows and rows[-1]["val/dice"] == 0:
        return BACKGROUND
    losses = [row["train/loss"] for row in curve if "train/loss" in row]
    risen = [loss > losses[0] for loss in losses[-RISEN_FOR:]]
    if len(losses) > RISEN_FOR and all(risen):
        return f"the loss of the last {RISEN_FOR} epochs was above that of the first"
    return ""


def _outcome(settings: Mapping[str, Any], **what: Any) -> Outcome:
    def value(name: str) -> Any:
        return setting(settings, SHORT_NAMES[name])

    return Outcome(
        norm=value("norm"),
        batch_size=value("batch_size"),
        learning_rate=float(value("learning_rate")),
        seed=int(value("seed") or 0),
        dropout=float(value("dropout")),
        init_scale=float(value("init_scale")),
        **what,
    )


def _validated(curve: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    return [row for row in curve if "val/dice" in row]


def _curve(rows: Sequence[Mapping[str, float]]) -> Curve | None:
    kept = _validated(rows)
    if not kept:
        return None

    def column(name: str) -> tuple[float, ...]:
        return tuple(row[name] for row in kept)

    trained = all("train/dice" in row for row in kept)
    timed = all("train_seconds" in row for row in kept)
    return Curve(
        samples=column("samples"),
        steps=column("step"),
        seconds=column("train_seconds" if timed else "seconds"),
        dice=column("val/dice"),
        train_dice=column("train/dice") if trained else None,
    )


def _scores(sources: Sequence[Source], cases: Sequence[str]) -> CaseScores:
    where = {case_id: source for source in sources for case_id in source.case_ids}
    names = sources[0].plain_classes

    def of_classes(metric: str) -> tuple[float, ...]:
        return tuple(
            _mean([where[case].value(case, name, metric) for name in names]) for case in cases
        )

    def count(status: str) -> tuple[int, ...]:
        return tuple(
            sum(where[case].status(case, name) == status for name in names) for case in cases
        )

    return CaseScores(
        dice=tuple(where[case].case_dice(case) for case in cases),
        missed=count("missed"),
        invented=count("fp_only"),
        hd95_mm=of_classes("hd95_mm"),
        nsd=of_classes("nsd"),
        class_dice={
            name: tuple(where[case].value(case, name, "dice") for case in cases) for name in names
        },
    )


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _probes(entries: Sequence[Planned]) -> Probes:
    """Return what was watched and measured, each the mean over folds."""
    found = [{**read_json(entry.files.probes), **read_json(entry.files.after)} for entry in entries]
    names = [field.name for field in fields(Probes) if field.name != "invariance"]
    values = {name: _known([item.get(name) for item in found]) for name in names}
    altered = [item["invariance"] for item in found if isinstance(item.get("invariance"), dict)]
    shared = set.intersection(*map(set, altered)) if len(altered) == len(found) else set()
    invariance = {name: _known([item[name] for item in altered]) for name in sorted(shared)}
    kept = {name: value for name, value in invariance.items() if value is not None}
    return Probes(**values, invariance=kept or None)


def _costs(entries: Sequence[Planned]) -> Costs:
    fitted = [entry.fitted for entry in entries]
    after = [read_json(entry.files.after).get("costs") or {} for entry in entries]
    parameters = [fit.get("parameters") for fit in fitted]
    return Costs(
        seconds_per_step=_known([fit.get("seconds_per_step") for fit in fitted]),
        peak_mib=_known([cost.get("peak_mib") for cost in after]),
        inference_seconds=_known([cost.get("inference_seconds") for cost in after]),
        folded_seconds=_known([cost.get("folded_seconds") for cost in after]),
        parameters=next((count for count in parameters if count is not None), None),
    )


def _known(values: Sequence[Any]) -> float | None:
    """Return the mean of numbers; None if one is not there."""
    numbers = [value for value in values if isinstance(value, int | float)]
    return sum(numbers) / len(numbers) if numbers and len(numbers) == len(values) else None
