"""Folds of a cross-validation: which are run, and what is refused."""

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


def test_each_fold_that_is_asked_for_is_a_run(tmp_path):
    runs = cross_validation([], listed(tmp_path, range(4)), "0,1")
    assert [run.name for run in runs] == ["fold=0", "fold=1"]


def test_all_folds_are_those_with_files(tmp_path):
    runs = cross_validation([], listed(tmp_path, [0, 2, 3]), "all")
    assert [run.name for run in runs] == ["fold=0", "fold=2", "fold=3"]


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
