"""What a training cannot be asked to do, told in words before it starts."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from medseg.core.errors import OptionError
from medseg.data.datamodule import SegmentationData
from medseg.training.module import SegmentationModule


def refuse_flags(verb: str, chosen: Any) -> None:
    """Refuse flags of a verb that mean nothing, or nothing together.

    Args:
        verb: `fit` or `validate`.
        chosen: Its settings.

    Raises:
        OptionError: In words, with the way out.
    """
    if verb == "fit" and chosen.norm_statistics != "running":
        raise OptionError(
            "--norm_statistics is for validate: a training validates with running statistics."
        )
    if chosen.find_learning_rate and chosen.ckpt_path:
        raise OptionError(
            "--find_learning_rate is for the start of a training; a resumed one keeps its "
            "learning rate. Drop --find_learning_rate or --ckpt_path."
        )
    if verb == "fit":
        _refuse_partial_epochs(chosen.trainer)


def _refuse_partial_epochs(trainer: Any) -> None:
    """Refuse flags that cut epochs short: patches are numbered through whole ones."""
    limit, overfit = trainer.limit_train_batches, trainer.overfit_batches
    whole = limit is None or (isinstance(limit, float) and limit == 1)
    flag = f"limit_train_batches {limit}" if not whole else f"overfit_batches {overfit}"
    if not whole or overfit:
        raise OptionError(
            f"--trainer.{flag} would cut epochs off in the middle of their patches, which are "
            "numbered through. Take --data.steps_per_epoch for shorter epochs, --data.train_folds "
            "or a smaller manifest for fewer cases."
        )


def refuse_precision(trainer: pl.Trainer, module: SegmentationModule) -> None:
    """Refuse averaged weights that would stand still.

    Raises:
        OptionError: In words, with the way out.
    """
    if module.averaged is not None and trainer.precision in ("16-true", "bf16-true"):
        raise OptionError(
            f"--trainer.precision {trainer.precision} cannot hold the small steps of averaged "
            f"weights. Take --trainer.precision {str(trainer.precision).split('-')[0]}-mixed, "
            "or --model.ema_decay 0."
        )


def refuse_devices(trainer: pl.Trainer, module: SegmentationModule, data: SegmentationData) -> None:
    """Refuse what cannot be trained on these devices.

    Raises:
        OptionError: In words, with the way out.
    """
    devices, cases = trainer.world_size, len(data.val_cases)
    if devices > cases:
        raise OptionError(
            f"each device validates cases of its own: {cases} validation cases allow at most "
            f"{cases} devices; got {devices}. Set --trainer.devices."
        )
    device = trainer.strategy.root_device.type
    if devices > 1 and module.description.norm == "sync_batch" and device != "cuda":
        raise OptionError(
            f"sync_batch needs GPUs (PyTorch's SyncBatchNorm); got {devices} of kind {device}. "
            "Take --model.norm group or instance, which do not depend on the batch."
        )
