"""Equal samples or equal steps for every training of a study."""

import re

import pytest

from medseg.core.errors import OptionError
from medseg.study.grid import read_study


def read(folder, text):
    path = folder / "study.yaml"
    path.write_text(text)
    return read_study(path)


def spent(run):
    flags = {**run.fixed, **run.cell}
    return flags["trainer.max_steps"], flags["data.steps_per_epoch"], flags["trainer.max_epochs"]


def test_equal_samples_are_fewer_steps_of_larger_batches_validated_as_often(tmp_path):
    runs = read(tmp_path, "grid: {batch_size: [1, 8]}\nbudget: {samples: 1600, validations: 5}")
    assert [spent(run) for run in runs] == [(1600, 320, -1), (200, 40, -1)]


def test_equal_steps_are_the_same_for_all(tmp_path):
    runs = read(tmp_path, "grid: {batch_size: [1, 8]}\nbudget: {steps: 500}")
    assert [spent(run) for run in runs] == [(500, 50, -1)] * 2


def test_the_batch_size_may_be_fixed(tmp_path):
    text = "grid: {norm: [batch]}\nfixed: {batch_size: 4}\nbudget: {samples: 400}"
    assert spent(read(tmp_path, text)[0]) == (100, 10, -1)


def test_the_budget_belongs_to_what_a_run_was_asked(tmp_path):
    grid = "grid: {norm: [batch]}\nfixed: {batch_size: 4}\n"
    one, other = (read(tmp_path, f"{grid}budget: {{samples: {n}}}")[0] for n in (400, 800))
    assert one.digest != other.digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grid: {norm: [batch]}\nbudget: {samples: 100}", "batch_size must be in the grid"),
        ("grid: {batch_size: [1]}\nbudget: {samples: 100, steps: 3}", "give samples or steps"),
        ("grid: {batch_size: [1]}\nbudget: 100", "give samples or steps"),
        ("grid: {batch_size: [1]}\nbudget: {hours: 1}", "give samples or steps"),
        ("grid: {batch_size: [1]}\nbudget: {samples: 0.5}", "samples: a whole number above 0"),
        ("grid: {batch_size: [3]}\nbudget: {samples: 100}", "that 10 divides; got 33.3333"),
        ("grid: {batch_size: [1]}\nbudget: {steps: 25}", "that 10 divides; got 25"),
        (
            "grid: {batch_size: [1]}\nfixed: {trainer.max_steps: 5}\nbudget: {samples: 100}",
            "trainer.max_steps is set by the budget",
        ),
        ("grid: {norm: [batch]}\nprobes: 3", "probes: true or false"),
    ],
)
def test_a_wrong_budget_is_refused_in_words(text, said, tmp_path):
    with pytest.raises(OptionError, match=re.escape(said)):
        read(tmp_path, text)


def test_a_study_may_watch_its_trainings(tmp_path):
    run = read(tmp_path, "grid: {norm: [batch]}\nprobes: true")[0]
    assert run.arguments[-4:] == ["--probes", "true", "--model.norm", "batch"]
