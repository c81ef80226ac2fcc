"""A trained network that labels one case at a time. Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.core.errors import OptionError
from medseg.core.geometry import Grid
from medseg.core.runs import RunFiles
from medseg.data.resample import resample
from medseg.data.transforms import Preprocessing, Reading, prepare_case
from medseg.io.write import label_dtype
from medseg.networks.checkpoint import Description, load_trained
from medseg.networks.unet import UNet
from medseg.networks.window import SlidingWindow


@dataclass(frozen=True, eq=False)
class Prediction:
    """A labelled case.

    Attributes:
        label: Label values of the training's label table, shape `grid.shape`.
        grid: The grid of the (first) image file.
        warnings: What the readers had to resolve.
    """

    label: NDArray[Any]
    grid: Grid
    warnings: tuple[str, ...]


class Predictor:
    """Label cases with one trained network, by the sliding window its validation used.

    Args:
        network: In evaluation mode.
        description: What it was trained for.
        overlap: Overlap of the window; as in training if None.
        device: Where it runs; a GPU if there is one and None is given.
    """

    def __init__(
        self,
        network: UNet,
        description: Description,
        overlap: float | None = None,
        device: str | None = None,
    ) -> None:
        self.description = description
        self.device = _device(device)
        self.network = network.to(self.device).eval()
        task = description.task
        i, j, k = task["patch_size"]
        share = description.overlap if overlap is None else overlap
        self.window = SlidingWindow((i, j, k), share)
        self.label_values = np.asarray(list(task["labels"].values()))
        self.preprocessing = Preprocessing(**task["preprocessing"])

    @classmethod
    def from_run(
        cls,
        run_dir: Path,
        checkpoint: str = "best",
        overlap: float | None = None,
        device: str | None = None,
    ) -> Predictor:
        """Load a training's network.

        Args:
            run_dir: Its folder.
            checkpoint: `best`, `last` or the path of a checkpoint.
            overlap: See the class.
            device: See the class.

        Raises:
            OptionError: If there is no such checkpoint.
            CheckpointError: If it cannot be read.
        """
        trained = load_trained(RunFiles(Path(run_dir)).checkpoint(checkpoint))
        return cls(trained.network(), trained.description, overlap, device)

    @property
    def channels(self) -> int:
        """Image channels a case must have."""
        return len(self.description.task["channel_names"])

    def role(self, case_id: str) -> str:
        """Return what a case of this name was: `training`, `validation` or `unseen`."""
        if case_id in self.description.trained_on:
            return "training"
        return "validation" if case_id in self.description.task["val_cases"] else "unseen"

    def predict(self, images: Sequence[Path], reading: Reading | None = None) -> Prediction:
        """Label one case on the grid of its (first) image.

        Args:
            images: One file per channel, or one file that holds all; a folder for a DICOM series.
            reading: What the reader is told about them.

        Raises:
            VolumeError: If a file is refused.
        """
        case = prepare_case(images, None, self.channels, (), self.preprocessing, reading=reading)
        with torch.inference_mode():
            image = torch.from_numpy(case.image)[None].to(self.device)
            logits = self.window(image, self.network)[0].cpu()
            # Logits are brought back, not labels: interpolated labels would be jagged.
            label = resample(logits, case.grid, case.original).argmax(dim=0)
        dtype = label_dtype(int(self.label_values.max()))
        values = self.label_values.astype(dtype)[label.numpy()]
        return Prediction(values, case.original, case.warnings)


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"--device must be cpu, cuda or cuda:N; got {name!r}.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise OptionError(f"--device {name}: no CUDA device is available here.")
    return device
