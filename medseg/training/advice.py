"""What the settings of a training do that its figures will not show; said before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping

from medseg.data.datamodule import SegmentationData
from medseg.data.sides import sided
from medseg.networks.norms import NORMS
from medseg.training.module import SegmentationModule
from medseg.training.schedule import Schedule

SMALL_BATCH = 8
"""Batch norm's error rises below about so many samples (Wu & He 2018, arXiv 1803.08494, fig. 1)."""

WARM_UP = 50
"""Batches after which batch norm's initial statistics are all but forgotten (0.9 ** 44 is 1 %)."""


@dataclass(frozen=True)
class Settings:
    """The settings that are looked at.

    Attributes:
        norm: A row of the norm registry.
        batch_size: Patches in one forward pass on one device.
        devices: Devices that train together.
        accumulate: Batches behind one optimizer step.
        steps_per_epoch: Batches in an epoch.
        schedule: Of the learning rate.
        early_stopping: Whether the training may end before its schedule does.
        first_validation: Batches before it.
        averaged: Whether a moving average of the weights is judged; its statistics are measured.
        started: Whether the weights come from another run, or an earlier part of this one.
        mirrored_sides: Classes with a side in their name, where left and right are mirrored.
    """

    norm: str
    batch_size: int
    devices: int
    accumulate: int
    steps_per_epoch: int
    schedule: Schedule
    early_stopping: bool
    first_validation: int = WARM_UP
    averaged: bool = False
    started: bool = False
    mirrored_sides: Sequence[str] = ()


def settings_of(
    trainer: pl.Trainer, module: SegmentationModule, data: SegmentationData, started: bool
) -> Settings:
    """Return the settings of a training that is about to start; see `Settings`."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return Settings(
        norm=module.description.norm,
        batch_size=data.batch_size,
        devices=trainer.world_size,
        accumulate=trainer.accumulate_grad_batches,
        steps_per_epoch=data.steps_per_epoch,
        schedule=module.optimization.schedule,
        early_stopping=any(isinstance(callback, EarlyStopping) for callback in callbacks),
        first_validation=data.steps_per_epoch * (trainer.check_val_every_n_epoch or 1),
        averaged=module.averaged is not None,
        started=started,
        mirrored_sides=sided(module.class_names) if 0 in data.task["mirror_axes"] else (),
    )


def advice(settings: Settings) -> list[str]:
    """Return one sentence for each setting that a user should know about; often none."""
    found = []
    batch_dependent = NORMS[settings.norm].batch_dependent
    shared = settings.devices if settings.norm == "sync_batch" else 1
    batch = settings.batch_size * shared
    joined = NORMS[settings.norm].values(batch, 1, 1, 1) if settings.norm == "ghost" else batch
    if settings.norm == "batch_frozen" and not settings.started:
        found.append(
            "norm 'batch_frozen' never moves its statistics, and fresh ones normalize nothing: "
            "it is for weights of a batch-norm run. Give --init_from, or take --model.norm "
            "instance or group."
        )
    if settings.devices > 1 and batch_dependent and settings.norm != "sync_batch":
        found.append(
            f"norm {settings.norm!r} takes its statistics on each of {settings.devices} devices "
            "alone: --model.norm sync_batch joins them, instance and group do not need it."
        )
    if batch_dependent and settings.accumulate > 1:
        found.append(
            f"norm {settings.norm!r} takes its statistics over {_patches(joined, batch)}, "
            f"not over the {batch * settings.accumulate} behind a step: accumulated gradients do "
            "not enlarge its batch. Take --model.norm instance or group, or a larger "
            "--data.batch_size."
        )
    elif batch_dependent and joined < SMALL_BATCH:
        found.append(
            f"norm {settings.norm!r} over {_patches(joined, batch)}: its error rises below about "
            f"{SMALL_BATCH} samples (Wu & He 2018, on photographs; a 3D patch has more voxels to "
            "average over). Compare with --model.norm instance or group, which do not depend on "
            "the batch."
        )
    running = NORMS[settings.norm].eval_differs and not settings.averaged
    if running and settings.first_validation < WARM_UP:
        found.append(
            f"norm {settings.norm!r} is first validated after {settings.first_validation} batches: "
            f"before about {WARM_UP} its running statistics still hold part of their initial "
            "values, and Dice is not that of the weights. Take a larger --data.steps_per_epoch or "
            "--trainer.check_val_every_n_epoch, or --model.norm instance or group."
        )
    if settings.steps_per_epoch % settings.accumulate:
        left = settings.steps_per_epoch % settings.accumulate
        found.append(
            f"data.steps_per_epoch {settings.steps_per_epoch} is no multiple of "
            f"trainer.accumulate_grad_batches {settings.accumulate}: the last step of each epoch "
            f"has the gradients of {left} batches only, divided by {settings.accumulate}."
        )
    if settings.early_stopping and settings.schedule != "constant":
        found.append(
            f"early stopping with the {settings.schedule} schedule ends the training at a high "
            "learning rate, before the part in which the weights settle. Bound the time instead "
            "(--trainer.max_time), or take --model.optimization.schedule constant."
        )
    if settings.mirrored_sides:
        found.append(
            f"left and right are mirrored (data.augmentation.flip_axes has axis 0), though "
            f"{', '.join(settings.mirrored_sides)} have a side: a mirrored image carries the wrong "
            "class. Take 0 out of data.augmentation.flip_axes."
        )
    return found


def _patches(joined: int, batch: int) -> str:
    """Name the patches that are normalized together."""
    whole = f"the {batch} patches of a batch" if batch > 1 else "the one patch of a batch"
    return whole if joined == batch else f"{joined} of {whole}"
