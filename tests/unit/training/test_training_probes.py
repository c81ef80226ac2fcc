"""What is noted of each step, and numbers from a sequence of losses and of gradients."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medseg.core import labels
from medseg.data.transforms import IGNORE_INDEX
from medseg.training import probes
from medseg.training.probes import DICE_EVERY, MEDIAN_OF, Probes, roughness, spikes
from medseg.training.validation import confusion

PROGRESS = SimpleNamespace(total=SimpleNamespace(ready=1))
TRAINER = SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(
    batch_progress=PROGRESS)))  # fmt: skip
MODULE = SimpleNamespace(class_names=["background", "a", "b"], device=torch.device("cpu"))


def test_patches_are_scored_in_some_batches_of_an_epoch_and_always_in_its_first(
    tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr(probes, "confusion", lambda *given: seen.append(1) or confusion(*given))
    watch, label = Probes(tmp_path / "probes.json"), torch.ones((1, 2, 2, 2), dtype=torch.uint8)
    out = {"loss": torch.tensor(1.0), "logits": torch.zeros((1, 3, 2, 2, 2))}
    for index in range(2 * DICE_EVERY + 1):
        watch.on_train_batch_end(TRAINER, MODULE, out, {"label": label}, index)
        assert len(seen) == 1 + index // DICE_EVERY
    assert watch.take_train_dice() == 0.0
    assert watch.take_train_dice() is None
    assert watch.seconds > 0


def test_the_norm_of_the_gradients_is_that_by_which_they_are_clipped(tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3), torch.nn.Conv3d(4, 2, 1))
    network(torch.randn((1, 1, 4, 4, 4))).square().sum().backward()
    watch = Probes(tmp_path / "probes.json")
    watch._weights = list(network.parameters())
    watch.on_before_optimizer_step(None, None, None)
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    torch.testing.assert_close(watch.gradients[0][0], norm)
    assert watch.seconds > 0


def test_a_confusion_leaves_out_what_is_ignored():
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(3, (2, 4, 5, 6), generator=generator, dtype=torch.uint8)
    prediction = torch.randint(3, label.shape, generator=generator)
    label[:, 0] = IGNORE_INDEX
    counted = label != IGNORE_INDEX
    known = labels.confusion(label[counted].numpy(), prediction[counted].numpy(), 3)
    assert confusion(prediction, label, 3).tolist() == known.tolist()


def test_roughness_is_the_noise_of_a_loss_and_not_its_trend():
    noise = np.random.default_rng(0).normal(0, 0.1, 20_000)
    trend = np.linspace(5, 0, 20_000)
    assert roughness(trend) == pytest.approx(0, abs=1e-3)
    assert roughness(trend + noise) == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("losses", [[], [1.0], [1.0, np.nan, 1.0], [1.0, np.inf]])
def test_a_loss_that_is_too_short_or_not_finite_has_no_roughness(losses):
    assert roughness(np.array(losses)) is None


def test_spikes_are_counted_against_the_gradients_before_them():
    norms = np.ones(MEDIAN_OF + 500)
    norms[200], norms[300], norms[400] = 10.5, 9.5, np.nan
    assert spikes(norms) == pytest.approx(1000 * 2 / 500)


def test_gradients_that_grow_slowly_are_no_spikes():
    assert spikes(np.geomspace(1, 1e6, 5000)) == 0


def test_too_few_steps_have_no_median():
    assert spikes(np.ones(MEDIAN_OF)) is None
