"""Folds that are not here are not trained on; any other file that is missing is named at once."""

import logging

import pytest
import yaml

from medseg.core.errors import ManifestError, OptionError
from medseg.core.runs import write_json
from medseg.study.execute import study as run_study
from medseg.study.grid import read_study
from medseg.study.held_back import require_files
from medseg.study.options import StudyOptions
from medseg.study.planned import plan_runs


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a study of four folds of two cases, some of them held back."""

    def write(grid, present, **fixed):
        cases = [
            {"case_id": f"{fold}{n}", "image": f"i{fold}{n}.nii", "label": f"l{fold}{n}.nii",
             "fold": fold} for fold in range(4) for n in "ab"
        ]  # fmt: skip
        content = {
            "channel_names": {"0": "T1w"},
            "labels": {"background": 0, "a": 1},
            "training": cases,
        }
        write_json(tmp_path / "set.json", content)
        for case in cases:
            if case["fold"] in present:
                (tmp_path / case["image"]).touch()
                (tmp_path / case["label"]).touch()
        data = {"manifest": str(tmp_path / "set.json"), "patch_size": [16, 16, 16]}
        fit = {"model": {"network": {"channels": [8, 16]}}, "data": data}
        (tmp_path / "fit.yaml").write_text(yaml.safe_dump(fit))
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({"config": ["fit.yaml"], "grid": grid, "fixed": fixed}))
        return path

    return write


def planned(path, tmp_path):
    return plan_runs(read_study(path), tmp_path / "out").runs


def planned_for(path, train_folds):
    """Make the study's configuration that of a plan for one fold."""
    fit = path.parent / "fit.yaml"
    content = yaml.safe_load(fit.read_text())
    content["data"]["train_folds"] = train_folds
    fit.write_text(yaml.safe_dump(content))
    return path


def test_a_plan_for_one_fold_is_cross_validated_with_the_other_folds_of_each(written, tmp_path):
    path = planned_for(written({"fold": [1, 2, 3]}, [1, 2, 3]), [2, 3])
    runs = planned(path, tmp_path)
    assert [run.settings["data"]["train_folds"] for run in runs] == [[2, 3], [1, 3], [1, 2]]
    path = planned_for(written({"fold": [0, 1, 2, 3]}, [0, 1, 2, 3]), [2, 3])
    runs = planned(path, tmp_path / "all")
    assert [run.settings["data"]["train_folds"] for run in runs] == [None] * 4
    assert runs[0].run.arguments[-4:-2] == ["--data.train_folds", "null"]


def test_training_folds_that_no_run_validates_on_stay(written, tmp_path):
    path = planned_for(written({"fold": [0, 1]}, [0, 1, 2, 3]), [2, 3])
    runs = planned(path, tmp_path)
    assert [run.settings["data"]["train_folds"] for run in runs] == [[2, 3], [2, 3]]
    path = written({"fold": [1, 2]}, [1, 2, 3], **{"data.train_folds": [2, 3]})
    with pytest.raises(OptionError, match="both validated and trained on"):
        planned(path, tmp_path / "own")


def test_a_fold_without_files_is_left_out_of_training_and_said(written, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="medseg"):
        runs = planned(written({"fold": [1, 2], "seed": [0, 1]}, [1, 2, 3]), tmp_path)
    assert [run.settings["data"]["train_folds"] for run in runs] == [[2, 3], [2, 3], [1, 3], [1, 3]]
    assert [run.run.arguments[-6:-4] for run in runs[:1]] == [["--data.train_folds", "[2, 3]"]]
    assert [record.message for record in caplog.records] == [
        "folds [0] are not trained on: none of their files is there"
    ]
    require_files((run.settings["data"], run.reported) for run in runs)


def test_a_study_that_names_its_folds_keeps_them(written, tmp_path):
    path = written({"fold": [1]}, [1, 2, 3], **{"data.train_folds": [0, 2]})
    (run,) = planned(path, tmp_path)
    assert run.settings["data"]["train_folds"] == [0, 2]
    with pytest.raises(ManifestError, match=r"no such file \(fold 0\)"):
        require_files([(run.settings["data"], run.reported)])


def test_a_whole_set_trains_on_all_other_folds(written, tmp_path):
    (run,) = planned(written({"fold": [1]}, range(4)), tmp_path)
    assert run.settings["data"]["train_folds"] is None
    assert "data.train_folds" not in run.run.fixed


def test_one_missing_file_is_named_before_anything_starts(written, tmp_path):
    path = written({"fold": [1, 2]}, [1, 2, 3])
    (tmp_path / "i3a.nii").unlink()
    for dry_run in (True, False):
        with pytest.raises(ManifestError, match=r"i3a\.nii: no such file \(fold 3\)"):
            run_study(StudyOptions(config=(path,), output=tmp_path / "out", dry_run=dry_run))
    assert not (tmp_path / "out").exists()


def test_a_wrong_root_is_named_as_such(written, tmp_path):
    path = written({"fold": [1]}, [])
    with pytest.raises(ManifestError, match=r"Is --root right"):
        run_study(StudyOptions(config=(path,), output=tmp_path / "out"))


def test_a_reported_fold_that_is_held_back_is_missed(written, tmp_path):
    (run,) = planned(written({"fold": [1]}, [1, 2], **{"data.train_folds": [2]}), tmp_path)
    require_files([(run.settings["data"], 1)])
    with pytest.raises(ManifestError, match=r"fold 3"):
        require_files([(run.settings["data"], 3)])
