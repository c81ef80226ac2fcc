"""Loss and schedule: known values, ignored voxels, ends."""

import itertools
import math

import pytest
import torch

from medseg.data.transforms import IGNORE_INDEX
from medseg.training.loss import dice_ce, shrunk, supervised_loss
from medseg.training.schedule import learning_rate_factor


def one_hot_logits(label, classes=3, sure=50.0):
    return torch.nn.functional.one_hot(label.long(), classes).movedim(-1, 1) * sure


def some_label():
    return torch.randint(0, 3, (2, 6, 6, 6), generator=torch.Generator().manual_seed(0))


def test_a_perfect_and_sure_prediction_costs_nothing():
    label = some_label()
    assert float(dice_ce(one_hot_logits(label).float(), label)) == pytest.approx(0, abs=1e-4)


def test_an_undecided_prediction_costs_log_classes_and_the_soft_dice():
    label = some_label()
    loss = float(dice_ce(torch.zeros(2, 3, 6, 6, 6), label))
    count, voxels = torch.bincount(label.flatten(), minlength=3)[1:].double(), label.numel()
    dice = (2 * count / 3) / (voxels / 3 + count)
    assert loss == pytest.approx(math.log(3) + 1 - float(dice.mean()), abs=1e-4)


def test_ignored_voxels_change_neither_loss_nor_gradient():
    label, logits = some_label(), torch.randn(2, 3, 6, 6, 6)
    label[:, :2] = IGNORE_INDEX
    disturbed = logits.clone()
    disturbed[:, :, :2] += 100 * torch.randn(2, 3, 2, 6, 6)
    assert float(dice_ce(logits, label)) == pytest.approx(
        float(dice_ce(disturbed, label)), rel=1e-6
    )
    leaf = logits.requires_grad_()
    dice_ce(leaf, label).backward()
    assert float(leaf.grad[:, :, :2].abs().max()) == 0


def test_a_batch_of_ignored_voxels_alone_is_finite():
    label = torch.full((1, 4, 4, 4), IGNORE_INDEX)
    assert torch.isfinite(dice_ce(torch.randn(1, 3, 4, 4, 4), label))


def test_coarser_heads_count_half_as_much_each():
    label = some_label()
    good = one_hot_logits(label).float()
    heads = [good, torch.zeros(2, 3, 3, 3, 3)]
    coarse = dice_ce(heads[1], shrunk(label, (3, 3, 3)))
    assert float(supervised_loss(heads, label)) == pytest.approx(
        float(coarse) * 0.5 / 1.5, abs=1e-4
    )


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_the_rate_rises_then_falls_to_zero(schedule):
    factors = [learning_rate_factor(schedule, step / 100, 0.1) for step in range(101)]
    assert factors[0] < 0.05
    assert max(factors) == factors[10] == pytest.approx(1)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))
    assert factors[-1] == pytest.approx(0, abs=1e-9)


def test_poly_is_nnunets_curve():
    assert learning_rate_factor("poly", 0.5, 0.0) == pytest.approx(0.5**0.9)
    assert learning_rate_factor("constant", 0.9, 0.0) == 1.0
