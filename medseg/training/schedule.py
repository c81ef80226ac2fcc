"""The learning rate over a training whose end may be a time, a number of steps or of epochs."""

from __future__ import annotations

import math
from typing import Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Timer

Schedule = Literal["poly", "cosine", "constant"]

POLY_POWER = 0.9
"""nnU-Net's exponent (Isensee 2021)."""


def learning_rate_factor(schedule: Schedule, progress: float, warmup: float) -> float:
    """Return the factor on the learning rate.

    Args:
        schedule: `poly`, `cosine` (both end at 0) or `constant`.
        progress: Share of the training that is done, in [0, 1].
        warmup: Share in which the rate rises linearly.
    """
    if progress < warmup:
        # Never exactly 0: the first step would be lost.
        return max(progress / warmup, 1e-3)
    done = min((progress - warmup) / max(1 - warmup, 1e-9), 1.0)
    if schedule == "poly":
        return float((1 - done) ** POLY_POWER)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0


def training_progress(trainer: pl.Trainer) -> float:
    """Return the share done of whichever ends first, as the batch at hand begins.

    The bounds are max_time, max_steps and max_epochs.
    """
    # `ready` already counts the batch at hand.
    done = trainer.fit_loop.epoch_loop.batch_progress.current.ready - 1
    return _share(trainer, trainer.current_epoch + done / max(trainer.num_training_batches, 1))


def share_done(trainer: pl.Trainer) -> float:
    """Return the share done of whichever ends first, the last batch included."""
    batches = trainer.fit_loop.epoch_loop.batch_progress.total.ready
    return _share(trainer, batches / max(trainer.num_training_batches, 1))


def _share(trainer: pl.Trainer, epochs: float) -> float:
    shares = [0.0]
    if trainer.max_steps and trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    if trainer.max_epochs and trainer.max_epochs > 0:
        shares.append(epochs / trainer.max_epochs)
    timer = timer_of(trainer)
    if timer and (left := timer.time_remaining()) is not None:
        spent = timer.time_elapsed()
        shares.append(spent / max(spent + left, 1e-9))
    return min(max(shares), 1.0)


def shared_progress(trainer: pl.Trainer) -> float:
    """Return the share done, the same on every device: their clocks differ a little."""
    progress = training_progress(trainer)
    return float(trainer.strategy.broadcast(progress)) if timer_of(trainer) else progress


def timer_of(trainer: pl.Trainer) -> Timer | None:
    """Return what knows the time left of `max_time`, if that bounds the training."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, Timer)), None)
