"""Variants of the loss: the default is what it was, each variant is its formula."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from medseg.core.errors import OptionError
from medseg.data.transforms import IGNORE_INDEX
from medseg.networks.unet import Architecture
from medseg.training import loss as losses
from medseg.training.loss import SMOOTH, Loss, dice_ce, supervised_loss
from medseg.training.module import SegmentationModule


def example(dtype=torch.float32, samples=2):
    """Return logits that are multiples of 1/8, and labels with voxels to ignore."""
    logits = torch.randint(-16, 17, (2, 3, 4, 6, 4), generator=torch.Generator().manual_seed(1))
    label = torch.randint(
        0, 3, (2, 4, 6, 4), generator=torch.Generator().manual_seed(2), dtype=torch.uint8
    )
    label[0, 0] = IGNORE_INDEX
    return (logits[:samples].to(dtype) / 8).requires_grad_(), label[:samples]


@pytest.mark.parametrize(
    ("dtype", "value", "gradient", "close"),
    [
        (torch.float32, "0x1.0d1f42p+1", "0x1.9ad884cddp+0", 1e-6),
        (torch.float64, "0x1.0d1f42345ecc1p+1", "0x1.9ad8845a4b3c0p+0", 1e-14),
        (torch.bfloat16, "0x1.0d1f42p+1", "0x1.9ad9cp+0", 1e-6),
    ],
)
def test_the_default_is_the_loss_it_was_before_there_were_variants(dtype, value, gradient, close):
    logits, label = example(dtype)
    found = dice_ce(logits, label)
    found.backward()
    assert found.item() == pytest.approx(float.fromhex(value), rel=close)
    total = logits.grad.double().abs().sum().item()
    assert total == pytest.approx(float.fromhex(gradient), rel=10 * close)


def as_before(logits, label):
    """Return the loss as it was written before there were variants."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    target = label.long()
    entropy = F.cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction="sum")
    counted = target != IGNORE_INDEX
    inside, classes, axes = counted[:, None], logits.shape[1], (0, 2, 3, 4)
    truth = F.one_hot(torch.where(counted, target, 0), classes).movedim(-1, 1)[:, 1:] * inside
    chance = logits.softmax(dim=1)[:, 1:] * inside
    overlap, total = (chance * truth).sum(axes), chance.sum(axes) + truth.sum(axes)
    dice = (2 * overlap + SMOOTH) / (total + SMOOTH)
    return entropy / counted.sum().clamp_min(1) + 1 - dice.mean()


@pytest.mark.parametrize("seed", range(5))
def test_the_default_is_pytorchs_cross_entropy_and_soft_dice_to_rounding(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((2, 4, 6, 8, 6), generator=generator, requires_grad=True)
    label = torch.randint(0, 4, (2, 6, 8, 6), generator=generator, dtype=torch.uint8)
    expected = as_before(logits, label)
    (gradient,) = torch.autograd.grad(expected, logits)
    found = dice_ce(logits, label)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(found, logits)[0], gradient, rtol=1e-4,
                               atol=1e-6 * float(gradient.abs().max()))  # fmt: skip


def test_weights_are_those_of_the_two_parts():
    logits, label = example(torch.float64)
    entropy = dice_ce(logits, label, loss=Loss(dice_weight=0)).item()
    dice = dice_ce(logits, label, loss=Loss(entropy_weight=0)).item()
    counted = label != IGNORE_INDEX
    mean = F.cross_entropy(logits.movedim(1, -1)[counted], label[counted].long()).item()
    assert entropy == pytest.approx(mean, rel=1e-12)
    assert entropy + dice == pytest.approx(dice_ce(logits, label).item(), rel=1e-12)
    weighted = dice_ce(logits, label, loss=Loss(dice_weight=2, entropy_weight=0.5)).item()
    assert weighted == pytest.approx(0.5 * entropy + 2 * dice, rel=1e-12)


def test_dice_over_samples_is_the_mean_of_each_patch_alone():
    logits, label = example(torch.float64)
    each = Loss(entropy_weight=0, dice_over="sample")
    alone = [
        dice_ce(logits[i : i + 1], label[i : i + 1], loss=Loss(entropy_weight=0)).item()
        for i in range(2)
    ]
    together = dice_ce(logits, label, loss=each).item()
    assert together == pytest.approx(sum(alone) / 2, rel=1e-12)
    whole = dice_ce(logits, label, loss=Loss(entropy_weight=0)).item()
    assert abs(together - whole) > 1e-4


def test_tverskys_ratio_weighs_missed_and_invented_voxels():
    # Sure of class 1 at 3 voxels: 2 right, 1 invented; 4 missed of the 6 there are.
    truth = torch.tensor([1, 1, 1, 1, 1, 1, 0, 0]).reshape(1, 2, 2, 2)
    guess = torch.tensor([1, 1, 0, 0, 0, 0, 1, 0]).reshape(1, 2, 2, 2)
    logits = F.one_hot(guess, 2).movedim(-1, 1).double() * 50
    for alpha, beta in ((0.5, 0.5), (0.3, 0.7), (0.1, 0.9), (1.0, 1.0)):
        loss = Loss(entropy_weight=0, tversky_alpha=alpha, tversky_beta=beta)
        expected = 1 - 2 / (2 + alpha * 1 + beta * 4)
        assert dice_ce(logits, truth, loss=loss).item() == pytest.approx(expected, abs=1e-5)


def test_a_larger_beta_costs_more_for_the_same_missed_voxels():
    logits, label = example(torch.float64)
    missed = dice_ce(logits - torch.tensor([0, 3.0, 3.0]).reshape(1, 3, 1, 1, 1), label,
                     loss=Loss(entropy_weight=0, tversky_alpha=0.3, tversky_beta=0.7))  # fmt: skip
    invented = dice_ce(logits - torch.tensor([0, 3.0, 3.0]).reshape(1, 3, 1, 1, 1), label,
                       loss=Loss(entropy_weight=0, tversky_alpha=0.7, tversky_beta=0.3))  # fmt: skip
    assert missed.item() > invented.item() + 0.05


def test_focal_entropy_is_its_formula():
    logits, label = example(torch.float64)
    counted = label != IGNORE_INDEX
    sure = logits.softmax(1).gather(1, torch.where(counted, label, 0).long()[:, None])[:, 0]
    for gamma in (0.5, 1.0, 2.0):
        expected = (-((1 - sure) ** gamma) * sure.log())[counted].mean().item()
        found = dice_ce(logits, label, loss=Loss(dice_weight=0, focal_gamma=gamma)).item()
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_gradients_of_sure_and_ignored_voxels_are_finite(gamma):
    label = torch.randint(0, 3, (1, 4, 4, 4), generator=torch.Generator().manual_seed(0))
    logits = (F.one_hot(label, 3).movedim(-1, 1) * 200.0).requires_grad_()
    label[:, :1] = IGNORE_INDEX
    dice_ce(logits, label, loss=Loss(focal_gamma=gamma)).backward()
    assert torch.isfinite(logits.grad).all()


VARIANTS = [
    Loss(dice_over="sample"),
    Loss(tversky_alpha=0.3, tversky_beta=0.7, focal_gamma=2.0),
    Loss(dice_over="sample", tversky_alpha=0.2, tversky_beta=0.8, dice_weight=0.5),
]


@pytest.mark.parametrize("loss", [Loss(), *VARIANTS])
def test_two_devices_have_the_loss_of_one_with_both_batches(loss, monkeypatch):
    logits, label = example(torch.float64)
    label = torch.where(label == IGNORE_INDEX, 0, label)
    whole = supervised_loss([logits], label, loss=loss).item()
    sums = []
    for i in range(2):  # what each device would send

        def send(mine):
            sums.append(mine)
            return mine

        monkeypatch.setattr(losses, "_over_devices", send)
        dice_ce(logits[i : i + 1], label[i : i + 1], across=True, loss=loss)
    monkeypatch.setattr(losses, "_over_devices", lambda _mine: sums[0] + sums[1])
    found = dice_ce(logits[:1], label[:1], across=True, loss=loss).item()
    assert found == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("loss", [Loss(), *VARIANTS])
def test_nothing_is_called_that_is_not_deterministic_on_cuda(loss):
    logits, label = example()
    with torch.profiler.profile() as profile:
        dice_ce(logits, label, loss=loss).backward()
    called = {event.key for event in profile.key_averages()}
    assert not [name for name in called if "nll_loss" in name or "scatter" in name], called


@pytest.mark.gpu
@pytest.mark.parametrize("loss", [Loss(), *VARIANTS])
def test_the_loss_is_deterministic_on_a_gpu(loss):
    logits, label = example()
    gradients = []
    try:
        torch.use_deterministic_algorithms(True)
        for _ in range(2):
            mine = logits.detach().cuda().requires_grad_()
            dice_ce(mine, label.cuda(), loss=loss).backward()
            gradients.append(mine.grad.cpu())
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(*gradients)
    dice_ce(logits, label, loss=loss).backward()
    torch.testing.assert_close(gradients[0], logits.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("loss", VARIANTS)
def test_the_gradient_of_each_variant_is_that_of_its_values(loss):
    logits, label = example(torch.float64)
    assert torch.autograd.gradcheck(lambda x: dice_ce(x, label, loss=loss), (logits,))


@pytest.mark.parametrize(
    "wrong",
    [
        {"dice_weight": -1.0},
        {"dice_weight": 0.0, "entropy_weight": 0.0},
        {"tversky_alpha": 0.0, "tversky_beta": 0.0},
        {"focal_gamma": -1.0},
        {"dice_weight": math.nan},
    ],
)
def test_impossible_weights_are_refused(wrong):
    with pytest.raises(OptionError, match=r"model\.loss needs weights >= 0"):
        Loss(**wrong)


def test_training_and_validation_minimize_what_was_asked_for(monkeypatch):
    loss = Loss(dice_weight=0.0, entropy_weight=2.0)
    task = {"channel_names": ["image"], "labels": {"background": 0, "organ": 1},
            "patch_size": [8, 8, 8], "batch_size": 1}  # fmt: skip
    module = SegmentationModule(network=Architecture(channels=[8, 16]), loss=loss, task=task)
    monkeypatch.setattr(module, "_trainer", SimpleNamespace(world_size=1))
    monkeypatch.setattr(module, "log", lambda *_args, **_settings: None)
    image, label = torch.randn(1, 1, 8, 8, 8), torch.randint(0, 2, (1, 8, 8, 8))
    batch = {"image": image, "label": label, "case_id": ["one"]}
    expected = supervised_loss(module.network.heads(image), label, loss=loss).item()
    assert module.training_step(batch, 0)["loss"].item() == pytest.approx(expected, rel=1e-5)
    module.eval()
    with torch.no_grad():
        module.validation_step(batch, 0)
        entropy = F.cross_entropy(module.network(image), label).item()
    assert module._scores["one"][0].item() == pytest.approx(2 * entropy, rel=1e-4)
