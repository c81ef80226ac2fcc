"""What is watched while a network trains: its loss, its gradients, and the way ahead of them."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from medseg.core.runs import write_json
from medseg.training.landscape import PASSES, Landscape, along_gradient
from medseg.training.loss import supervised_loss
from medseg.training.module import SegmentationModule, confusion, dice_of_table
from medseg.training.schedule import training_progress

LOOKS = 10
"""Looks along the gradient in one training, evenly spread."""

LARGEST_SHARE = 0.04
"""Of the passes that looks may add; what else is watched takes less than a hundredth more."""

SPIKE = 10.0
"""A gradient so many times its running median is a spike."""

MEDIAN_OF = 101
"""Steps behind the running median."""


class Probes(Callback):
    """Watch a training without changing it, and write probes.json at its end.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.losses: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.looks: list[dict[str, float]] = []
        self.seconds = 0.0
        self.spent = 0.0
        self._started = 0.0
        self._table: Tensor | None = None
        self._batch: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Keep what was seen."""
        return {
            "losses": _joined(self.losses),
            "gradients": _joined(self.gradients),
            "looks": self.looks,
            "seconds": self.seconds,
            "spent": self._spent(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.losses, self.gradients = [state_dict["losses"]], [state_dict["gradients"]]
        self.looks = list(state_dict["looks"])
        self.seconds, self.spent = float(state_dict["seconds"]), float(state_dict["spent"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask the module for its logits; keep one batch to look from."""
        module = cast("SegmentationModule", pl_module)
        module.shows_logits = True
        data = trainer.datamodule  # type: ignore[attr-defined]
        batch = next(data.fixed_batches(1))
        self._batch = {name: batch[name].to(module.device) for name in ("image", "label")}
        self._table = None
        self._started = time.monotonic()

    def on_before_optimizer_step(
        self, _trainer: pl.Trainer, module: pl.LightningModule, _optimizer: Any
    ) -> None:
        """Note the norm of the gradients, before they are clipped."""
        found = [p.grad for p in module.parameters() if p.grad is not None]
        self.gradients.append(torch.nn.utils.get_total_norm(found).detach().float().reshape(1))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, _: int
    ) -> None:
        """Note the loss and what the patches' labels became; now and then look ahead."""
        module = cast("SegmentationModule", pl_module)
        self.losses.append(outputs["loss"].detach().float().reshape(1))
        table = confusion(outputs["logits"].argmax(1), batch["label"], len(module.class_names))
        self._table = table if self._table is None else self._table + table
        if self._is_due(trainer):
            begun = time.monotonic()
            self._look(trainer, module)
            self.seconds += time.monotonic() - begun

    def take_train_dice(self) -> float | None:
        """Return Dice over the voxels of all patches since the last call, mean over classes."""
        table, self._table = self._table, None
        if table is None:
            return None
        return float(dice_of_table(table).nanmean().nan_to_num(0.0))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file."""
        self._finish(trainer, pl_module)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, _error: BaseException
    ) -> None:
        """Write what there is; a resumed run writes it anew."""
        self._finish(trainer, pl_module)

    def _finish(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        cast("SegmentationModule", module).shows_logits = False
        self.spent, self._started = self._spent(), 0.0
        if trainer.is_global_zero:
            write_json(self.path, self.record())

    def record(self) -> dict[str, Any]:
        """Return the content of the file."""
        kinds = ("loss_range", "gradient_change", "effective_beta")
        means = {kind: _mean([look[kind] for look in self.looks]) for kind in kinds}
        return {
            "roughness": roughness(_joined(self.losses).double().numpy()),
            "gradient_spikes": spikes(_joined(self.gradients).double().numpy()),
            **means,
            "steps": len(_joined(self.gradients)),
            "share": round(self.seconds / self.spent, 4) if self.spent else None,
            "series": self.looks,
        }

    def _spent(self) -> float:
        return self.spent + (time.monotonic() - self._started if self._started else 0.0)

    def _is_due(self, trainer: pl.Trainer) -> bool:
        """Return whether it is time to look: the cost stays in its share, the looks apart."""
        batches = int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)
        affordable = batches * LARGEST_SHARE >= PASSES * (len(self.looks) + 1)
        return affordable and training_progress(trainer) >= len(self.looks) / LOOKS

    def _look(self, trainer: pl.Trainer, module: SegmentationModule) -> None:
        plugin = trainer.precision_plugin
        scaler = getattr(plugin, "scaler", None)  # float16 gradients vanish without it
        scale = float(scaler.get_scale()) if scaler is not None else 1.0

        def loss_of() -> Tensor:
            with plugin.forward_context():
                heads = module.network.heads(self._batch["image"])
                return scale * supervised_loss(heads, self._batch["label"], False, module.loss)

        seen = along_gradient(module.network, loss_of, module.optimization.learning_rate)
        self.looks.append(
            {
                "step": trainer.global_step,
                "progress": round(training_progress(trainer), 4),
                **asdict(_unscaled(seen, scale)),
            }
        )


def roughness(losses: NDArray[np.float64]) -> float | None:
    """Return the SD of a loss from step to step without its trend.

    Half the mean squared difference of successive values (von Neumann 1941), in which a trend
    cancels. None where the loss was not finite, or there are too few steps.
    """
    if len(losses) < 2 or not np.isfinite(losses).all():
        return None
    return float(np.sqrt(np.mean(np.diff(losses) ** 2) / 2))


def spikes(norms: NDArray[np.float64]) -> float | None:
    """Return gradients above `SPIKE` times the median of those before them, per 1000 steps.

    A gradient that is not finite is one. None with too few steps for a median.
    """
    if len(norms) <= MEDIAN_OF:
        return None
    known = np.where(np.isfinite(norms), norms, np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(known, MEDIAN_OF)[:-1]
    after = known[MEDIAN_OF:]
    count = int((after > SPIKE * np.median(windows, axis=1)).sum())
    return 1000 * count / len(after)


def _unscaled(seen: Landscape, scale: float) -> Landscape:
    """Return a landscape of a loss that was multiplied; ratios of gradients stay."""
    return Landscape(
        seen.distance, seen.loss_range / scale, seen.gradient_change, seen.effective_beta / scale
    )


def _joined(parts: list[Tensor]) -> Tensor:
    """Return the parts as one, which takes their place: the next call has only new ones to join."""
    parts[:] = [torch.cat([part.cpu() for part in parts]) if parts else torch.zeros(0)]
    return parts[0]


def _mean(values: list[float]) -> float | None:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else None
