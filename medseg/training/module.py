"""The Lightning module: network, loss, and the sliding window as its one inferer."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from medseg.core.errors import OptionError
from medseg.networks.checkpoint import KEY, UNSETTLED, Description, Trained
from medseg.networks.dropout import draw_channels
from medseg.networks.norms import DEFAULT_GROUPS, NORMS
from medseg.networks.norms_batch import set_progress
from medseg.networks.population import measure_population
from medseg.networks.unet import Architecture, UNet, check_architecture
from medseg.networks.window import SlidingWindow
from medseg.training.compiling import Heads, training_forward
from medseg.training.contradictions import refuse_contradictions
from medseg.training.loss import PLAIN, Loss, supervised_loss
from medseg.training.optimization import Optimization, match_strides
from medseg.training.schedule import learning_rate_factor, shared_progress
from medseg.training.validation import score_volume, slabs

log = logging.getLogger("medseg")

_DRAWS = 3
"""Sets PyTorch's draws apart from those of the data under the same seed."""

POPULATION_BATCHES = 50
"""Batches from which the batch statistics of averaged weights are measured."""


class SegmentationModule(pl.LightningModule):
    """Train a 3D U-Net for segmentation.

    Args:
        norm: Normalization layer, a row of the norm registry.
        norm_groups: Groups of group norm; must divide every level's channels.
        network: Levels, blocks and memory layout.
        optimization: Optimizer and schedule.
        loss: What is minimized.
        compile: Compile the training's forward and backward with torch.compile; minutes at the
            start, worth them on some GPUs. Validation and checkpoints are the same without.
        ema_decay: Decay of the moving average of the weights, per step; 0 is off. Keep it off when
            norms are compared: batch norm needs statistics measured anew, the others do not.
        overlap: Overlap of the sliding window in validation, in [0, 1).
        sw_batch_size: Windows in one forward pass in validation.
        skip_empty: Lay the windows over the part of the image that is not empty, and leave out
            empty ones, in validation and prediction alike: air around a body is background.
        learn_postprocessing: Find out at the end, on the validation cases, for which classes it
            helps to keep the largest component or to drop small ones; stored with the weights.
        task: Filled in from the data.
    """

    def __init__(
        self,
        norm: str = "batch",
        norm_groups: int = DEFAULT_GROUPS,
        network: Architecture = Architecture(),  # noqa: B008 - frozen
        optimization: Optimization = Optimization(),  # noqa: B008 - frozen
        loss: Loss = PLAIN,
        compile: bool = False,  # noqa: A002 - the name of the flag
        ema_decay: float = 0.0,
        overlap: float = 0.5,
        sw_batch_size: int = 2,
        skip_empty: bool = False,
        learn_postprocessing: bool = True,
        task: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not task:
            raise OptionError("model.task comes from the data; it is not an option.")
        if not 0 <= ema_decay < 1:
            raise OptionError(f"model.ema_decay must be in [0, 1); got {ema_decay}.")
        check_architecture(network, norm, norm_groups, task["patch_size"], task["batch_size"])
        self.description = Description(norm, norm_groups, network, task, overlap, skip_empty)
        self.network: UNet = self.description.build()
        self.averaged = copy.deepcopy(self.network).requires_grad_(False) if ema_decay else None
        self.ema_decay = ema_decay
        self.optimization = optimization
        self.loss = loss
        self.compiled = compile
        self._heads: Heads = self.network.heads
        self.learn_postprocessing = learn_postprocessing
        i, j, k = task["patch_size"]
        self.window = SlidingWindow((i, j, k), overlap, sw_batch_size, skip_empty)
        self.shows_logits = False
        self._scores: dict[str, Tensor] = {}
        self._settled_at = -1

    @property
    def class_names(self) -> list[str]:
        """Class names, the background first."""
        return list(self.description.task["labels"])

    @property
    def judged(self) -> UNet:
        """The network that is validated and kept: the averaged one where there is one."""
        return self.network if self.averaged is None else self.averaged

    def load_weights(self, trained: Trained) -> None:
        """Start from another run's weights, and remember what trained them.

        Raises:
            CheckpointError: If norm, architecture, channels or classes differ.
        """
        there, here = trained.description, self.description
        refuse_contradictions(here, there, with_data=False)
        self.network.load_state_dict(trained.weights)
        if self.averaged is not None:
            self.averaged.load_state_dict(trained.weights)
        if there.task["manifest"] == here.task["manifest"]:
            here.task["earlier_cases"] = list(there.trained_on)
            if met := sorted(set(here.task["val_cases"]) & set(there.trained_on)):
                log.warning(
                    "%d validation cases trained the weights this run starts from; their Dice here "
                    "is not validation: %s",
                    len(met),
                    ", ".join(met[:5]) + (", …" if len(met) > 5 else ""),
                )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer; the learning rate is set step by step."""
        return self.optimization.build(self.network)

    def on_fit_start(self) -> None:
        """Compile, where that is asked for; have DDP find the gradients as it expects them.

        Raises:
            OptionError: If it cannot be compiled.
        """
        if self.trainer.world_size > 1:
            match_strides(self.network)
        self._heads = training_forward(self.network, self.compiled, self.device.type)

    def on_train_batch_start(self, batch: dict[str, Any], _index: int) -> None:
        """Set the learning rate from the progress of the training, and dropout's channels.

        What dropout takes away from a patch depends on the seed and the patch's number alone.
        """
        recipe = self.optimization
        progress = shared_progress(self.trainer)
        rate = recipe.learning_rate * learning_rate_factor(recipe.schedule, progress, recipe.warmup)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate
        set_progress(self.network, progress)
        self._seed_draws(self.trainer.fit_loop.epoch_loop.batch_progress.total.ready - 1)
        if "number" in batch:  # not of other loaders: dropout then draws by this batch's seed
            draw_channels(self.network, self._seed, batch["number"].tolist())

    @property
    def _seed(self) -> int:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return data.seed if data else 0

    def _seed_draws(self, number: int) -> None:
        """Have what else PyTorch draws depend on (seed, number): a resumed run draws the same."""
        words = np.random.SeedSequence([self._seed, _DRAWS, number]).generate_state(2)
        torch.manual_seed(int(words[0]) << 32 | int(words[1]))

    def training_step(self, batch: dict[str, Any], _index: int) -> dict[str, Tensor]:
        """Return the loss of one batch of patches, that of all devices taken as one batch.

        With `shows_logits` also the logits, for what watches the training.
        """
        heads = self._heads(batch["image"])
        across = self.trainer.world_size > 1
        loss = supervised_loss(heads, batch["label"], across, self.loss)
        return {"loss": loss, **({"logits": heads[0].detach()} if self.shows_logits else {})}

    def optimizer_step(self, *arguments: Any, **settings: Any) -> None:
        """Take a step, and move the averaged weights a little towards the new ones."""
        super().optimizer_step(*arguments, **settings)
        if self.averaged is None:
            return
        # Early weights are forgotten sooner: a short training must not drag its start along.
        steps = self.trainer.global_step
        decay = min(self.ema_decay, (1 + steps) / (10 + steps))
        with torch.no_grad():
            average, current = self.averaged.parameters(), self.network.parameters()
            torch._foreach_lerp_(list(average), list(current), 1 - decay)

    def on_validation_epoch_start(self) -> None:
        """Begin a validation with statistics that belong to the weights."""
        self._scores.clear()
        if self.trainer.state.fn == "fit":
            self.settle()

    @property
    def is_settled(self) -> bool:
        """Whether averaged weights, if there are any, have batch statistics that belong to them."""
        needed = self.averaged is not None and NORMS[self.description.norm].eval_differs
        return not needed or self._settled_at == self.trainer.global_step

    def settle(self) -> None:
        """Measure the batch statistics of averaged weights; those of the others do not fit them.

        Done before these weights are validated or kept, once per state of the weights.
        """
        if self.averaged is None or self.is_settled:
            return
        self._seed_draws(0)
        measure_population(self.averaged, self._population())
        self._settled_at = self.trainer.global_step

    def _population(self) -> Iterator[Tensor]:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        yield from data.population(POPULATION_BATCHES, self.device)

    def validation_step(self, batch: dict[str, Any], _index: int) -> None:
        """Predict one whole volume by the sliding window and score it on the training grid."""
        classes = len(self.class_names)
        parts = slabs(self.window, batch["image"], self.judged, classes)
        self._scores[batch["case_id"][0]] = score_volume(parts, batch["label"], classes, self.loss)

    def on_validation_epoch_end(self) -> None:
        """Log Dice per class and their mean: over cases first, then over foreground classes.

        Every device has scored its own cases; all log the same figures, over each case once.
        """
        scores = self._scores
        if self.trainer.world_size > 1:
            parts: list[dict[str, Tensor]] = [{}] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, scores)
            scores = {case: row for part in parts for case, row in part.items()}
        rows = torch.stack([scores[case] for case in sorted(scores)])
        per_class = rows[:, 1:].nanmean(dim=0)
        self.log("val/loss", rows[:, 0].mean().float())
        self.log("val/dice", per_class.nanmean().nan_to_num(0.0))
        for name, value in zip(self.class_names[1:], per_class, strict=True):
            self.log(f"val/dice_{name}", value)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what inference needs; primitives only."""
        checkpoint[KEY] = self.description.to_primitives()
        if not self.is_settled:
            checkpoint[UNSETTLED] = True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Be in double precision before such weights are loaded: Lightning converts after that."""
        if any(value.dtype == torch.float64 for value in checkpoint["state_dict"].values()):
            self.double()
