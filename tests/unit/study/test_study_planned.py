"""What is found out before any run of a study starts."""

import logging

import pytest
import yaml

from medseg.core.errors import OptionError
from medseg.core.runs import write_json
from medseg.study.grid import read_study
from medseg.study.planned import plan_runs


def cases(folds):
    return [
        {"image": f"i{f}.nii", "label": f"l{f}.nii", "fold": f, "case_id": f"c{f}"}
        for f in range(folds)
    ]


@pytest.fixture
def study(tmp_path):
    """Return a function that writes a study of a set of three folds and returns its runs."""
    labels = {"background": 0, "a": 1}
    content = {"channel_names": {"0": "T1w"}, "labels": labels, "training": cases(3)}
    write_json(tmp_path / "set.json", content)
    fit = {
        "model": {"network": {"channels": [8, 16]}},
        "data": {"manifest": str(tmp_path / "set.json"), "patch_size": [16, 16, 16]},
    }
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(fit))

    def write(grid, **more):
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({"config": ["fit.yaml"], "grid": grid, **more}))
        return read_study(path)

    return write


def test_all_runs_that_cannot_be_built_are_refused_at_once(study, tmp_path):
    runs = study({"model.norm_groups": [8, 3, 5]}, fixed={"norm": "group"})
    with pytest.raises(OptionError) as told:
        plan_runs(runs, tmp_path / "out")
    assert "2 problems" in str(told.value)
    assert "model.norm_groups=3: norm 'group' needs" in str(told.value)
    assert "--skip_impossible" in str(told.value)


def test_they_are_left_out_by_name_where_that_is_asked(study, tmp_path, caplog):
    runs = study({"model.norm_groups": [8, 3]}, fixed={"norm": "group"})
    with caplog.at_level(logging.WARNING, logger="medseg"):
        planned = plan_runs(runs, tmp_path / "out", skip_impossible=True)
    assert [entry.run.name for entry in planned.runs] == ["model.norm_groups=8"]
    assert "left out model.norm_groups=3" in caplog.text


@pytest.mark.parametrize("skip", [False, True])
def test_where_no_run_is_left_nobody_is_told_to_leave_runs_out(study, tmp_path, skip):
    runs = study({"model.norm_groups": [5, 3]}, fixed={"norm": "group"})
    with pytest.raises(OptionError, match=r"2 problems(.|\n)*No run is left") as told:
        plan_runs(runs, tmp_path / "out", skip_impossible=skip)
    assert "--skip_impossible" not in str(told.value)


@pytest.mark.parametrize("skip", [False, True])
def test_a_norm_that_is_misspelt_is_no_run_to_be_left_out(skip, study, tmp_path):
    runs = study({"norm": ["batch", "instanse"], "seed": [0, 1]})
    with pytest.raises(OptionError, match=r"got 'instanse'\. Did you mean 'instance'\?$") as told:
        plan_runs(runs, tmp_path / "out", skip_impossible=skip)
    assert "exclude" not in str(told.value)


def test_a_norm_of_one_voxel_is_found_before_anything_starts(study, tmp_path):
    channels = {"model.network.channels": [[8] * 5]}
    runs = study({"norm": ["instance"], **channels}, fixed={"data.patch_size": [16, 16, 16]})
    with pytest.raises(OptionError, match=r"norm=instance.*norm 'instance'"):
        plan_runs(runs, tmp_path / "out")


def test_a_fold_that_is_not_the_sets_is_found_before_anything_starts(study, tmp_path):
    with pytest.raises(OptionError, match=r"fold=7: .*no fold 7"):
        plan_runs(study({"fold": [0, 7]}), tmp_path / "out")
