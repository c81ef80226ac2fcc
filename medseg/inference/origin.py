"""What a run directory knows of its training and scores, for those who get only the weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from medseg.core.runs import JOURNAL_NAME, RunFiles, ScoreFiles, read_json_lines, strict_json

_OF_TRAINING = ("name", "data_set", "data_digest", "fold", "train_folds", "train_cases",
                "val_cases", "epochs", "steps", "seconds", "best_val_dice", "precision", "seed",
                "finished", "versions", "git_commit", "recalibrated")  # fmt: skip
"""What of fit.json goes along; its paths stay at home."""


def record_of(files: RunFiles, which: str, checkpoint: Path) -> dict[str, Any]:
    """Return what is known of the training and its scores."""
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    fit = _json(files.fit)
    training = {key: fit[key] for key in _OF_TRAINING if key in fit} if fit else None
    source = {"checkpoint": which if which in ("best", "last") else Path(which).name}
    return {
        "source": {**source, "sha256": digest},
        "training": training,
        "scores": _scores(files, digest),
    }


def _scores(files: RunFiles, digest: str) -> dict[str, Any] | None:
    """Return Dice of each class from the run's summary.json, and by which weights it was made."""
    summary = _json(ScoreFiles.at(files.scores).summary)
    try:
        columns = ("mean", "ci_low", "ci_high", "n", "n_missed", "n_invented")
        classes = {
            name: {column: row["metrics"]["dice"][column] for column in columns}
            for name, row in summary["classes"].items()
        }
        cases = summary["cases"]["in_means"]
    except (LookupError, TypeError, AttributeError):
        return None
    made_by = {
        record.get("checkpoint_sha256")
        for record in read_json_lines(files.predictions / JOURNAL_NAME)
    }
    note = "by weights of this run that were not recorded"
    if made_by - {None}:
        note = "by these weights" if made_by == {digest} else "by other weights of this run"
    if summary.get("chosen_on_scored_cases"):
        note += "; the checkpoint was chosen on these cases, which flatters it"
    return {"note": note, "cases": cases, "classes": classes}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return strict_json(content) if isinstance(content, dict) else {}
