"""The learning-rate range test (Smith 2017, arXiv 1506.01186), in the setting of the training."""

from __future__ import annotations

import copy
import csv
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.seed import isolate_rng

from medseg.core.errors import MedsegError
from medseg.core.runs import atomic_text
from medseg.data.datamodule import SegmentationData
from medseg.training.module import SegmentationModule

STEPS = 100
LOWEST, HIGHEST = 1e-6, 1.0

DIVERGED = 4.0
"""Times the least smoothed loss at which the test ends; fastai's and Lightning's factor."""

SMOOTHING = 0.9
"""Weight of the past in the running mean of the loss, which lags about ten steps; for the eye."""

HALF_WINDOW = 8
"""Steps on either side of the one whose slope is taken, by least squares: half a decade."""

SETTINGS = ("accelerator", "devices", "precision", "gradient_clip_val", "deterministic",
            "gradient_clip_algorithm", "accumulate_grad_batches", "benchmark")  # fmt: skip
"""Flags of the trainer that the test shares with the training."""

log = logging.getLogger("medseg")


@dataclass(frozen=True)
class RangeTest:
    """What a range test measured.

    Attributes:
        rates: Learning rate of each step, rising.
        losses: Loss of each step.
    """

    rates: Sequence[float]
    losses: Sequence[float]

    @property
    def smoothed(self) -> list[float]:
        """Running mean of the losses, corrected for its start."""
        mean, out = 0.0, []
        for step, loss in enumerate(self.losses, start=1):
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            out.append(mean / (1 - SMOOTHING**step))
        return out

    @property
    def diverged(self) -> bool:
        """Whether the last loss is no number, or far above the least."""
        last = self.smoothed[-1] if self.losses else 0.0
        return not math.isfinite(last) or last > DIVERGED * min(self.smoothed)

    def suggestion(self) -> float:
        """Return the rate at which the loss falls fastest, before it is least.

        A network whose norms make it blind to the scale of its weights seldom diverges, so the
        rate of the least loss says little; its steepest descent is well marked.

        Raises:
            MedsegError: If the loss never fell.
        """
        finite = [value for value in self.losses if math.isfinite(value)]
        places = range(HALF_WINDOW, len(finite) - HALF_WINDOW)
        offsets = np.arange(-HALF_WINDOW, HALF_WINDOW + 1)
        slopes = {
            place: float(offsets @ finite[place - HALF_WINDOW : place + HALF_WINDOW + 1])
            for place in places
        }
        place = min(slopes, key=slopes.__getitem__, default=0)
        if slopes.get(place, 0.0) >= 0:
            raise MedsegError(
                "the loss did not fall at any learning rate of the range test; look at "
                "learning_rate.csv, and at the data (`medseg check`)."
            )
        return float(f"{self.rates[place]:.2g}")

    def table(self, rows: int = 12) -> str:
        """Return the smoothed loss over the rate as lines of text, a bar each."""
        smoothed = self.smoothed
        places = sorted({round(i * (len(smoothed) - 1) / (rows - 1)) for i in range(rows)})
        shown = [(self.rates[p], smoothed[p]) for p in places if math.isfinite(smoothed[p])]
        top = max((loss for _, loss in shown), default=1.0)
        return "\n".join(
            f"{rate:9.2e} {loss:8.4f} {'#' * round(40 * max(loss, 0) / top)}"
            for rate, loss in shown
        )

    def write(self, path: Path) -> None:
        """Write the curve: learning_rate, loss, smoothed_loss."""
        with atomic_text(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["learning_rate", "loss", "smoothed_loss"])
            writer.writerows(zip(self.rates, self.losses, self.smoothed, strict=True))


class _Rise(Callback):
    """Raise the learning rate from step to step, and end at divergence."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._loss = 0.0

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, _module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Set the rate, after the schedule and before the step."""
        del trainer
        place = len(self.rates)
        self.rates.append(LOWEST * (HIGHEST / LOWEST) ** (place / max(self.steps - 1, 1)))
        for group in optimizer.param_groups:
            group["lr"] = self.rates[-1]

    def on_train_batch_end(
        self, trainer: pl.Trainer, _module: pl.LightningModule, out: Any, _batch: Any, _index: int
    ) -> None:
        """Add up the loss of the batches behind one step, note it with the step; end at divergence.

        Each comes divided by their number, and not by float16's loss scale, as it is in backward.
        """
        self._loss += float(out["loss"])
        if len(self.losses) == len(self.rates):
            return
        self.losses.append(self._loss)
        self._loss = 0.0
        if RangeTest(self.rates, self.losses).diverged:
            trainer.should_stop = True


def find_learning_rate(
    module: SegmentationModule,
    data: SegmentationData,
    settings: dict[str, Any],
    steps: int = STEPS,
) -> RangeTest:
    """Train a copy of the module at a rising learning rate.

    The module, its weights, the random state and the numbering of patches stay as they are: the
    copy has its own trainer.

    Args:
        module: To be trained.
        data: Its patches.
        settings: The training's flags of the trainer; those of `SETTINGS` are taken.
        steps: Optimizer steps.
    """
    rise = _Rise(steps)
    trainer = pl.Trainer(
        **{name: settings[name] for name in SETTINGS if settings.get(name) is not None},
        max_steps=steps,
        max_epochs=-1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[rise],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with isolate_rng():
        trainer.fit(copy.deepcopy(module), datamodule=data)
    return RangeTest(rise.rates, rise.losses)


def suggest_learning_rate(
    module: SegmentationModule, data: SegmentationData, settings: dict[str, Any], run_dir: Path
) -> float:
    """Run the range test, keep and show its curve, and return its suggestion.

    Raises:
        MedsegError: If the loss never fell.
    """
    test = find_learning_rate(module, data, settings)
    path = run_dir / "learning_rate.csv"
    test.write(path)
    log.info("range test, learning rate and smoothed loss (%s):\n%s", path, test.table())
    found = test.suggestion()
    log.info("suggested --model.optimization.learning_rate %g; set: %g", found,
             module.optimization.learning_rate)  # fmt: skip
    return found
