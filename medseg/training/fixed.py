"""What a training has fixed once it has begun: a resumed one has the same, or is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl

from medseg.data.datamodule import SegmentationData
from medseg.training.contradictions import refuse_differences
from medseg.training.module import SegmentationModule

TRAINING_KEY = "medseg_training"
"""Where a checkpoint keeps these settings."""

_ROOTS = ("seed_everything", "model", "data", "trainer")


def fixed_settings(
    trainer: pl.Trainer, module: SegmentationModule, data: SegmentationData, augmentation: Any
) -> dict[str, Any]:
    """Return what the weights of every step depend on, by flag; primitives only.

    Patch, batch, preprocessing, cases, norm and network stand in the checkpoint's description.

    Args:
        trainer: Knows precision, accumulation and clipping.
        module: Knows optimizer, schedule, loss and averaging.
        data: Knows the draws of patches.
        augmentation: As it was configured, `class_path` and `init_args` of transforms included.
    """
    clip = trainer.gradient_clip_val or None
    algorithm = getattr(trainer.gradient_clip_algorithm, "value", "norm") if clip else None
    settings = {
        "seed_everything": data.seed,
        **{f"model.optimization.{k}": v for k, v in asdict(module.optimization).items()},
        **{f"model.loss.{k}": v for k, v in asdict(module.loss).items()},
        "model.ema_decay": module.ema_decay,
        "data.steps_per_epoch": data.steps_per_epoch,
        "data.foreground": data.foreground,
        "data.augmentation": augmentation,
        "trainer.precision": str(trainer.precision),
        "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
        "trainer.gradient_clip_val": clip,
        "trainer.gradient_clip_algorithm": algorithm,
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain


def kept_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's settings by flag; older ones name some of the model's alone."""
    kept = content.get(TRAINING_KEY, {})
    return {k if k.split(".")[0] in _ROOTS else f"model.{k}": v for k, v in kept.items()}


def refuse_changes(asked: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
    """Refuse settings that differ from a checkpoint's; what an older one lacks is not compared.

    Raises:
        CheckpointError: With every difference, by flag.
    """
    refuse_differences({flag: pair for name in asked for flag, pair in _pairs(name, asked, kept)})


def _pairs(
    name: str, asked: Mapping[str, Any], kept: Mapping[str, Any], before: str = ""
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield flag, what was asked and what was kept; of groups of settings each by itself."""
    if name not in kept:
        return
    here, there = asked[name], kept[name]
    if isinstance(here, dict) and isinstance(there, dict):
        for key in here:
            yield from _pairs(key, here, there, f"{before}{name}.")
    else:
        yield f"{before}{name}", (here, there)
