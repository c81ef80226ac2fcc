"""What a run directory or a score file holds, read for the report; missing parts are noted."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from medseg.core.errors import OptionError
from medseg.core.metrics import Status, status_of
from medseg.core.runs import (
    JOURNAL_NAME,
    RunFiles,
    Score,
    ScoreFiles,
    csv_text,
    read_scores,
)

TRAINING = "training"


@dataclass(frozen=True)
class Source:
    """One run, or one score file.

    Attributes:
        name: Unique within the report.
        path: As the user named it.
        fit: Content of fit.json, or nothing.
        curves: Rows of metrics.csv.
        scores: Rows of scores.csv.
        roles: Role of each case in the training, where known.
        summary: Content of summary.json, or nothing.
        journal: Newest line of predictions.jsonl of each case.
        predictions: Folder of the label maps.
        missing: What is not there and how to get it, one sentence each.
    """

    name: str
    path: Path
    fit: Mapping[str, Any]
    curves: Sequence[Mapping[str, float]]
    scores: Sequence[Score]
    roles: Mapping[str, str]
    summary: Mapping[str, Any]
    journal: Mapping[str, Mapping[str, Any]]
    predictions: Path
    missing: tuple[str, ...]

    @property
    def norm(self) -> str:
        """The norm, or a dash."""
        return str(self.fit.get("norm", "–"))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes that were scored, in order."""
        return tuple(dict.fromkeys(score.class_name for score in self.scores))

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Scored cases that did not train the network."""
        seen = dict.fromkeys(score.case_id for score in self.scores)
        return tuple(case_id for case_id in seen if self.roles.get(case_id) != TRAINING)

    @property
    def trained(self) -> int:
        """Scored cases that trained the network; they enter no figure."""
        return len({score.case_id for score in self.scores}) - len(self.case_ids)

    @cached_property
    def _values(self) -> dict[tuple[str, str, str], float]:
        return {(s.case_id, s.class_name, s.metric): s.value for s in self.scores}

    def value(self, case_id: str, class_name: str, metric: str) -> float:
        """Return one score, NaN if it is not there."""
        return self._values.get((case_id, class_name, metric), math.nan)

    def status(self, case_id: str, class_name: str) -> Status:
        """Say where a structure is, from its volumes."""
        volumes = (self.value(case_id, class_name, f"volume_{w}_ml") for w in ("ref", "pred"))
        ref, pred = (0 if math.isnan(volume) else math.ceil(volume) for volume in volumes)
        return status_of(ref, pred)

    def case_dice(self, case_id: str) -> float:
        """Return the mean Dice of a case over its classes, NaN if every class is absent."""
        known = [
            value
            for name in self.class_names
            if not math.isnan(value := self.value(case_id, name, "dice"))
        ]
        return sum(known) / len(known) if known else math.nan


def read_source(path: Path) -> Source:
    """Read a run directory or a score file.

    Raises:
        OptionError: If there is nothing to report.
    """
    if path.is_file():
        return _read(path.parent, path, ScoreFiles(path))
    if not path.is_dir():
        raise OptionError(f"--runs {path}: no such run directory or score file.")
    source = _read(path, path, ScoreFiles(RunFiles(path).scores))
    if not (source.fit or source.curves or source.scores):
        raise OptionError(
            f"--runs {path} holds neither a training nor a score file (`medseg evaluate`)."
        )
    return source


def _read(folder: Path, path: Path, files: ScoreFiles) -> Source:
    run = RunFiles(folder)
    missing = []
    scores: list[Score] = []
    if files.scores.is_file():
        scores = read_scores(files.scores)
    else:
        missing.append("There are no scores: run `medseg predict`, then `medseg evaluate`.")
    fit = _read_json(run.fit)
    if not fit:
        missing.append("There is no fit.json: the training's cost and settings are not known.")
    journal = _read_journal(run.predictions / JOURNAL_NAME)
    if scores and not journal:
        missing.append(
            "There is no predictions.jsonl: no pictures, and the role of cases is unknown."
        )
    roles = {case_id: str(record.get("role", "")) for case_id, record in journal.items()}
    return Source(
        name=str(fit.get("name") or (path.stem if path.is_file() else path.resolve().name)),
        path=path,
        fit=fit,
        curves=_read_curves(run.curves),
        scores=scores,
        roles=roles | _read_roles(files.cases),
        summary=_read_json(files.summary),
        journal=journal,
        predictions=run.predictions,
        missing=tuple(missing),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_journal(path: Path) -> dict[str, dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    records = {}
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # torn: its writer was killed
        if isinstance(record, dict) and "case_id" in record:
            records[str(record["case_id"])] = record
    return records


def _read_roles(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return {}
    return {csv_text(row["case_id"]): row["role"] for row in rows if row.get("role")}


def _read_curves(path: Path) -> list[dict[str, float]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return []
    return [{k: float(v) for k, v in row.items() if k and v not in ("", None)} for row in rows]


def with_unique_names(sources: Sequence[Source]) -> list[Source]:
    """Return the sources, those of equal names told apart by their paths."""
    names = [source.name for source in sources]
    return [
        replace(source, name=str(source.path)) if names.count(source.name) > 1 else source
        for source in sources
    ]
