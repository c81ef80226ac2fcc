"""What ends a training in words, and how long is left."""

import math
from types import SimpleNamespace

import pytest
import torch

from medseg.training.budget import DivergenceError, FiniteLoss, in_words


def trainer(precision, step=0):
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.01}])
    return SimpleNamespace(precision=precision, global_step=step, optimizers=[optimizer])


def watch():
    callback = FiniteLoss()
    callback.on_train_start(None, SimpleNamespace(device=torch.device("cpu")))
    return callback


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_names_its_step_and_rate(loss):
    with pytest.raises(DivergenceError, match=r"loss of step 7 is not finite \(learning rate 0.01"):
        watch().on_before_backward(trainer("32-true", 6), None, torch.tensor(loss))


@pytest.mark.parametrize(("precision", "told"), [("16-mixed", True), ("bf16-mixed", False)])
def test_float16_is_told_of_a_wider_type(precision, told):
    with pytest.raises(DivergenceError) as error:
        watch().on_before_backward(trainer(precision), None, torch.tensor(math.nan))
    assert ("--trainer.precision bf16-mixed or 32-true" in str(error.value)) is told


def test_a_large_loss_and_infinite_gradients_end_nothing():
    callback = watch()
    loss = torch.tensor(60000.0, requires_grad=True)
    loss.grad = torch.tensor(math.inf)
    callback.on_before_backward(trainer("16-mixed"), None, loss)
    callback.on_train_epoch_end(trainer("16-mixed"), None)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (99, "99 s"), (840, "14 min"), (12600, "3.5 h")]
)
def test_a_duration_is_said_as_a_person_says_it(seconds, words):
    assert in_words(seconds) == words
