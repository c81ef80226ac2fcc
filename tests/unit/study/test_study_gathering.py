"""A cross-validation as one: pooled scores, missing folds by name, and two shares at once."""

import csv
import json
import os
import signal

import nibabel as nib
import numpy as np
import pytest

from medseg.core.manifest import load_manifest
from medseg.core.runs import RunFiles, write_json
from medseg.evaluation.evaluate import evaluate
from medseg.evaluation.options import EvaluateOptions
from medseg.study import execute
from medseg.study.gathering import finish
from medseg.study.grid import Run
from medseg.study.options import StudyOptions
from medseg.study.planned import Plan, Planned

FOLDS, CASES = 3, 2


def write_label(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.zeros((8, 8, 8), np.uint8)
    data[:size, :4, :4] = 1
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)


@pytest.fixture
def manifest(tmp_path):
    cases = [(fold, f"c{fold}{n}") for fold in range(FOLDS) for n in range(CASES)]
    for _, case in cases:
        write_label(tmp_path / "labels" / f"{case}.nii.gz", 4)
    content = {
        "channel_names": {"0": "T1w"},
        "labels": {"background": 0, "a": 1},
        "training": [
            {"image": f"images/{c}.nii.gz", "label": f"labels/{c}.nii.gz", "fold": f}
            for f, c in cases
        ],
    }
    write_json(tmp_path / "set.json", content)
    return load_manifest(tmp_path / "set.json")


def scored(manifest, entry, size):
    """Write what a run leaves: label maps of its fold, all too small by the same share."""
    files = entry.files
    ids = [case.case_id for case in manifest.in_folds([entry.fold])]
    for case in ids:
        write_label(files.predictions / f"{case}.nii.gz", size)
    rows = [
        {"case_id": c, "status": "ok", "output": f"{c}.nii.gz", "role": "validation"} for c in ids
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (files.predictions / "predictions.jsonl").write_text(lines)
    write_json(files.fit, {"interrupted": False, "norm": "batch", "fold": entry.fold})
    options = EvaluateOptions(
        predictions=files.predictions,
        manifest=manifest.path,
        fold=entry.fold,
        output=files.scores,
        workers=1,
    )
    evaluate(options)


@pytest.fixture
def entries(manifest, tmp_path):
    """Three runs of a cross-validation, whose Dice is 1, 6/7 and 2/3; the last is not scored."""
    runs = [Run({"data.fold": fold}, ()) for fold in range(FOLDS)]
    planned = [
        Planned(
            run,
            RunFiles(tmp_path / "out" / "runs" / run.name),
            {"data": {"manifest": str(manifest.path), "root": None, "fold": fold}},
        )
        for fold, run in enumerate(runs)
    ]
    for entry, size in zip(planned[:2], (4, 3), strict=True):
        scored(manifest, entry, size)
    return planned


def summary(tmp_path):
    return json.loads((tmp_path / "out" / "oof" / "summary.json").read_text())


def test_the_page_leads_with_the_pooled_score_and_folds_are_no_rivals(manifest, entries, tmp_path):
    scored(manifest, entries[2], 2)
    assert finish(Plan(entries, []), tmp_path / "out") == 0
    found = summary(tmp_path)
    pooled = (1 + 6 / 7 + 2 / 3) / 3
    assert found["foreground"]["dice"]["mean"] == pytest.approx(pooled)
    assert (found["folds"], found["missing_folds"]) == ([0, 1, 2], {})
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.index(f"{pooled:.3f} [") < page.index("<h2>Folds</h2>")
    assert "1 run: all 3 folds, out of fold" in page
    assert "Verdict, case by case" not in page


def test_a_missing_fold_is_named_on_the_page_and_in_the_scores(entries, tmp_path):
    entries[2].files.run_dir.mkdir(parents=True)
    entries[2].note(status="failed", command="fit", exit_code=2, last_line="loss is no number")
    assert finish(Plan(entries, []), tmp_path / "out") == 3
    found = summary(tmp_path)
    assert found["missing_folds"] == {"2": "fit ended with status 2"}
    assert sorted(found["cases"]["failed"]) == ["c20", "c21"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "2 of 3 folds, out of fold" in page
    assert "no scores of fold 2 (fit ended with status 2)" in page
    assert "loss is no number" in page


def test_gathering_again_replaces_what_another_share_gathered(manifest, entries, tmp_path):
    finish(Plan(entries, []), tmp_path / "out")
    scored(manifest, entries[2], 2)
    assert finish(Plan(entries, []), tmp_path / "out") == 0
    place = tmp_path / "out" / "oof"
    assert len(list((place / "predictions").glob("*.nii.gz"))) == FOLDS * CASES
    assert not list(place.glob(".predictions-*"))


def test_sigterm_while_gathering_ends_with_143_and_the_next_start_completes(
    entries, tmp_path, monkeypatch
):
    options = StudyOptions(config=(), output=tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(execute, "finish", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as end:
            execute._finish(Plan(entries, []), options)
    assert end.value.code == 143
    assert execute._finish(Plan(entries, []), options) == 3
    assert (tmp_path / "out" / "report.html").is_file()


def test_the_summary_lists_the_score_for_choosing_and_the_scores_reported(manifest, tmp_path):
    run = Run({"model.norm": "batch"}, (), {}, reported=1)
    data = {"manifest": str(manifest.path), "root": None, "fold": 1}
    place = RunFiles(tmp_path / "out" / "runs" / run.name)
    scored(manifest, Planned(run, place, {"data": data}), 3)
    place.curves.write_text("epoch,val/dice\n0,0.5\n1,0.75\n2,\n")
    entry = Planned(run, place, {"data": {**data, "fold": 0}})
    assert finish(Plan([entry], []), tmp_path / "out") == 0
    with (tmp_path / "out" / "cells.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["choosing_fold"], row["choosing_dice"]) == ("0", "0.75")
    assert row["reporting_fold"] == "1"
    assert float(row["reporting_dice"]) == pytest.approx(6 / 7)
    assert "Choosing and reporting" in (tmp_path / "out" / "report.html").read_text()


def many(manifest, tmp_path, count, **cell):
    """Return the plan of one norm, its runs scored on one fold."""
    place = tmp_path / "out" / "runs"
    runs = [Run({**cell, "seed_everything": seed}, ()) for seed in range(count)]
    data = {"manifest": str(manifest.path), "root": None, "fold": 0, "train_folds": None,
            "patch_size": [8, 8, 8], "batch_size": 2}  # fmt: skip
    network = {"channels": [8], "dropout": 0.0, "init_scale": 1.0}
    model = {"norm": "instance", "network": network, "optimization": {"learning_rate": 0.01}}
    plan = [
        Planned(run, RunFiles(place / run.name),
                {"data": data, "model": model, "trainer": {}, "seed_everything": seed})
        for seed, run in enumerate(runs)
    ]  # fmt: skip
    for entry in plan:
        scored(manifest, entry, 3)
        entry.files.curves.write_text("epoch,step,samples,seconds,val/dice\n0,1,2,3,0.5\n")
        (entry.files.checkpoints).mkdir()
        (entry.files.checkpoints / "last.ckpt").touch()
    return Plan(plan, [])


def test_a_grid_that_names_a_single_norm_has_its_page(manifest, tmp_path):
    assert finish(many(manifest, tmp_path, 2, **{"model.norm": "instance"}), tmp_path / "out") == 0
    page = (tmp_path / "out" / "study.html").read_text()
    assert "only instance can be compared" in page
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_study_of_something_else_has_no_page_of_norms(manifest, tmp_path):
    plan = many(manifest, tmp_path, 2, **{"model.ema_decay": 0.9})
    finish(plan, tmp_path / "out")
    assert not (tmp_path / "out" / "study.html").exists()


def test_many_runs_of_one_norm_are_reported_as_far_as_a_page_goes(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr("medseg.study.gathering.MOST_REPORTED", 2)
    finish(many(manifest, tmp_path, 3), tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The first 2 of 3 runs are shown" in page
