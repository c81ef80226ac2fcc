"""What is watched while a network trains: its loss, its gradients, and the way ahead of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from medseg.core.runs import write_json
from medseg.training.landscape import PASSES, Landscape, along_gradient
from medseg.training.loss import supervised_loss
from medseg.training.module import SegmentationModule
from medseg.training.schedule import training_progress
from medseg.training.validation import confusion, dice_of_table

LOOKS = 10
"""Looks along the gradient in one training, evenly spread."""

LARGEST_SHARE = 0.04
"""Of the passes that looks may add. What is noted of every step takes less than a hundredth of it;
`share` in the file is what all of it took, measured."""

DICE_EVERY = 4
"""Batches of an epoch of which one tells the Dice of patches; curves need it once an epoch."""

SPIKE = 10.0
"""A gradient so many times its running median is a spike."""

MEDIAN_OF = 101
"""Steps behind the running median."""


class Probes(Callback):
    """Watch a training without changing it, and write probes.json at its end.

    Args:
        path: The file.

    Attributes:
        seconds: That watching took; of what a GPU does in a step beside it only the giving out.
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
        self._weights: list[nn.Parameter] = []

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
        self._started = time.monotonic()
        module = cast("SegmentationModule", pl_module)
        with self._counted():
            module.shows_logits = True
            data = trainer.datamodule  # type: ignore[attr-defined]
            batch = next(data.fixed_batches(1))
            self._batch = {name: batch[name].to(module.device) for name in ("image", "label")}
            self._weights = [p for p in module.parameters() if p.requires_grad]
            self._table = None

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Note the norm of the gradients, before they are clipped."""
        with self._counted():
            found = [p.grad for p in self._weights if p.grad is not None]
            norms = torch.stack(torch._foreach_norm(found))  # noqa: SLF001 - in one call
            self.gradients.append(torch.linalg.vector_norm(norms).float().reshape(1))

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        index: int,
    ) -> None:
        """Note the loss and what the patches' labels became; now and then look ahead."""
        module = cast("SegmentationModule", pl_module)
        with self._counted():
            self.losses.append(outputs["loss"].detach().float().reshape(1))
            if index % DICE_EVERY == 0:
                seen = outputs["logits"].argmax(1)
                table = confusion(seen, batch["label"], len(module.class_names))
                self._table = table if self._table is None else self._table + table
        if self._is_due(trainer):
            if module.device.type == "cuda":
                torch.cuda.synchronize()  # what is still to be done is the training's
            with self._counted():
                self._look(trainer, module)

    def take_train_dice(self) -> float | None:
        """Return Dice over the voxels of the patches since the last call, mean over classes."""
        with self._counted():
            table, self._table = self._table, None
            if table is None:
                return None
            return float(dice_of_table(table).nanmean().nan_to_num(0.0))

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Add what is done within to the seconds that watching takes."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - begun

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
