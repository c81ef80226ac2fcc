"""What a run directory or a score file holds, read for the report; missing parts are noted."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, get_args

from medseg.core.errors import OptionError, problems
from medseg.core.metrics import Status, status_of
from medseg.core.runs import JOURNAL_NAME, RunFiles, Score, ScoreFiles, read_scores
from medseg.report.files import read_curves, read_journal, read_json, read_table, read_text

TRAINING = "training"

KnownStatus = Status | Literal["unknown"]


@dataclass(frozen=True)
class Source:
    """One run, or one score file.

    Attributes:
        name: Unique within the report.
        path: As the user named it.
        fit: Content of fit.json, or nothing.
        config: Text of config.yaml, or nothing.
        curves: Rows of metrics.csv.
        scores: Rows of scores.csv.
        cases: Rows of cases.csv.
        summary: Content of summary.json, or nothing.
        journal: Newest line of predictions.jsonl of each case.
        predictions: Folder of the label maps.
        missing: What is not there and how to get it, one sentence each.
    """

    name: str
    path: Path
    fit: Mapping[str, Any]
    config: str
    curves: Sequence[Mapping[str, float]]
    scores: Sequence[Score]
    cases: Sequence[Mapping[str, str]]
    summary: Mapping[str, Any]
    journal: Mapping[str, Mapping[str, Any]]
    predictions: Path
    missing: tuple[str, ...]

    @property
    def norm(self) -> str:
        """The norm, or a dash."""
        return str(self.fit.get("norm", "–"))

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Classes and regions that were scored, in order."""
        return tuple(dict.fromkeys(score.class_name for score in self.scores))

    @cached_property
    def plain_classes(self) -> tuple[str, ...]:
        """Classes without the regions, which would count their classes twice in a mean."""
        return tuple(name for name in self.class_names if not self._is_region(name))

    def _is_region(self, name: str) -> bool:
        classes = self.summary.get("classes")
        content = classes.get(name) if isinstance(classes, dict) else None
        return isinstance(content, dict) and "values" in content and content.get("value") is None

    @cached_property
    def case_ids(self) -> tuple[str, ...]:
        """Scored cases that did not train the network."""
        seen = dict.fromkeys(score.case_id for score in self.scores)
        return tuple(case_id for case_id in seen if self._roles.get(case_id) != TRAINING)

    @property
    def trained(self) -> int:
        """Scored cases that trained the network; they enter no figure."""
        return len({score.case_id for score in self.scores}) - len(self.case_ids)

    @cached_property
    def groups(self) -> Mapping[str, str]:
        """Patient or site of each case that enters the figures; empty without groups."""
        named = {score.case_id: score.group for score in self.scores if score.group}
        return {c: named.get(c, c) for c in self.case_ids} if named else {}

    @cached_property
    def _roles(self) -> Mapping[str, str]:
        noted = {case_id: str(record.get("role", "")) for case_id, record in self.journal.items()}
        return noted | {
            row["case_id"]: row["role"]
            for row in self.cases
            if row.get("role") and "case_id" in row
        }

    @cached_property
    def _statuses(self) -> Mapping[tuple[str, str], Status]:
        return {
            (row.get("case_id", ""), row.get("class_name", "")): cast("Status", row["status"])
            for row in self.cases
            if row.get("status") in get_args(Status)
        }

    @cached_property
    def _values(self) -> Mapping[tuple[str, str, str], float]:
        return {(s.case_id, s.class_name, s.metric): s.value for s in self.scores}

    def value(self, case_id: str, class_name: str, metric: str) -> float:
        """Return one score, NaN if it is not there."""
        return self._values.get((case_id, class_name, metric), math.nan)

    def status(self, case_id: str, class_name: str) -> KnownStatus:
        """Say where a structure is: as evaluated, else from its volumes, else from its Dice."""
        if (case_id, class_name) in self._statuses:
            return self._statuses[case_id, class_name]
        ref, pred = (self.value(case_id, class_name, f"volume_{w}_ml") for w in ("ref", "pred"))
        if not math.isnan(ref + pred):
            return status_of(int(ref > 0), int(pred > 0))
        return "present" if self.value(case_id, class_name, "dice") > 0 else "unknown"

    def class_value(self, class_name: str) -> int | None:
        """Return the label value of a class, where the summary knows it."""
        classes = self.summary.get("classes")
        content = classes.get(class_name) if isinstance(classes, dict) else None
        value = content.get("value") if isinstance(content, dict) else None
        return value if isinstance(value, int) else None

    def reference_file(self, case_id: str) -> Path | None:
        """Return the reference a case was scored against, where the summary names it."""
        for row in summary_cases(self.summary):
            if row.get("case_id") == case_id and isinstance(row.get("reference_file"), str):
                return Path(row["reference_file"])
        return None

    def lost(self) -> Iterator[tuple[str, str, KnownStatus]]:
        """Yield case, class and status of every structure that was missed or invented."""
        for case_id in self.case_ids:
            for name in self.plain_classes:
                if (status := self.status(case_id, name)) in ("missed", "fp_only"):
                    yield case_id, name, status

    def case_dice(self, case_id: str) -> float:
        """Return the mean Dice of a case over its classes, NaN if every class is absent."""
        values = [self.value(case_id, name, "dice") for name in self.plain_classes]
        known = [value for value in values if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan


def read_sources(paths: Sequence[Path]) -> list[Source]:
    """Read run directories and score files.

    Raises:
        OptionError: If one is absent, empty or named twice; the message lists them all.
    """
    wrong = [text for path in dict.fromkeys(paths) if (text := _problem(path))]
    wrong += [f"{path} is named twice." for path in dict.fromkeys(paths) if paths.count(path) > 1]
    if wrong:
        raise OptionError(f"--runs {wrong[0]}" if len(wrong) == 1 else problems("--runs", wrong))
    return _with_unique_names([read_source(path) for path in paths])


def read_source(path: Path) -> Source:
    """Read a run directory or a score file.

    Raises:
        OptionError: If it is a file, but no score file.
    """
    alone = path.is_file()
    run = RunFiles(path.parent if alone else path)
    files = ScoreFiles(path if alone else run.scores)
    summary = read_json(files.summary)
    predictions = _scored_folder(summary) if alone else run.predictions
    predictions = predictions or run.predictions
    fit = read_json(run.fit)
    source = Source(
        name=str(fit.get("name") or (path.stem if alone else path.resolve().name)),
        path=path,
        fit=fit,
        config=read_text(run.config),
        curves=read_curves(run.curves),
        scores=read_scores(files.scores) if files.scores.is_file() else [],
        cases=read_table(files.cases),
        summary=summary,
        journal=read_journal(predictions / JOURNAL_NAME),
        predictions=predictions,
        missing=(),
    )
    return replace(source, missing=tuple(_missing(source)))


def _problem(path: Path) -> str:
    """Say why there is nothing to report in `path`, or nothing."""
    run = RunFiles(path)
    if path.is_file() or any(part.is_file() for part in (run.fit, run.curves, run.scores)):
        return ""
    if path.is_dir():
        return (
            f"{path} holds neither a training nor scores. `medseg fit` writes the one, "
            "`medseg evaluate` the other."
        )
    return f"{path}: no such run directory or score file."


def _scored_folder(summary: Mapping[str, Any]) -> Path | None:
    """Return the folder whose label maps were scored, where the summary names it."""
    files = [str(row.get("prediction_file", "")) for row in summary_cases(summary)]
    try:
        return Path(os.path.commonpath([Path(file).parent for file in files]))
    except ValueError:
        return None  # no file, or no common folder


def summary_cases(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the cases in a summary, as nnU-Net writes them."""
    rows = summary.get("metric_per_case")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _missing(source: Source) -> Iterator[str]:
    """Say what cannot be shown, and which command makes it."""
    if not source.scores:
        yield (
            "scores.csv is not there: no scores and no cases. "
            "`medseg predict`, then `medseg evaluate` make it."
        )
    elif not source.summary:
        yield (
            "summary.json is not there or not readable: failed cases and the tolerance of NSD are "
            "not known. `medseg evaluate` writes it beside the scores."
        )
    if not source.fit:
        yield (
            "fit.json is not there or not readable: cost and settings of the training are not "
            "known. `medseg fit` writes it when a training ends."
        )
    if not source.curves:
        yield "metrics.csv is not there or not readable: no curves. `medseg fit` writes it."
    if source.scores and not source.journal:
        yield (
            "predictions.jsonl is not there: no pictures, and cases that trained the network "
            "cannot be told from others. `medseg predict` writes it."
        )


def _with_unique_names(sources: Sequence[Source]) -> list[Source]:
    """Return the sources, those of equal names told apart by their paths."""
    names = [source.name for source in sources]
    return [
        replace(source, name=str(source.path)) if names.count(source.name) > 1 else source
        for source in sources
    ]
