"""What ends a training, and what does not shorten it."""

from __future__ import annotations

import pytorch_lightning as pl

from medseg.core.errors import OptionError
from medseg.networks.norms_batch import BatchRenorm
from medseg.training.module import SegmentationModule
from medseg.training.schedule import timer_of


def bounds(trainer: pl.Trainer) -> dict[str, float | None]:
    """Return what ends a training, by name; None for what does not."""
    timer = timer_of(trainer)
    left = timer.time_remaining() if timer else None
    return {
        "trainer.max_epochs": trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None,
        "trainer.max_steps": trainer.max_steps if trainer.max_steps > 0 else None,
        "trainer.max_time": None if timer is None or left is None
        else round(timer.time_elapsed() + left, 1),
    }  # fmt: skip


def needs_an_end(module: SegmentationModule) -> bool:
    """Return whether a training follows the share of it that is done: its rate, or its norm."""
    recipe = module.optimization
    follows = any(isinstance(layer, BatchRenorm) for layer in module.network.modules())
    return recipe.schedule != "constant" or recipe.warmup > 0 or follows


def refuse_endless(trainer: pl.Trainer, module: SegmentationModule) -> None:
    """Refuse a training without an end whose learning rate would wait for it.

    Raises:
        OptionError: If so.
    """
    if not needs_an_end(module) or any(bounds(trainer).values()):
        return
    recipe = module.optimization
    raise OptionError(
        "nothing bounds this training, and its learning rate (schedule "
        f"{recipe.schedule}, warmup {recipe.warmup:g}) or its norm ({module.description.norm}) "
        "follows the share of it that is done; early stopping is no bound. Give "
        "--trainer.max_epochs, --trainer.max_steps or --trainer.max_time, or take "
        "--model.optimization.schedule constant and --model.optimization.warmup 0."
    )
