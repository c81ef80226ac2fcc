"""Folds of a cross-validation: what is trained on, and what is refused."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from medseg.core.errors import OptionError
from medseg.study.folds import cross_validation


@dataclass
class Case:
    fold: int
    images: tuple[str, ...]


class Listed:
    """Four folds of a case each, some with their file."""

    folds = (0, 1, 2, 3)
    training = tuple(Case(fold, (f"{fold}.nii",)) for fold in folds)

    def __init__(self, root: Path, present) -> None:
        self.root = root
        for fold in present:
            self.file(f"{fold}.nii").touch()

    def file(self, name: str) -> Path:
        return self.root / name


def test_some_folds_of_a_set_train_on_all_the_others(tmp_path):
    runs = cross_validation([], Listed(tmp_path, range(4)), "0,1")
    assert [run.name for run in runs] == ["fold=0", "fold=1"]
    assert all("data.train_folds" not in run.fixed for run in runs)


def test_only_a_fold_without_files_is_left_out_of_training_and_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="medseg"):
        runs = cross_validation([], Listed(tmp_path, [0, 1, 2]), "0,1")
    assert [run.fixed["data.train_folds"] for run in runs] == [[1, 2], [0, 2]]
    assert "folds [3] are not trained on" in caplog.text


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("0,1,x", "'x' is no fold"),
        ("0,0", "fold 0 is named twice"),
        ("0,-1", "'-1' is no fold"),
        ("0,1,7", "fold 7 is not one of the manifest's"),
        ("0,3", "none of the images of fold 3"),
        ("0,", "'' is no fold"),
        ("0", "at least two"),
    ],
)
def test_folds_that_mean_nothing_are_refused(asked, said, tmp_path):
    with pytest.raises(OptionError, match=re.escape(said)):
        cross_validation([], Listed(tmp_path, [0, 1, 2]), asked)
