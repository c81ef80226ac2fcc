"""Changes made one at a time, each with every combination of the grid."""

import pytest
import yaml

from medseg.core.errors import OptionError
from medseg.study.grid import read_study

STUDY = {
    "fixed": {"trainer.max_steps": 10, "learning_rate": 1e-3},
    "variants": [
        {},
        {"learning_rate": 0.1, "model.optimization.name": "sgd"},
        {"model.loss.dice_over": "sample"},
    ],
    "grid": {"fold": [1, 2]},
    "seeds": [0, 1],
}


def write(folder, **changes):
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return path


def test_each_change_is_made_alone_with_every_combination(tmp_path):
    runs = read_study(write(tmp_path))
    assert len(runs) == len({run.digest for run in runs}) == 3 * 2 * 2
    assert [run.name for run in runs[::4]] == [
        "fold=1,seed=0",
        "learning_rate=0.1,model.optimization.name=sgd,fold=1,seed=0",
        "model.loss.dice_over=sample,fold=1,seed=0",
    ]
    plain, changed = (" ".join(runs[place].arguments) for place in (0, 4))
    assert "--model.optimization.learning_rate 0.001" in plain
    assert "--model.optimization.name" not in plain
    # A change lies over what is fixed.
    assert "--model.optimization.learning_rate 0.1" in changed
    assert "0.001" not in changed


def test_folds_of_one_variant_are_one_cross_validation(tmp_path):
    runs = read_study(write(tmp_path, seeds=[0]))
    assert [run.variant for run in runs[2:4]] == [runs[2].variant] * 2
    assert len({run.variant for run in runs}) == 3


def test_combinations_are_left_out_of_every_variant(tmp_path):
    assert len(read_study(write(tmp_path, exclude=[{"fold": 2, "seed": 1}]))) == 3 * 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variants": {"norm": "batch"}}, "variants: a list of flags and their values is needed"),
        ({"variants": []}, "variants: a list"),
        ({"variants": [3]}, "variants: a list"),
        ({"variants": 3}, "variants: a list"),
        ({"variants": [{"fold": 3}]}, "data.fold is named in variants and in grid"),
        ({"variants": [{"seed_everything": 3}]}, "seed_everything is named in variants and in"),
        ({"variants": [{"norm": "batch", "model.norm": "rms"}]}, "flag by both of its names"),
        (
            {
                "grid": {"norm": ["rms"]},
                "variants": [{"data.train_folds": [1]}],
                "train": [3],
                "choose": [2],
                "report": [1],
            },
            "data.train_folds is set by the roles",
        ),
        (
            {
                "variants": [{"trainer.max_steps": 9}],
                "fixed": {"batch_size": 2},
                "budget": {"steps": 20},
            },
            "trainer.max_steps is set by the budget",
        ),
        (
            {
                "variants": [{}, {"batch_size": 3}],
                "fixed": {"batch_size": 2},
                "budget": {"samples": 20, "validations": 10},
            },
            "validations at batch size 3 need a number of steps",
        ),
        (
            {"variants": [{}, {"batch_size": 2}], "fixed": {}, "budget": {"steps": 20}},
            "batch_size must be in the grid or fixed",
        ),
        ({"variants": [{"norm": "batch"}, {"norm": "batch"}]}, "would share the folder norm=batch"),
    ],
)
def test_wrong_variants_are_refused(tmp_path, changes, said):
    with pytest.raises(OptionError, match=said):
        read_study(write(tmp_path, **changes))
