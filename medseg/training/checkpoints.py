"""Checkpoints: whole or absent, and where a training is interrupted, so that it goes on exactly."""

from __future__ import annotations

import logging
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.exceptions import SIGTERMException

from medseg.core.errors import CheckpointError
from medseg.networks.checkpoint import whole_checkpoint
from medseg.training.budget import FiniteLoss
from medseg.training.continuation import (
    changes,
    circumstances,
    irreproducible,
    refuse_other_data,
)
from medseg.training.fixed import TRAINING_KEY
from medseg.training.module import SegmentationModule
from medseg.training.slurm import requeue, requeue_signal

SAVE_SECONDS = 600
"""Within a long epoch `last` is written this often: a power cut loses no more."""

AGREE_EVERY = 10
"""Steps after which several devices agree on what is to be done: each time a GPU is waited for."""

log = logging.getLogger("medseg")


class Paused(Exception):  # noqa: N818 - no error
    """A training has come to where it was to pause; `last` is kept."""


class Checkpoints(Callback):
    """Keep `last` after every epoch and `best` of all validations, whole or not at all.

    Also keep `last` after the running step when SIGTERM, Ctrl-C or SLURM's signal to requeue
    arrives, before each validation, and every ten minutes. A signal within a validation ends it at
    once, a resumed run begins with it; a second Ctrl-C ends whatever is under way.

    Args:
        folder: Where they lie.
        finite: Asked before weights are kept.
        pause_after: Epochs after which to end as if interrupted; None for never.

    Attributes:
        best: The best validation Dice so far.
        fixed: Settings that a resumed run cannot change.
        reasons: Why the training, all its parts taken together, cannot be repeated.
    """

    def __init__(self, folder: Path, finite: FiniteLoss, pause_after: int | None = None) -> None:
        self.folder, self.finite, self.pause_after = folder, finite, pause_after
        self.best: float | None = None
        self.fixed: dict[str, Any] = {}
        self.reasons: list[str] = []
        self._fresh: float | None = None
        self._saved = 0.0
        self._kept_step = -1
        self._signal = 0
        self._requeues: int | None = None
        self._handlers: dict[int, Any] = {}
        self._resumed: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Keep the best Dice so far, and what a resumed run must agree with."""
        return {"best": self.best, "reasons": self.reasons, **self._resumed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.best = state_dict["best"]
        self.reasons = list(state_dict.get("reasons", []))
        own = ("best", "reasons")
        self._resumed = {key: value for key, value in state_dict.items() if key not in own}

    def on_save_checkpoint(
        self, _trainer: pl.Trainer, _module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the settings that a resumed run cannot change."""
        checkpoint[TRAINING_KEY] = self.fixed

    def on_fit_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Compare with the part before, if this one is resumed."""
        here, there = circumstances(trainer), self._resumed
        refuse_other_data(here, there)
        found = [*self.reasons, *irreproducible(trainer), *changes(trainer, here, there)]
        self.reasons = list(dict.fromkeys(found))
        self._resumed = here

    def on_train_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Take over the signals."""
        self._saved = time.monotonic()
        self._signal = 0
        self._requeues = requeue_signal(trainer)
        for number in filter(None, (signal.SIGINT, signal.SIGTERM, self._requeues)):
            self._handlers[number] = signal.signal(number, self._note)

    def on_train_end(self, _trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Give the signals back."""
        self._release()

    def on_exception(
        self, _trainer: pl.Trainer, _module: pl.LightningModule, _error: BaseException
    ) -> None:
        """Give the signals back."""
        self._release()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, _out: Any, _batch: Any, index: int
    ) -> None:
        """Keep `last` if it is time to, and end if a signal came.

        Where max_steps ends the training within an epoch, have the last weights validated.
        """
        if 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True
        # Elsewhere something is under way that a checkpoint does not hold.
        if not _between_steps(trainer, index):
            return
        if trainer.world_size > 1 and trainer.global_step % AGREE_EVERY:
            return
        due = time.monotonic() - self._saved > SAVE_SECONDS
        signalled, due = _of_any_device(trainer, self._signal, due)
        if signalled and not cast("SegmentationModule", pl_module).is_settled:
            self._write(trainer, "last")  # to settle takes seconds, and what sent it may not wait
        if signalled or due:
            self._keep(trainer, pl_module, "last")
        if signalled:
            self._end(trainer, signalled)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep `last`, unless gradients are being accumulated: a checkpoint does not hold them.

        Here the clocks of validations run already: this is part of what one takes.
        """
        if not _trains(trainer) or _accumulates(trainer):
            return
        self._keep(trainer, pl_module, "last")
        signalled, _ = _of_any_device(trainer, self._signal, False)
        if signalled:
            self._end(trainer, signalled)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """End a validation at once if `last` holds its weights."""
        kept = trainer.global_step == self._kept_step
        if self._signal and kept and trainer.world_size == 1:
            self._end(trainer, self._signal)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the new validation Dice; write `best` where the epoch goes on with other weights."""
        if not _trains(trainer):
            return
        self._fresh = float(trainer.callback_metrics["val/dice"])
        progress = trainer.fit_loop.epoch_loop.batch_progress.current
        if progress.ready < trainer.num_training_batches and self._is_best():
            self._keep(trainer, pl_module, "best")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write `best` if these weights were validated and are the best, and `last`."""
        # `last` knows the best Dice: written first, it would keep a run that is killed between the
        # two from ever writing `best`. The one from before the validation begins with it.
        for name in ("best", "last") if self._is_best() else ("last",):
            self._keep(trainer, pl_module, name)
        signalled, _ = _of_any_device(trainer, self._signal, False)
        if signalled and not trainer.should_stop:
            self._end(trainer, signalled)
        if trainer.current_epoch + 1 == self.pause_after and not trainer.should_stop:
            raise Paused

    def _is_best(self) -> bool:
        """Return whether the new Dice, if there is one, is the best, and take it in."""
        fresh, self._fresh = self._fresh, None
        better = fresh is not None and (self.best is None or fresh > self.best)
        if better:
            self.best = fresh
        return better

    def _keep(self, trainer: pl.Trainer, module: pl.LightningModule, name: str) -> None:
        cast("SegmentationModule", module).settle()
        self._write(trainer, name)

    def _write(self, trainer: pl.Trainer, name: str) -> None:
        """Write a checkpoint.

        Raises:
            DivergenceError: If the loss was no number: the one that is there stays.
            CheckpointError: If it cannot be written.
        """
        self.finite.look(trainer)
        path = self.folder / f"{name}.ckpt"
        if trainer.is_global_zero:
            try:
                with whole_checkpoint(path) as temporary:
                    trainer.save_checkpoint(temporary)
            except OSError as error:
                raise CheckpointError(f"{path} cannot be written: {error}") from error
        else:
            trainer.save_checkpoint(path)  # gathers and waits; only the first device writes
        self._saved = time.monotonic()
        if name == "last":
            self._kept_step = trainer.global_step

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal:
            raise KeyboardInterrupt
        self._signal = number

    def _end(self, trainer: pl.Trainer, number: int) -> None:
        if number == self._requeues and trainer.is_global_zero:
            requeue()
        log.info("interrupted; go on with --run_dir %s --ckpt_path last", self.folder.parent)
        raise KeyboardInterrupt if number == signal.SIGINT else SIGTERMException

    def _release(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())


def _of_any_device(trainer: pl.Trainer, number: int, due: bool) -> tuple[int, bool]:
    """Return the signal and the due save of whichever device has one: all act together."""
    if trainer.world_size == 1:
        return number, due
    both = torch.tensor([number, due], device=trainer.strategy.root_device)
    torch.distributed.all_reduce(both, torch.distributed.ReduceOp.MAX)
    return int(both[0]), bool(both[1])


def _trains(trainer: pl.Trainer) -> bool:
    """Return whether this is a training, not a trial or a validation of its own."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _accumulates(trainer: pl.Trainer) -> bool:
    """Return whether gradients wait for further batches before a step is taken."""
    batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    ends = batches >= trainer.num_training_batches
    return batches % trainer.accumulate_grad_batches != 0 and not ends


def _between_steps(trainer: pl.Trainer, index: int) -> bool:
    """Return whether no gradient is being accumulated, and neither validation nor epoch end due."""
    after = index + 1
    batches, every = trainer.num_training_batches, trainer.val_check_batch
    ends = after >= batches or trainer.should_stop
    validates = isinstance(every, int) and every < batches and after % every == 0
    return after % trainer.accumulate_grad_batches == 0 and not ends and not validates
