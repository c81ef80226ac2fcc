"""Small run directories as training, prediction and evaluation leave them."""

import json
import math

import nibabel as nib
import numpy as np
import pytest

from medseg.core.runs import RunFiles, Score, write_json, write_scores
from medseg.report.options import ReportOptions
from medseg.report.pages import report
from medseg.report.sources import read_source

CLASSES = ("liver", "lesion")
AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])


def score_rows(cases):
    """Yield scores of both classes; Dice 0 is a missed structure, NaN an absent one."""
    for case_id, values in cases.items():
        for name, dice in zip(CLASSES, values, strict=True):
            lost, absent = dice == 0, math.isnan(dice)
            rows = {
                "dice": dice,
                "hd95_mm": math.inf if lost else math.nan if absent else 3.0,
                "assd_mm": math.inf if lost else math.nan if absent else 1.0,
                "nsd": dice,
                "volume_ref_ml": 0.0 if absent else 2.0,
                "volume_pred_ml": 0.0 if lost or absent else 1.5,
                "volume_difference_ml": -2.0 if lost else 0.0 if absent else -0.5,
            }
            yield from (Score(case_id, "", name, metric, value) for metric, value in rows.items())


def _save(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, AFFINE), path)


def _add_volumes(run, number):
    """Write image, reference and prediction of a case; the lesion (2) is not predicted."""
    image = np.zeros((12, 10, 8), np.int16)
    image[2:10, 2:8, 2:6] = 100
    reference = np.zeros(image.shape, np.uint8)
    reference[2:8, 2:8, 2:6] = 1
    prediction = reference.copy()
    prediction[2:4] = 0
    reference[9:11, 7:9, 6:7] = 2
    paths = [run.run_dir / kind / f"{number}.nii.gz" for kind in ("image", "reference")]
    _save(paths[0], image)
    _save(paths[1], reference)
    _save(run.predictions / f"{number}.nii.gz", prediction)
    return {
        "image": [str(paths[0])],
        "reference": str(paths[1]),
        "output": f"{number}.nii.gz",
    }


@pytest.fixture
def cases():
    """Return Dice of liver and lesion in three cases, one lesion missed."""
    return {"a": (0.9, 0.5), "b": (0.7, 0.7), "c": (0.8, 0.0)}


@pytest.fixture
def make_run(tmp_path, cases):
    """Return a function that writes a run directory and returns it."""

    def make(name="batch", cases=cases, trained=(), volumes=False, fit=(), summary=(), within=""):
        run = RunFiles(tmp_path / within / name)
        run.predictions.mkdir(parents=True)
        write_scores(run.scores, score_rows(cases))
        settings = {"name": name, "norm": name, "data_set": "livers", "seconds": 61.2, "seed": 0,
                    "steps": 500, "parameters": 1234567, "peak_memory_mib": 800.0}  # fmt: skip
        write_json(run.fit, settings | dict(fit))
        write_json(
            run.run_dir / "summary.json",
            {
                "metric_version": "medseg voxel-border 1",
                "tolerance_mm": 2.0,
                "classes": {"liver": {"value": 1}, "lesion": {"value": 2}},
            }
            | dict(summary),
        )
        run.config.write_text("seed: 0\n")
        run.curves.write_text(
            "epoch,step,seconds,val/dice,train/loss\n0,250,30,,1.2\n1,500,61,0.8,0.7\n"
        )
        lines = [
            {"case_id": case_id, "status": "ok", "checkpoint": "last",
             "role": "training" if case_id in trained else "validation",
             **(_add_volumes(run, number) if volumes else {})}
            for number, case_id in enumerate(cases)
        ]  # fmt: skip
        text = "\n".join(map(json.dumps, lines)) + "\n{torn"
        (run.predictions / "predictions.jsonl").write_text(text)
        return run.run_dir

    return make


@pytest.fixture
def make_source(make_run):
    """Return a function that writes a run directory and reads it."""
    return lambda *arguments, **options: read_source(make_run(*arguments, **options))


@pytest.fixture
def write_score_file(tmp_path, cases):
    """Return a function that writes a score file alone."""

    def write(name, metrics=None, cases=cases):
        rows = [s for s in score_rows(cases) if metrics is None or s.metric in metrics]
        write_scores(tmp_path / name, rows)
        return tmp_path / name

    return write


@pytest.fixture
def page_of(tmp_path):
    """Return a function that writes the report of runs and returns its HTML."""

    def write(*runs, **options):
        output = tmp_path / "report.html"
        assert report(ReportOptions(tuple(runs), output, **options)) == 0
        return output.read_text(encoding="utf-8")

    return write
