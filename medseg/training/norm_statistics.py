"""Validation with other batch statistics than those that the training has averaged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from medseg.core.errors import OptionError
from medseg.networks.norms import NORMS, no_statistics
from medseg.networks.population import measure_population, own_statistics, use_statistics
from medseg.training.module import SegmentationModule

Kind = Literal["running", "precise", "own"]
"""Of the training; measured over training patches; of the case that is validated."""

PATCHES = 200
"""Training patches behind precise statistics, as `medseg doctor` takes them."""


class NormStatistics(Callback):
    """Have batch norm normalize by statistics of another kind while cases are validated.

    Args:
        kind: Which.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse what has no such statistics; measure those of the training patches."""
        module = cast("SegmentationModule", pl_module)
        description = module.description
        if not NORMS[description.norm].eval_differs:
            raise OptionError(
                f"--norm_statistics {self.kind}: {no_statistics(description.norm)}. Drop the flag."
            )
        if self.kind == "own":
            description.check_own_statistics()
        if self.kind == "precise":
            measure_population(module.judged, _patches(trainer, module))

    def on_validation_batch_start(
        self, _trainer: pl.Trainer, module: pl.LightningModule, batch: Any, *_: Any
    ) -> None:
        """Take the statistics of the case that comes next."""
        if self.kind == "own":
            module = cast("SegmentationModule", module)
            statistics = own_statistics(module.judged, batch["image"], module.window)
            use_statistics(module.judged, statistics)


def _patches(trainer: pl.Trainer, module: SegmentationModule) -> Iterator[Tensor]:
    data = trainer.datamodule  # type: ignore[attr-defined]
    data.setup("fit")
    for images in data.population(-(-PATCHES // data.batch_size)):
        yield images.to(module.device)
