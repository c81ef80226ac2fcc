"""Folds of a cross-validation: what is trained on, and what is refused."""

import logging
import re
from pathlib import Path

import pytest

from medseg.core.errors import OptionError
from medseg.core.manifest import Case, Manifest
from medseg.study.folds import cross_validation


def listed(root: Path, present) -> Manifest:
    """Return four folds of two cases each; of those present, one image is there."""
    cases = tuple(
        Case(f"{f}{n}", (f"{f}{n}.nii",), f"l{f}{n}.nii", f) for f in range(4) for n in "ab"
    )
    for fold in present:
        (root / f"{fold}b.nii").touch()
    return Manifest(root / "x.json", root, "x", ("T1w",), {"background": 0, "a": 1}, cases)


def test_some_folds_of_a_set_train_on_all_the_others(tmp_path):
    runs = cross_validation([], listed(tmp_path, range(4)), "0,1")
    assert [run.name for run in runs] == ["fold=0", "fold=1"]
    assert all("data.train_folds" not in run.fixed for run in runs)


def test_only_a_fold_without_files_is_left_out_of_training_and_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="medseg"):
        runs = cross_validation([], listed(tmp_path, [0, 1, 2]), "0,1")
    assert [run.fixed["data.train_folds"] for run in runs] == [[1, 2], [0, 2]]
    assert "folds [3] are not trained on" in caplog.text


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("0,1,x", "'x' is no fold"),
        ("0,0", "fold 0 is named twice"),
        ("0,-1", "'-1' is no fold"),
        ("0,1,7", "fold 7 is not one of the manifest's"),
        ("0,3", "none of the files of fold 3"),
        ("0,", "'' is no fold"),
        ("0", "at least two"),
    ],
)
def test_folds_that_mean_nothing_are_refused(asked, said, tmp_path):
    with pytest.raises(OptionError, match=re.escape(said)):
        cross_validation([], listed(tmp_path, [0, 1, 2]), asked)
