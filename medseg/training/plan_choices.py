"""Every setting of a planned configuration, with its reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg.training import plan_rules as rules
from medseg.training.plan_draft import VALIDATION_SHARE, Draft
from medseg.training.plan_fit import SMALLER_IS_BETTER, cost_words
from medseg.training.plan_options import PlanOptions

EMA_SPAN = 3.0
"""The averaged weights look back over this part of the training: a third of its steps."""


@dataclass(frozen=True)
class Choice:
    """One setting.

    Attributes:
        key: Dotted, as on the command line of `medseg fit`.
        value: Of YAML's kinds.
        reason: Why.
    """

    key: str
    value: Any
    reason: str


def choices(draft: Draft, options: PlanOptions) -> list[Choice]:
    """Return all settings in the order of the file."""
    return [
        Choice("seed_everything", 0, "equal seeds give equal draws"),
        *_of_trainer(draft),
        *_of_model(draft, options),
        *_of_data(draft, options),
    ]


def _of_trainer(draft: Draft) -> Iterator[Choice]:
    cuda = draft.machine.device == "cuda"
    yield Choice("trainer.accelerator", "gpu" if cuda else "cpu", "--device")
    yield Choice("trainer.devices", 1, "for several see docs/training.md")
    yield Choice("trainer.precision", draft.job.precision, _precision_reason(draft))
    yield Choice("trainer.max_epochs", -1, "time alone bounds the training")
    yield Choice("trainer.max_time", max_time(draft.machine.seconds),
                 "--time; the learning rate ends where the time ends")  # fmt: skip
    yield Choice("trainer.check_val_every_n_epoch", 1, "see data.steps_per_epoch")
    yield Choice("trainer.gradient_clip_val", 12.0,
                 "on the norm of all gradients; nnU-Net's value")  # fmt: skip


def _precision_reason(draft: Draft) -> str:
    if draft.machine.device == "cuda":
        return "mixed precision: half the memory, and the fast units of the GPU"
    if draft.job.precision == "bf16-mixed":
        return "bfloat16 was measured to be faster on this CPU than float32"
    return "bfloat16 was not measured to be 1.2 times faster on this CPU"


def _of_model(draft: Draft, options: PlanOptions) -> Iterator[Choice]:
    job, network = draft.job, draft.job.architecture
    named = "--norm" if options.norm != "auto" else (
        f"batch {job.batch_size}: up to {rules.SMALL_BATCH} instance, from {rules.LARGE_BATCH} "
        "batch norm, group between; a convention, which medseg study tests on your data"
    )  # fmt: skip
    yield Choice("model.norm", job.norm, named)
    if job.norm.startswith("group"):
        yield Choice("model.norm_groups", job.norm_groups, "--norm_groups")
    over = "over a third of the steps that the time allows" if draft.steps else (
        "over about 1000 steps: how many the time allows is not known"
    )  # fmt: skip
    yield Choice("model.ema_decay", ema_decay(draft.steps), f"averaged weights, {over}")
    spacing = ", ".join(f"{length:g}" for length in draft.spacing)
    yield Choice("model.network.channels", list(network.channels),
                 f"{'32 on a GPU' if job.device == 'cuda' else '16 on a CPU'} at the finest level, "
                 "doubled at each")  # fmt: skip
    yield Choice("model.network.strides", network.strides,
                 f"an axis is halved while it is at most twice as coarse as the finest ({spacing} "
                 f"mm) and keeps {rules.SMALLEST_BOTTLENECK} voxels")  # fmt: skip
    yield Choice("model.network.kernels", network.kernels,
                 "1 along an axis more than twice as coarse as the finest, 3 from the first level "
                 "on where it is not")  # fmt: skip
    if network.activation_checkpointing:
        yield Choice("model.network.activation_checkpointing", True,
                     "computes levels again in backward, one more forward pass: the memory did not "
                     "suffice without")  # fmt: skip
    plain = job.norm == "none"
    yield Choice("model.optimization.learning_rate", 1e-3 if plain else 3e-3,
                 "AdamW; smaller than with a norm, to be safe" if plain else
                 "AdamW; the rate of docs/training.md")  # fmt: skip


def _of_data(draft: Draft, options: PlanOptions) -> Iterator[Choice]:
    job, manifest = draft.job, draft.manifest
    yield Choice("data.manifest", str(options.manifest), "--manifest")
    if options.root is not None:
        yield Choice("data.root", str(options.root), "--root")
    yield Choice("data.fold", options.fold,
                 f"{len(draft.val_cases)} cases to validate on; {len(draft.train_cases)} to train "
                 "on, of which alone this plan was made")  # fmt: skip
    if draft.train_folds is not None:
        yield Choice(
            "data.train_folds", draft.train_folds, "folds of which no file is here are left out"
        )
    yield Choice("data.patch_size", list(job.patch_size), _patch_reason(draft))
    yield Choice("data.batch_size", job.batch_size, _batch_reason(options))
    share = f"to spend {VALIDATION_SHARE:.0%} of the time on it" if draft.steps else (
        "nnU-Net's epoch: how long a step takes is not known"
    )  # fmt: skip
    yield Choice("data.steps_per_epoch", draft.steps_per_epoch, f"then validation, {share}")
    yield Choice("data.num_workers", workers(job.device), "loader processes" if job.device == "cuda"
                 else "patches are ready in no time; the cores are busy")  # fmt: skip
    yield Choice("data.preprocessing.spacing", list(draft.spacing), "--spacing" if options.spacing
                 else "the median of the training images, along a very coarse axis the 10th "
                 f"percentile; they have {_range(draft)}")  # fmt: skip
    scaled = [rules.intensity(channel) for channel in draft.facts.channels]
    yield Choice("data.preprocessing.intensity", [value for value, _ in scaled],
                 "; ".join(reason for _, reason in scaled))  # fmt: skip
    axes, reason = rules.flip_axes(manifest.class_names[1:], draft.facts.mirrored)
    yield Choice("data.augmentation.flip_axes", axes, reason)
    yield Choice("data.augmentation.affine", 0.5, "half the patches are turned and scaled")


def _patch_reason(draft: Draft) -> str:
    median = draft.facts.median_shape(draft.spacing).round().astype(int)
    words = f"{draft.covered:.0%} of the median image, {tuple(map(int, median))} voxels"
    if draft.covered < 1:
        words += f"; the next larger one did not fit the {draft.limit}"
        if draft.covered < SMALLER_IS_BETTER:
            words += ", and a coarser --spacing would show the network more of the body at once"
    return f"{words}. {cost_words(draft.cost)}"


def _batch_reason(options: PlanOptions) -> str:
    why = "--batch_size" if options.batch_size else "what memory, time and 5 % of the data allow"
    return f"{why}. Another batch size changes what batch norm computes, not the other norms"


def _range(draft: Draft) -> str:
    spacings = np.asarray(draft.facts.spacings)
    low, high = spacings.min(axis=0), spacings.max(axis=0)
    return " x ".join(
        f"{a:.3g}" if np.isclose(a, b) else f"{a:.3g} to {b:.3g}"
        for a, b in zip(low, high, strict=True)
    ) + " mm"  # fmt: skip


def ema_decay(steps: int | None) -> float:
    """Return the decay of averaged weights for a training of so many steps."""
    if not steps:
        return 0.999
    return float(np.clip(round(1 - EMA_SPAN / steps, 4), 0.9, 0.999))


def max_time(seconds: int) -> str:
    """Return a duration as Lightning writes it, DD:HH:MM:SS."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    return f"{day:02d}:{hour:02d}:{minute:02d}:{second:02d}"


def workers(device: str) -> int:
    """Return the loader processes that keep a device busy: none where it needs the cores itself."""
    return min(4, max((os.cpu_count() or 1) - 1, 0)) if device == "cuda" else 0
