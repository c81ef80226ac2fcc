"""Folder inference: every case labelled or recorded as failed; one bad case stops nothing."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from medseg.core.errors import MedsegError, OptionError, VolumeError
from medseg.core.runs import JOURNAL_NAME, RunFiles, read_json_lines, strict_json
from medseg.data.transforms import Reading
from medseg.engine.progress import printable, track
from medseg.inference.inputs import Job, list_jobs
from medseg.inference.options import PredictOptions
from medseg.inference.predictor import Prediction, Predictor
from medseg.io import volume_files, write_label_map
from medseg.io.dicom_seg import check_highdicom, write_dicom_seg

SOME_FAILED = 3

log = logging.getLogger("medseg")


def predict(options: PredictOptions) -> int:
    """Label every case of `options.input`.

    Returns:
        0, or 3 if some cases failed; each is named on screen and in predictions.jsonl.

    Raises:
        OptionError: If there is nothing to do, or the output cannot be written.
        CheckpointError: If the run's checkpoint cannot be read.
    """
    if sys.platform == "win32":
        raise OptionError(
            "predict does not run on Windows: it relies on atomic renames. Use WSL or Linux."
        )
    checkpoint = RunFiles(options.run).checkpoint(options.checkpoint)
    predictor = Predictor.from_run(options.run, options.checkpoint, options.overlap, options.device)
    jobs = list_jobs(
        options.input,
        predictor.channels,
        options.root,
        options.fold,
        options.output,
        options.format,
    )
    writer = _writer(options, predictor)
    reading = Reading(options.on_conflict, options.series_uid)
    _make_writable(options.output)
    journal = Journal(options.output / JOURNAL_NAME)
    about = {
        "run": str(options.run),
        "checkpoint": options.checkpoint,
        "checkpoint_sha256": _sha256(checkpoint),
        "overlap": predictor.window.overlap,
        "on_conflict": options.on_conflict,
        "series_uid": options.series_uid,
    }
    failed = []
    for job in track(jobs, "predicting", len(jobs)):
        if not options.overwrite and journal.is_done(job, options.output, about):
            continue
        record = _label(predictor, job, reading, writer, options.output / job.output)
        journal.add({**_description(job, predictor), **about, **record})
        if record["status"] == "failed":
            failed.append(job)
            log.warning("%s failed: %s", printable(job.case_id), printable(record["message"]))
    log.info("%d of %d cases labelled in %s", len(jobs) - len(failed), len(jobs), options.output)
    return SOME_FAILED if failed else 0


Writer = Callable[[Path, Prediction, Job], None]


def _writer(options: PredictOptions, predictor: Predictor) -> Writer:
    """Return what writes the label map of a case.

    Raises:
        OptionError: If DICOM-SEG is wanted and highdicom is not installed.
    """
    if options.format != "dicom_seg":
        return lambda path, result, job: write_label_map(
            path, result.label, result.grid, result.label.dtype, like=job.images[0]
        )
    check_highdicom()
    log.warning("DICOM-SEG copies the name and the study of each patient into the label maps")
    names, values = list(predictor.description.task["labels"]), predictor.label_values
    return lambda path, result, job: write_dicom_seg(
        path, np.searchsorted(values, result.label), job.images[0], names, options.series_uid
    )


def _label(
    predictor: Predictor, job: Job, reading: Reading, writer: Writer, target: Path
) -> dict[str, Any]:
    """Label and write one case; return the outcome."""
    if job.problem:
        return {"status": "failed", "message": job.problem, "seconds": 0.0}
    started = time.monotonic()
    try:
        result = predictor.predict(job.images, reading)
        writer(target, result, job)
    except MedsegError as error:
        outcome: dict[str, Any] = {"status": "failed", "message": str(error)}
    except Exception as error:  # noqa: BLE001 - one case must not stop the others
        message = f"{type(error).__name__}: {error}"
        outcome = {"status": "failed", "message": message, "traceback": traceback.format_exc()}
    else:
        outcome = {
            "status": "ok",
            "message": "",
            "warnings": list(result.warnings),
            "output_sha256": _sha256(target),
        }
    return {**outcome, "seconds": round(time.monotonic() - started, 3)}


def _description(job: Job, predictor: Predictor) -> dict[str, Any]:
    return {
        "case_id": job.case_id,
        "image": [str(path.absolute()) for path in job.images],
        "image_state": _state(job),
        "reference": str(job.reference.absolute()) if job.reference else None,
        "output": job.output,
        "role": predictor.role(job.case_id),
        "norm": predictor.description.norm,
    }


class Journal:
    """predictions.jsonl: one line per case, appended and synced; the newest line counts.

    Args:
        path: The file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # A line break if the last writer was killed within a line.
        self._torn = "\n" if path.is_file() and path.read_bytes()[-1:] not in (b"", b"\n") else ""
        self._last = {
            record["output"]: record
            for record in read_json_lines(path)
            if {"case_id", "status", "output"} <= record.keys()
        }

    def add(self, record: dict[str, Any]) -> None:
        """Append one line and bring it to the disk."""
        line = json.dumps(strict_json(record), ensure_ascii=False, allow_nan=False)
        # A file name that is not UTF-8 is written with JSON's own escapes.
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(self._torn + line + "\n")
            self._torn = ""
            file.flush()
            os.fsync(file.fileno())
        self._last[record["output"]] = record

    def is_done(self, job: Job, output: Path, about: dict[str, Any]) -> bool:
        """Return whether the same weights labelled the same files, and the result is as written."""
        last = self._last.get(job.output)
        if last is None or last["status"] != "ok":
            return False
        decisive = ("checkpoint_sha256", "overlap", "on_conflict", "series_uid")
        same = all(last.get(key) == about[key] for key in decisive)
        target = output / job.output
        if not same or last.get("image_state") != _state(job) or not target.is_file():
            return False
        return bool(last.get("output_sha256") == _sha256(target))


def _state(job: Job) -> list[list[int]]:
    """Return size and time of each input file; what a changed input changes."""
    there = [part for path in job.images for part in _parts(path) if os.path.exists(part)]  # noqa: PTH110
    return [[path.stat().st_size, path.stat().st_mtime_ns] for path in there]


def _parts(path: Path) -> tuple[Path, ...]:
    try:
        return volume_files(path)
    except (VolumeError, OSError):
        return (path,)  # what is wrong with it is said when it is read


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_writable(folder: Path) -> None:
    """Make the output folder, and find out now whether it can be written to."""
    probe = folder / f".medseg-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OptionError(f"--output {folder} cannot be written to ({error.strerror}).") from error
