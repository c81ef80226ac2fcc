"""The range test's rule, on curves and on a task whose limits are known."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medseg.core.errors import MedsegError
from medseg.training.rate_finder import HIGHEST, LOWEST, STEPS, RangeTest, _Rise

RATES = [float(rate) for rate in np.geomspace(LOWEST, HIGHEST, STEPS)]


def curve(fall, rise=math.inf):
    """Return a loss that falls around the rate `fall` and rises beyond `rise`."""
    return [2 - 1 / (1 + (fall / rate) ** 2) + (rate / rise) ** 2 for rate in RATES]


@pytest.mark.parametrize("fall", [1e-4, 1e-3, 1e-2])
def test_the_suggestion_is_where_the_loss_falls_fastest(fall):
    found = RangeTest(RATES, curve(fall)).suggestion()
    assert abs(math.log10(found / fall)) < 0.15


def test_noise_does_not_move_it_far():
    noise = np.random.default_rng(0).normal(0, 0.05, STEPS)
    found = RangeTest(RATES, list(curve(1e-3) + noise)).suggestion()
    assert abs(math.log10(found / 1e-3)) < 0.5


def test_a_loss_that_never_falls_has_no_suggestion():
    with pytest.raises(MedsegError, match="did not fall"):
        RangeTest(RATES, [1 + 0.01 * step for step in range(STEPS)]).suggestion()
    with pytest.raises(MedsegError, match="did not fall"):
        RangeTest(RATES[:3], [1.0, 0.9, math.nan]).suggestion()


@pytest.mark.parametrize("last", [math.nan, math.inf, 1e3])
def test_divergence_ends_the_test(last):
    losses = curve(1e-3)[:60]
    assert not RangeTest(RATES[:60], losses).diverged
    assert RangeTest(RATES[:61], [*losses, last]).diverged


def test_on_a_quadratic_it_lies_between_a_rate_that_does_nothing_and_one_that_diverges():
    # Gradient descent on curvature 10 diverges above a rate of 2 / 10.
    weight, losses = torch.tensor(5.0), []
    for rate in RATES:
        losses.append(float(5 * weight**2))
        weight -= rate * 10 * weight
        if RangeTest(RATES[: len(losses)], losses).diverged:
            break
    found = RangeTest(RATES[: len(losses)], losses).suggestion()
    assert 1e-3 < found < 0.2


def test_the_running_mean_is_right_from_the_first_step():
    assert RangeTest(RATES[:3], [2.0, 2.0, 2.0]).smoothed == pytest.approx([2.0, 2.0, 2.0])
    assert RangeTest(RATES[:2], [1.0, 2.0]).smoothed[1] == pytest.approx(0.29 / 0.19)


def test_the_loss_of_a_step_is_the_mean_of_its_batches():
    rise = _Rise(STEPS)
    trainer = SimpleNamespace(should_stop=False)
    optimizer = SimpleNamespace(param_groups=[{"lr": 1.0}])
    for first, second in ((2.0, 4.0), (1.0, 2.0)):
        for batch, loss in enumerate((first / 2, second / 2)):  # as Lightning hands them out
            if batch:
                rise.on_before_optimizer_step(trainer, None, optimizer)
            rise.on_train_batch_end(trainer, None, {"loss": torch.tensor(loss)}, None, batch)
    assert rise.losses == [3.0, 1.5]
    assert rise.rates == pytest.approx(RATES[:2])
    assert optimizer.param_groups[0]["lr"] == rise.rates[-1]
