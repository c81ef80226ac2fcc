"""A volume scored some rows at a time has the loss, the Dice and the labels of the whole."""

import pytest
import torch

from medseg.data.transforms import IGNORE_INDEX
from medseg.networks.window import SlidingWindow
from medseg.training import validation
from medseg.training.loss import Loss, dice_ce
from medseg.training.validation import hard_dice, predict_volume, score_volume, slabs

CLASSES = 3
WINDOW = SlidingWindow((8, 8, 8), 0.5, 2)


def network(images):
    """Return logits that depend on the place within the window, as a network's do."""
    ramp = torch.linspace(0, 1, images.shape[2])[:, None, None]
    return torch.cat([images * 0 + 0.5, images + ramp, 1.5 * images - ramp], dim=1)


@pytest.fixture
def volume():
    torch.manual_seed(0)
    image = torch.randn(1, 1, 11, 30, 13)
    label = (image[:, 0] + 0.5 * torch.randn(1, 11, 30, 13)).mul(2).clamp(0, 2).to(torch.uint8)
    label[:, :, :2] = IGNORE_INDEX
    return image, label


@pytest.mark.parametrize("slab", [1, 3 * 11 * 13 * 7, 1 << 23])
@pytest.mark.parametrize(
    "loss",
    [
        Loss(),
        Loss(dice_over="sample", tversky_alpha=0.3, tversky_beta=0.7),
        Loss(dice_weight=0.5, focal_gamma=2.0),
    ],
)
def test_slabs_give_what_the_whole_gives(slab, loss, volume, monkeypatch):
    image, label = volume
    monkeypatch.setattr(validation, "SLAB", slab)
    logits = WINDOW(image, network)
    found = score_volume(slabs(WINDOW, image, network, CLASSES), label, CLASSES, loss)
    assert found[0].item() == pytest.approx(dice_ce(logits, label, loss=loss).item(), rel=1e-5)
    assert found[1:].tolist() == hard_dice(logits.argmax(1), label, CLASSES).tolist()
    labels = predict_volume(slabs(WINDOW, image, network, CLASSES))
    assert torch.equal(labels, logits.argmax(1)[0].to(torch.uint8))


def test_a_slab_is_no_larger_than_allowed_and_lies_along_the_longest_axis(volume, monkeypatch):
    image, label = volume
    monkeypatch.setattr(validation, "SLAB", CLASSES * 11 * 13 * 7 + 5)
    parts = list(slabs(WINDOW, image, network, CLASSES))
    assert [part.start for part in parts] == [0, 7, 14, 21, 28]
    assert {part.axis for part in parts} == {1}
    assert [part.logits.shape[3] for part in parts] == [7, 7, 7, 7, 2]
    assert torch.equal(torch.cat([part.of(label) for part in parts], dim=2), label)


def test_a_volume_smaller_than_the_window_is_one_slab(volume):
    image, label = volume
    small, truth = image[:, :, :3, :4, :5], label[:, :3, :4, :5]
    found = score_volume(slabs(WINDOW, small, network, CLASSES), truth, CLASSES, Loss())
    assert found[0].item() == pytest.approx(dice_ce(WINDOW(small, network), truth).item(), rel=1e-5)


def test_a_class_that_is_nowhere_has_no_dice(volume):
    image, label = volume
    found = score_volume(slabs(WINDOW, image, lambda x: torch.cat([x, x + 1], 1), 2),
                         torch.zeros_like(label), 2, Loss())  # fmt: skip
    assert found[1].item() == 0
    none = score_volume(slabs(WINDOW, image, lambda x: torch.cat([x + 1, x], 1), 2),
                        torch.zeros_like(label), 2, Loss())  # fmt: skip
    assert none[1].isnan()
