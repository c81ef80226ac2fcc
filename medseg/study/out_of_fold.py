"""Out-of-fold predictions: every case labelled by the run that did not see it, and scored."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from medseg.core.errors import MedsegError
from medseg.core.manifest import Manifest
from medseg.core.runs import JOURNAL_NAME, RunFiles, atomic_text, read_json_lines
from medseg.data.convert import save_manifest
from medseg.evaluation.evaluate import evaluate
from medseg.evaluation.options import EvaluateOptions

log = logging.getLogger("medseg")


def collect(manifest: Manifest, folds: Mapping[int, RunFiles], output: Path) -> None:
    """Gather the predictions of a cross-validation in one folder, and score all cases together.

    Writes `predictions/`, manifest.json of the folds that take part, scores.csv, cases.csv and
    summary.json.

    Args:
        manifest: The data set.
        folds: Run that was validated on each fold, never trained on it.
        output: The folder.

    Raises:
        MedsegError: If a run trained on a case of its own fold.
    """
    folder = RunFiles(output).predictions
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lines = [line for files in folds.values() for line in _taken(files, folder)]
    with atomic_text(folder / JOURNAL_NAME) as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    part = replace(manifest, training=manifest.in_folds(sorted(folds)), test=())
    save_manifest(part, output / "manifest.json")
    evaluate(
        EvaluateOptions(
            predictions=folder,
            manifest=output / "manifest.json",
            root=manifest.root,
            output=RunFiles(output).scores,
            workers=1,
        )
    )
    log.info("out of fold, %d cases: %s", len(lines), output)


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
