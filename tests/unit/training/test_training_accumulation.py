"""Accumulated gradients: divided by their number, and what they are not."""

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from medseg.networks.unet import Architecture
from medseg.training.module import SegmentationModule
from medseg.training.optimization import Optimization

SIZE = (8, 8, 8)


def batch(seed, count):
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randn((count, 1, *SIZE), generator=generator),
        "label": torch.randint(3, (count, *SIZE), generator=generator, dtype=torch.uint8),
    }


def step(batches):
    """Return the weights after one step of plain gradient descent on all batches."""
    pl.seed_everything(0)
    task = {"channel_names": ["image"], "labels": {str(i): i for i in range(3)}}
    task |= {"patch_size": list(SIZE), "batch_size": len(batches[0]["image"])}
    recipe = Optimization("sgd", learning_rate=0.1, momentum=0.0, schedule="constant", warmup=0.0)
    module = SegmentationModule(
        norm="instance", network=Architecture(channels=[4, 8]), optimization=recipe, task=task
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=len(batches),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(batches, batch_size=None))
    assert trainer.global_step == 1
    return torch.cat([parameter.detach().ravel() for parameter in module.network.parameters()])


@pytest.mark.filterwarnings("ignore")
def test_the_loss_is_divided_by_the_number_of_batches():
    one = batch(0, 2)
    torch.testing.assert_close(step([one, one, one]), step([one]), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_two_batches_of_one_are_not_a_batch_of_two_since_dice_is_over_the_batch():
    both = batch(0, 2)
    halves = [{name: value[i : i + 1] for name, value in both.items()} for i in range(2)]
    start, whole, parts = step([batch(1, 2)]), step([both]), step(halves)
    apart = float((whole - parts).norm())
    # Nearer than another batch would lead, and further than rounding.
    assert 1e-5 < apart < 0.3 * float((whole - start).norm())
