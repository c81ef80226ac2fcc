"""What a training leaves behind: curves and a record."""

from __future__ import annotations

import csv
import logging
import platform
import time
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from medseg.core import environment
from medseg.core.runs import RunFiles, atomic_text, write_json
from medseg.io.memory import peak_bytes
from medseg.training.budget import DivergenceError, budget_record
from medseg.training.checkpoints import Checkpoints
from medseg.training.module import SegmentationModule
from medseg.training.postprocessing import PostprocessingLearner
from medseg.training.probes import Probes
from medseg.training.time_shares import time_record

log = logging.getLogger("medseg")


class Curves(Callback):
    """Write metrics.csv: a row for each epoch, and for each validation within one.

    A resumed run goes on where its checkpoint was.

    Args:
        path: The file.
        probes: Knows the Dice of training patches, if anything does.
    """

    def __init__(self, path: Path, probes: Probes | None = None) -> None:
        self.path = path
        self.probes = probes
        self.rows: list[dict[str, Any]] = []
        self.spent = 0.0
        self.started = 0.0
        self._loss: Tensor | float = 0.0
        self._batches = 0
        self._figures: dict[str, float] = {}
        self._validating = 0.0
        self._validation_seconds = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Keep the seconds and rows so far, and what is known of the row to come."""
        return {
            "seconds": self.seconds,
            "validation_seconds": self._validation_seconds,
            "rows": self.rows,
            "loss": float(self._loss),
            "batches": self._batches,
            "figures": self._figures,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.spent, self.rows = float(state_dict["seconds"]), list(state_dict["rows"])
        self._validation_seconds = float(state_dict.get("validation_seconds", 0.0))
        self._loss, self._batches = state_dict.get("loss", 0.0), state_dict.get("batches", 0)
        self._figures = dict(state_dict.get("figures", {}))

    @property
    def seconds(self) -> float:
        """Seconds of training so far, over all resumes; validation included."""
        return self.spent + (time.monotonic() - self.started if self.started else 0.0)

    def on_train_start(self, _trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def on_train_end(self, _trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Stop the clock: what follows is no training."""
        self.spent, self.started = self.seconds, 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, _batch: Any, _index: int
    ) -> None:
        """Add a row for a validation that the epoch went on after."""
        if self._figures:
            self._add(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, _module: pl.LightningModule, out: Any, _batch: Any, _index: int
    ) -> None:
        """Add up the loss: what Lightning adds up itself is lost where an epoch is cut in two."""
        self._loss = self._loss + out["loss"] * trainer.accumulate_grad_batches
        self._batches += 1

    def on_validation_start(self, _trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Start the clock of a validation."""
        self._validating = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Note the figures of the row to come; Lightning keeps the last ones for ever."""
        metrics = trainer.callback_metrics
        self._figures = {k: float(v) for k, v in metrics.items() if k.startswith("val/")}
        self._validation_seconds += time.monotonic() - self._validating

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add a row."""
        if self.rows and self.rows[-1]["step"] == trainer.global_step:
            return  # resumed from the end of this epoch, which Lightning ends once more
        self._add(trainer, pl_module)

    def _add(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add a row of what happened since the last one."""
        pl_module.log("train/loss", self._loss / self._batches)
        metrics = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if not name.startswith("val/")
        } | self._figures
        self._loss, self._batches, self._figures = 0.0, 0, {}
        row: dict[str, Any] = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "seconds": round(self.seconds, 3),
            "train_seconds": round(self.seconds - self._validation_seconds, 3),
            "samples": _samples(trainer),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            **metrics,
        }
        if self.probes and (dice := self.probes.take_train_dice()) is not None:
            row["train/dice"] = dice
        self.rows.append(row)
        if trainer.is_global_zero:
            self._write()
            shown = " ".join(f"{k} {row[k]:.4f}" for k in ("train/loss", "val/dice") if k in row)
            log.info(
                "epoch %d, %d steps, %.0f s: %s", row["epoch"], row["step"], row["seconds"], shown
            )

    def _write(self) -> None:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with atomic_text(self.path) as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


class Record(Callback):
    """Write fit.json when the training ends.

    Args:
        files: The run's files.
        curves: Knows the seconds.
        checkpoints: Knows the best Dice.
        learner: Knows the post-processing.
    """

    def __init__(
        self,
        files: RunFiles,
        curves: Curves,
        checkpoints: Checkpoints,
        learner: PostprocessingLearner,
    ) -> None:
        self.files = files
        self.curves = curves
        self.checkpoints = checkpoints
        self.learner = learner

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the record of a training that came to its end."""
        self._write(trainer, pl_module, interrupted=False)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, error: BaseException
    ) -> None:
        """Write the record of a training that diverged, or was cut off after its first epoch."""
        diverged = str(error) if isinstance(error, DivergenceError) else ""
        if self.curves.rows or diverged:
            self._write(trainer, pl_module, interrupted=True, diverged=diverged)

    def _write(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        interrupted: bool,
        diverged: str = "",
    ) -> None:
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        module = cast("SegmentationModule", pl_module)
        task = module.description.task
        content = {
            "name": self.files.run_dir.name,
            "norm": module.description.norm,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "interrupted": interrupted,
            "diverged": diverged,
            "seconds": round(self.curves.seconds, 1),
            "steps": trainer.global_step,
            "epochs": trainer.current_epoch,
            "samples": _samples(trainer),
            "batch_size": data.batch_size,
            "peak_memory_mib": round(_peak_memory_mib(pl_module.device), 1),
            "parameters": sum(p.numel() for p in module.network.parameters()),
            "best_val_dice": self.checkpoints.best,
            **budget_record(trainer),
            **time_record(trainer),
            "postprocessing": self.learner.record,
            "device": _device_name(pl_module.device),
            "precision": str(trainer.precision),
            "threads": torch.get_num_threads(),
            "devices": trainer.world_size,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "reproducible": not self.checkpoints.reasons,
            "irreproducible_because": self.checkpoints.reasons,
            "platform": platform.platform(),
            "seed": data.seed,
            "data_set": data.manifest.name,
            "manifest": str(data.manifest.path),
            "root": str(data.manifest.root),
            "data_digest": data.manifest.digest,
            "fold": data.fold,
            "train_folds": sorted({case.fold for case in data.train_cases}),
            "train_cases": len(task["train_cases"]),
            "val_cases": len(task["val_cases"]),
            "versions": environment.versions(),
            "git_commit": environment.git_commit(),
        }
        write_json(self.files.fit, content)


def _samples(trainer: pl.Trainer) -> int:
    """Return the patches seen so far."""
    batch_size = int(trainer.datamodule.batch_size)  # type: ignore[attr-defined]
    # Batches, not steps times accumulate_grad_batches: the last step of an epoch may have fewer.
    batches = int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)
    return batches * batch_size * trainer.world_size


def _peak_memory_mib(device: torch.device) -> float:
    """Return the peak of the GPU's allocator, or of this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_bytes() / 2**20


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
