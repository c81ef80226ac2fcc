"""A validation that was cut off is what a resumed training begins with."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

_PROGRESS = "epoch_loop.val_loop.batch_progress"
"""Where a checkpoint counts the batches of validations."""


class PendingValidation(Callback):
    """Have a checkpoint that was written before a validation go on with this validation.

    Lightning does so where it was interrupted within one, so such a checkpoint says that the first
    batch was begun. Where the training had come to its last step or the end of its time, Lightning
    would find nothing left to do: the bound is lifted until that validation starts.

    Must come after the timer, and after what remembers the bounds.
    """

    def __init__(self) -> None:
        self._step: int | None = None
        self._bound: int | None = None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, _module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note that a validation has begun."""
        if trainer.validating:
            batches = checkpoint["loops"]["fit_loop"][_PROGRESS]["total"]
            batches["ready"] += 1
            batches["started"] += 1

    def on_load_checkpoint(
        self, _trainer: pl.Trainer, _module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """See whether a validation is pending."""
        batches = checkpoint["loops"]["fit_loop"][_PROGRESS]["total"]
        pending = batches["processed"] < batches["started"]
        self._step = int(checkpoint["global_step"]) if pending else None

    def on_fit_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Lift a bound that was reached."""
        if self._step is None:
            return
        if trainer.should_stop or 0 < trainer.max_steps <= self._step:
            self._bound = trainer.max_steps
            trainer.fit_loop.epoch_loop.max_steps = -1
            trainer.should_stop = False

    def on_train_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Have the validation due, where only the end of the training or the clock made it so."""
        if self._step is None:
            return
        trainer._last_val_time = -math.inf  # type: ignore[attr-defined] # noqa: SLF001 - by the clock
        if self._bound is not None:
            trainer.check_val_every_n_epoch = 1
            trainer.val_check_batch = trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def on_validation_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Count its batches from the first; set the bound again."""
        loop = trainer.fit_loop.epoch_loop
        loop.val_loop.batch_progress.total.reset_on_restart()
        if self._bound is not None:
            loop.max_steps, trainer.should_stop = self._bound, True
        self._step = self._bound = None
