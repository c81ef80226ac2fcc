"""The grid of a study: names, combinations, what is left out and what is refused."""

import pytest
import yaml

from medseg.core.errors import OptionError
from medseg.study.grid import is_study, one_variant, read_study

STUDY = {
    "name": "norms",
    "config": ["fit.yaml"],
    "fixed": {"trainer.max_steps": 10, "data.patch_size": [16, 16, 16]},
    "grid": {"norm": ["batch", "group"], "batch_size": [1, 2], "seed": [0, 1, 2]},
}


def write(folder, **changes):
    (folder / "fit.yaml").write_text("data:\n  manifest: x.json\n")
    path = folder / "study.yaml"
    content = {key: value for key, value in {**STUDY, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_every_combination_is_a_run_with_a_name_of_its_own(tmp_path):
    runs = read_study(write(tmp_path))
    assert len(runs) == len({run.name for run in runs}) == len({run.digest for run in runs}) == 12
    assert runs[0].name == "norm=batch,batch_size=1,seed=0"
    flags = " ".join(runs[-1].arguments)
    assert "--trainer.max_steps 10 --data.patch_size [16, 16, 16]" in flags
    assert flags.endswith("--model.norm group --data.batch_size 2 --seed_everything 2")
    assert runs[0].arguments[:2] == ["--config", str(tmp_path / "fit.yaml")]


def test_excluded_combinations_are_left_out(tmp_path):
    runs = read_study(write(tmp_path, exclude=[{"norm": "batch", "batch_size": 1}]))
    assert len(runs) == 9
    assert not any("norm=batch,batch_size=1" in run.name for run in runs)


def test_a_digest_follows_flags_and_files(tmp_path):
    before = read_study(write(tmp_path))[0].digest
    assert read_study(write(tmp_path))[0].digest == before
    assert read_study(write(tmp_path, fixed={"trainer.max_steps": 11}))[0].digest != before
    path = write(tmp_path)
    (tmp_path / "fit.yaml").write_text("data:\n  manifest: y.json\n")
    assert read_study(path)[0].digest != before


def test_runs_of_one_variant_differ_in_their_fold_only(tmp_path):
    grid = {"norm": ["batch"], "fold": [0, 1]}
    runs = read_study(write(tmp_path, grid=grid))
    assert [run.variant for run in runs] == ["norm=batch"] * 2
    plain = one_variant([tmp_path / "fit.yaml"], [0, 1, 2])
    assert [run.name for run in plain] == ["fold=0", "fold=1", "fold=2"]


def test_a_study_is_told_from_a_configuration(tmp_path):
    path = write(tmp_path)
    assert is_study(path)
    assert not is_study(tmp_path / "fit.yaml")


def test_names_are_names_of_files(tmp_path):
    grid = {"model.network.channels": [[8, 16], [16, 32]], "learning_rate": [1e-3]}
    runs = read_study(write(tmp_path, grid=grid))
    assert not set("/ []'\"") & set("".join(run.name for run in runs))
    assert len({run.name for run in runs}) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grids": {}}, "unknown key 'grids'. Did you mean 'grid'"),
        ({"grid": {}}, "at least one flag"),
        ({"grid": {"norm": []}}, "grid norm: a list of values is needed"),
        ({"grid": {"norm": ["batch", "batch"]}}, "names a value twice"),
        ({"fixed": {"model.norm": "group"}}, "model.norm is named twice"),
        ({"exclude": [{"fold": 1}]}, "must give values of flags of the grid"),
        ({"config": ["absent.yaml"]}, "no such file"),
    ],
)
def test_what_means_nothing_is_refused(changes, said, tmp_path):
    with pytest.raises(OptionError, match=said.replace("'", ".")):
        read_study(write(tmp_path, **changes))


def test_all_problems_are_told_at_once(tmp_path):
    with pytest.raises(OptionError) as told:
        read_study(write(tmp_path, nonsense=1, grid={"norm": [], "seed": [1, 1]}))
    assert str(told.value).count("\n") == 3
