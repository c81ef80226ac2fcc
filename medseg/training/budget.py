"""A training keeps to its time, says what is left of it, and ends in words when it diverges."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, Timer
from torch import Tensor

from medseg.core.errors import MedsegError
from medseg.training.module import SegmentationModule
from medseg.training.schedule import share_done, timer_of, training_progress

READ_EVERY = 50
"""Steps between two looks at a loss on a GPU: each look waits for the device."""

log = logging.getLogger("medseg")


class DivergenceError(MedsegError):
    """The loss is no number any more."""


class Pace(Callback):
    """Spend the time of `max_time` on training, and say after each epoch what is left.

    A validation that the time left cannot hold is left out, so that the learning rate comes to its
    end; the weights of the end are always validated. Must come after the timer and after what
    ends a training at `max_steps`.

    Attributes:
        found_learning_rate: What a range test before the training suggested.
        began: Whether there was anything to train.
    """

    def __init__(self) -> None:
        self.found_learning_rate: float | None = None
        self._every: int | None = 1
        self._validation_started = 0.0
        self._validation_seconds = 0.0
        self._started = 0.0
        self.began = False
        self._done_before: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """Keep what was found."""
        return {"found_learning_rate": self.found_learning_rate}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.found_learning_rate = state_dict["found_learning_rate"]

    def on_train_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Note what the user chose, and when it began."""
        self._every = trainer.check_val_every_n_epoch
        self._started = time.monotonic()
        self.began = True
        self._done_before = None

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Note how far a resumed training was."""
        if self._done_before is None:
            self._done_before = training_progress(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Decide whether the next validation takes place."""
        if self._every is None:  # validation counts batches, not epochs
            return
        if trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1
        elif _less_left(trainer, self._validation_seconds):
            trainer.check_val_every_n_epoch = sys.maxsize
        else:
            trainer.check_val_every_n_epoch = self._every

    def on_train_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Leave the trainer as it was."""
        trainer.check_val_every_n_epoch = self._every

    def on_validation_start(self, _trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Start the clock."""
        self._validation_started = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """End here if the time ran out meanwhile: one more step would need one more validation."""
        self._validation_seconds = time.monotonic() - self._validation_started
        if trainer.state.fn == "fit" and _less_left(trainer, 0.0):
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Say how long the rest will take."""
        done, timer = share_done(trainer), timer_of(trainer)
        gained = done - (self._done_before or 0.0)
        if gained <= 0 or not trainer.is_global_zero:
            return
        left = (1 - done) * (time.monotonic() - self._started) / gained
        if timer:
            left = min(left, max(timer.time_remaining() or 0.0, 0.0))
        log.info("%.0f %% done, about %s left", 100 * done, in_words(left))


class FiniteLoss(Callback):
    """End a training whose loss is NaN or infinite, before the weights it gave are kept.

    Infinite gradients under float16 loss scaling are no reason: such a step is skipped and the
    scale lowered. On a GPU the loss is read now and then only. Must come before what saves.
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None

    def on_train_start(self, _trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Nothing has been seen yet."""
        self._first = torch.tensor(0, device=module.device)

    def on_before_backward(
        self, trainer: pl.Trainer, _module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Note the first step with such a loss; on a CPU end here, the weights still whole."""
        step = torch.full_like(cast("Tensor", self._first), trainer.global_step + 1)
        first = cast("Tensor", self._first)
        self._first = torch.where((first == 0) & ~loss.detach().isfinite(), step, first)
        if loss.device.type == "cpu":
            self.look(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Look now and then."""
        if trainer.global_step % READ_EVERY == 0:
            self.look(trainer)

    def on_validation_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Look before weights are validated."""
        self.look(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Look before weights are kept."""
        self.look(trainer)

    def look(self, trainer: pl.Trainer) -> None:
        """End the training if a loss was no number; also called before weights are kept elsewhere.

        Raises:
            DivergenceError: If one was.
        """
        step = 0 if self._first is None else int(self._first)
        if not step:
            return
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        half = str(trainer.precision).startswith("16")
        ways = ["lower --model.optimization.learning_rate"]
        if half:
            ways.insert(0, "take --trainer.precision bf16-mixed or 32-true: float16 ends at 65504")
        raise DivergenceError(
            f"the loss of step {step} is not finite (learning rate {rate:.3g}, precision "
            f"{trainer.precision}). Checkpoints, if there are any, hold the finite weights of "
            "before: resume with --ckpt_path last. To get further, "
            f"{', or '.join(ways)}; `medseg check` finds images that hold NaN."
        )


def _less_left(trainer: pl.Trainer, seconds: float) -> bool:
    """Return whether less time than that is left, as the first device sees it."""
    timer = timer_of(trainer)
    if timer is None:
        return False
    left = timer.time_remaining()
    return bool(trainer.strategy.broadcast(left is not None and left < seconds))


def budget_record(trainer: pl.Trainer) -> dict[str, Any]:
    """Return what fit.json says about the end of a training and about its best checkpoint."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    stopped: dict[str, Any] | None = None
    found: float | None = None
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            stopped = {
                "step": trainer.global_step,
                "epoch": callback.stopped_epoch,
                "monitor": callback.monitor,
                "reason": callback.stopping_reason_message,
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            }
        if isinstance(callback, Pace):
            found = callback.found_learning_rate
    timer = timer_of(trainer)
    module = cast("SegmentationModule", trainer.lightning_module)
    return {
        "learning_rate": module.optimization.learning_rate,
        "found_learning_rate": found,
        "max_seconds": timer and _duration(timer),
        "schedule_done": round(share_done(trainer), 4),
        "stopped_early": stopped,
        "best_chosen_on": f"fold {data.fold}",
    }


def _duration(timer: Timer) -> float:
    return round(timer.time_elapsed() + (timer.time_remaining() or 0.0), 1)


def in_words(seconds: float) -> str:
    """Return a duration as a person says it: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
