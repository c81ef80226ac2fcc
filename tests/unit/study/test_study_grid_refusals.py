"""What a study's YAML may not say, and values that mean the same."""

import re

import pytest

from medseg.core.errors import OptionError
from medseg.study.grid import read_study


def read(folder, text):
    path = folder / "study.yaml"
    path.write_text(text)
    return read_study(path)


def test_a_number_is_a_number_however_it_is_written(tmp_path):
    grid = "grid: {learning_rate: [1e-3, 1e-2], norm: [batch, group]}\n"
    runs = read(tmp_path, grid + "exclude: [{learning_rate: 0.001, norm: batch}]")
    assert [run.name for run in runs] == [
        "learning_rate=0.001,norm=group",
        "learning_rate=0.01,norm=batch",
        "learning_rate=0.01,norm=group",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grid: {learning_rate: [1e-3, 0.001]}", "names a value twice"),
        ("grid: {learning_rate: ['1e-3', 0.001]}", "names a value twice"),
        ("grid: {norm: [batch]}\nexclude: [{norm: bacth}]", "Did you mean 'batch'"),
        ("grid: {norm: [batch]}\nexclude: [{nrom: batch}]", "Did you mean 'norm'"),
        ("grid: {norm: [batch]}\nexclude: [{norm: batch}]", "leaves no run"),
        ("grid: {norm: [batch]}\nexclude: 3", "exclude: a list"),
        ("grid: {norm: [batch]}\nexclude: [3]", "must give values"),
        ("grid: {norm: [batch]}\nfixed: [a]", "fixed: flags and their values"),
        ("grid: {norm: [batch]}\nconfig: base.yaml", "config: a list of files"),
        ("grid: {norm: [batch]}\nconfig: [3]", "config: a list of files"),
        ("grid: {norm: [batch], norm: [group]}", "norm is given twice"),
        ("grid: {norm: [batch", "cannot be read as YAML"),
        ("grid: [norm]", "at least one flag"),
        ("- 3", "must hold the keys"),
    ],
)
def test_a_wrong_study_is_refused_in_words(text, said, tmp_path):
    with pytest.raises(OptionError, match=re.escape(said)):
        read(tmp_path, text)


def test_two_cells_of_one_folder_are_refused_by_both_names(tmp_path):
    with pytest.raises(OptionError, match=r"'a/b'.*'a b'.*share the folder"):
        read(tmp_path, "grid: {model.name: [a/b, a b]}")
