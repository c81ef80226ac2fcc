"""Roles of folds and seeds in a study's YAML."""

import pytest
import yaml

from medseg.core.errors import OptionError
from medseg.core.runs import RunFiles
from medseg.study.grid import read_study
from medseg.study.planned import Planned

ROLES = {"train": [3, 4], "choose": [2], "report": [1]}


def runs(folder, **content):
    (folder / "fit.yaml").write_text("data: {}\n")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"config": ["fit.yaml"], **content}, sort_keys=False))
    return read_study(path)


def test_folds_train_choose_and_report_by_their_roles(tmp_path):
    (run,) = runs(tmp_path, grid={"norm": ["batch"]}, **ROLES)
    assert "--data.train_folds [3, 4] --data.fold 2" in " ".join(run.arguments)
    data = {"manifest": "x.json", "root": "r", "fold": 2}
    entry = Planned(run, RunFiles(tmp_path / "run"), {"data": data})
    fit, predict, score = list(entry.steps())
    assert "--fold" not in fit
    assert " ".join(predict).count("--fold 1") == 1
    assert " ".join(score).count("--fold 1") == 1


def test_another_fold_to_report_on_is_another_study(tmp_path):
    (one,) = runs(tmp_path, grid={"norm": ["batch"]}, **ROLES)
    (other,) = runs(tmp_path, grid={"norm": ["batch"]}, **{**ROLES, "report": [0]})
    assert one.digest != other.digest


def test_seeds_are_an_axis_of_the_grid(tmp_path):
    short = runs(tmp_path, grid={"norm": ["batch", "group"]}, seeds=[0, 1, 2])
    named = runs(tmp_path, grid={"norm": ["batch", "group"], "seed": [0, 1, 2]})
    assert [run.name for run in short] == [run.name for run in named]
    assert [run.digest for run in short] == [run.digest for run in named]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"choose": [3]}, "fold 3 has two roles"),
        ({"report": [2]}, "fold 2 has two roles"),
        ({"report": [0, 1]}, "report: one fold is needed"),
        ({"train": []}, "train: a list of folds is needed"),
        ({"train": 3}, "train: a list of folds is needed"),
        ({"choose": None}, "choose: a list of folds"),
        ({"fixed": {"fold": 0}}, "data.fold is set by the roles"),
        ({"grid": {"seed": [0]}, "seeds": [1]}, "seed_everything is named twice"),
        ({"grid": {"seed_everything": [0]}, "seeds": [1]}, "seed_everything is named twice"),
        ({"seeds": 3}, "a list of values is needed"),
    ],
)
def test_roles_and_seeds_that_mean_nothing_are_refused(changes, said, tmp_path):
    with pytest.raises(OptionError, match=said):
        runs(tmp_path, **{"grid": {"norm": ["batch"]}, **ROLES, **changes})


def test_a_role_alone_is_refused(tmp_path):
    with pytest.raises(OptionError, match="train without choose, report"):
        runs(tmp_path, grid={"norm": ["batch"]}, train=[1])
