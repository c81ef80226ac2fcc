"""Scored cases kept beside the scores, so that an evaluation goes on where it was interrupted.

A case is taken over if its key is the same: a hash of both files' contents, of all that was asked
and of the versions that scored it. What is damaged, changed or unknown is scored again.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from medseg import __version__
from medseg.core.errors import OptionError
from medseg.core.lesions import LesionCounts
from medseg.core.metrics import METRIC_VERSION, ClassScore
from medseg.core.runs import atomic_text, read_json_lines
from medseg.evaluation.scoring import CaseScores, ScoringJob, score_case
from medseg.io import volume_files

_CHUNK = 1 << 20


@dataclass(frozen=True)
class ResumableJob:
    """A case to score, unless it was.

    Attributes:
        job: The case.
        record: What a journal says of it, or nothing.
    """

    job: ScoringJob
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """A scored case.

    Attributes:
        key: Of its files and of what was asked.
        scores: The scores.
        recalled: Whether they were there before.
    """

    key: str
    scores: CaseScores
    recalled: bool = False


def score_or_recall(resumable: ResumableJob) -> Outcome:
    """Score one case, or take its scores over if nothing has changed.

    Raises:
        MedsegError: As `score_case`.
    """
    job, record = resumable.job, resumable.record
    key = case_key(job)
    if record.get("key") == key:
        with suppress(LookupError, TypeError, ValueError, AttributeError):  # damaged: score again
            return Outcome(key, _from_record(job, record), recalled=True)
    return Outcome(key, score_case(job))


def case_key(job: ScoringJob) -> str:
    """Return a hash of all that the scores of a case follow from."""
    asked = [asdict(job.wanted), job.ignore_value, job.grid_tolerance, METRIC_VERSION, __version__]
    digest = blake2b(json.dumps(asked).encode(), digest_size=16)
    for side in (job.pair.prediction, job.pair.reference):
        for path in volume_files(side):
            digest.update(f"{path.name} {path.stat().st_size}\n".encode(errors="surrogateescape"))
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
    return digest.hexdigest()


class ScoreJournal:
    """The scored cases of one score file, one JSON line each; one writer for each file.

    Args:
        scores: The score file; the journals lie in the folder `.medseg/<its name>` beside it.
    """

    def __init__(self, scores: Path) -> None:
        self._folder = scores.parent / ".medseg" / scores.name
        host = re.sub(r"[^\w.-]", "_", platform.node())
        self._path = self._folder / f"journal-{host}-{os.getpid()}.jsonl"
        self._earlier = sorted(self._folder.glob("journal-*.jsonl"))

    def records(self) -> dict[str, Mapping[str, Any]]:
        """Return the newest record of each case."""
        oldest_first = sorted(self._earlier, key=lambda path: path.stat().st_mtime_ns)
        rows = (row for path in oldest_first for row in read_json_lines(path))
        return {str(row["case_id"]): row for row in rows if "case_id" in row}

    def add(self, outcome: Outcome) -> None:
        """Note one case, at once.

        Raises:
            OptionError: If it cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(outcome))
        except OSError as error:
            raise OptionError(f"{self._path} cannot be written ({error.strerror}).") from error

    def finish(self, outcomes: Iterable[Outcome]) -> None:
        """Keep these cases alone, in one file.

        Raises:
            OptionError: If it cannot be written.
        """
        with atomic_text(self._path) as file:
            file.writelines(map(_line, outcomes))
        for path in self._earlier:
            if path != self._path:
                path.unlink(missing_ok=True)


def _line(outcome: Outcome) -> str:
    scores = outcome.scores
    record = {
        "case_id": scores.pair.case_id,
        "key": outcome.key,
        "scores": {name: _score_record(score) for name, score in scores.scores.items()},
        "confusion": [[*values, count] for values, count in scores.confusion.items()],
        "n_voxels": scores.n_voxels,
        "spacing": scores.spacing,
        "diagonal_mm": scores.diagonal_mm,
        "warnings": scores.warnings,
    }
    # Begun with a line break: the line before may be torn.
    return f"\n{json.dumps(record, allow_nan=False)}\n"


def _score_record(score: ClassScore) -> dict[str, Any]:
    values = {name: repr(float(value)) for name, value in score.values.items()}
    return {**asdict(score), "values": values}  # as text, for nan and inf are no JSON


def _from_record(job: ScoringJob, record: Mapping[str, Any]) -> CaseScores:
    i, j, k = map(float, record["spacing"])
    return CaseScores(
        pair=job.pair,
        scores={name: _score(row) for name, row in record["scores"].items()},
        confusion={(ref, pred): count for ref, pred, count in record["confusion"]},
        n_voxels=int(record["n_voxels"]),
        spacing=(i, j, k),
        diagonal_mm=float(record["diagonal_mm"]),
        warnings=tuple(record["warnings"]),
    )


def _score(row: Mapping[str, Any]) -> ClassScore:
    values = {name: float(text) for name, text in row["values"].items()}
    lesions = LesionCounts(**row["lesions"]) if row["lesions"] else None
    return ClassScore(**{**row, "values": values, "lesions": lesions})
