"""Out-of-fold predictions: every case labelled by the run that did not see it, and scored."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from medseg.core.errors import MedsegError
from medseg.core.manifest import Manifest
from medseg.core.runs import (
    JOURNAL_NAME,
    RunFiles,
    ScoreFiles,
    atomic_text,
    read_json_lines,
    write_json,
)
from medseg.data.convert import save_manifest
from medseg.evaluation.evaluate import SOME_FAILED, evaluate
from medseg.evaluation.options import EvaluateOptions

log = logging.getLogger("medseg")


def collect(
    manifest: Manifest, folds: Mapping[int, RunFiles], missing: Mapping[int, str], output: Path
) -> int:
    """Gather the predictions of a cross-validation in one folder, and score all cases together.

    Writes `predictions/`, manifest.json of the folds that were asked for, scores.csv, cases.csv and
    summary.json, which names the missing folds and their cases.

    Args:
        manifest: The data set.
        folds: Run that was validated on each fold, never trained on it.
        missing: Why there is no run of a fold that was asked for.
        output: The folder.

    Returns:
        The status of `medseg evaluate`, and 3 if a fold is missing.

    Raises:
        MedsegError: If a run trained on a case of its own fold.
    """
    count = _gather(folds, output)
    asked = sorted({*folds, *missing})
    part = replace(manifest, training=manifest.in_folds(asked), test=())
    save_manifest(part, output / "manifest.json")
    files = RunFiles(output)
    options = EvaluateOptions(
        predictions=files.predictions,
        manifest=output / "manifest.json",
        root=manifest.root,
        output=files.scores,
        workers=1,
    )
    status = evaluate(options)
    summary = ScoreFiles(files.scores).summary
    content = json.loads(summary.read_text(encoding="utf-8"))
    words = {str(fold): reason for fold, reason in missing.items()}
    write_json(summary, {**content, "folds": sorted(folds), "missing_folds": words})
    log.info("out of fold, %d cases of %d: %s", count, len(part.training), output)
    return SOME_FAILED if missing else status


def _gather(folds: Mapping[int, RunFiles], output: Path) -> int:
    """Put the label maps of all folds in one folder, whole or not at all; return their number."""
    output.mkdir(parents=True, exist_ok=True)
    folder = RunFiles(output).predictions
    with tempfile.TemporaryDirectory(dir=output, prefix=".predictions-") as place:
        fresh = Path(place) / folder.name
        fresh.mkdir()
        lines = [line for files in folds.values() for line in _taken(files, fresh)]
        with atomic_text(fresh / JOURNAL_NAME) as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        if folder.exists():
            folder.rename(Path(place) / "before")
        fresh.rename(folder)
    return len(lines)


def _taken(files: RunFiles, folder: Path) -> list[dict[str, object]]:
    """Link a run's label maps into a folder; return their records."""
    newest = {str(row.get("case_id")): row for row in read_json_lines(
        files.predictions / JOURNAL_NAME
    )}  # fmt: skip
    for case_id, record in newest.items():
        if record.get("role") == "training":
            raise MedsegError(
                f"{files.run_dir} was trained on {case_id!r}, a case of its own fold."
            )
        source = files.predictions / str(record.get("output", ""))
        if record.get("status") != "ok" or not source.is_file():
            continue
        target = folder / str(record["output"])
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, target)
    return list(newest.values())
